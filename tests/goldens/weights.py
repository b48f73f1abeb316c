"""Weights as PyTorch and others write them, and what is to be read out of them: weights/*.pth, *.pkl beside
*.expected.safetensors, whose metadata is the metadata to be found."""
import argparse
import collections
import pathlib
import pickle

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "weights"
# What no tensor of ours holds becomes the next that does.
CAST = {torch.float64: torch.float32, torch.bool: torch.uint8, torch.int8: torch.int32, torch.int16: torch.int32,
        torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


def expect(name, tensors, metadata=None):
    tensors = {k: t.detach().to(CAST.get(t.dtype, t.dtype)).clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    save_file(tensors, HERE / f"{name}.expected.safetensors", metadata)


def tensors():
    random = torch.Generator().manual_seed(0)
    base = torch.randn(4, 3, 2, 5, generator=random)
    shared = torch.arange(24.0)
    return {
        "conv.weight": base,
        "conv.channels_last": torch.randn(4, 3, 2, 5, generator=random).to(memory_format=torch.channels_last),
        "conv.1x1_channels_last": torch.randn(6, 5, 1, 1, generator=random).to(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 7, generator=random).t(),
        "permuted": base.permute(2, 0, 3, 1),
        "expanded": torch.randn(3, 1, generator=random).expand(3, 4),
        "shared.first": shared[:6].view(2, 3),
        "shared.second": shared[6:].view(3, 6)[:, ::2],
        "parameter": torch.nn.Parameter(torch.randn(5, generator=random)),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(4, 0, 2),
        "f64": torch.randn(3, generator=random, dtype=torch.float64),
        "f16": torch.randn(3, 2, generator=random).half().t(),
        "bf16": torch.randn(3, generator=random).bfloat16(),
        "i64": torch.tensor([-(2**40), 7]),
        "i32": torch.tensor([-(2**30), 7], dtype=torch.int32),
        "i16": torch.tensor([-300, 7], dtype=torch.int16),
        "i8": torch.tensor([[-3, 7], [1, 2]], dtype=torch.int8).t(),
        "u8": torch.tensor([200, 7], dtype=torch.uint8),
        "u16": torch.tensor([60000, 7], dtype=torch.uint16),
        "bool": torch.tensor([True, False, True]),
        "f64_transposed": torch.randn(2, 3, generator=random, dtype=torch.float64).t(),
    }


def main():
    HERE.mkdir(exist_ok=True)
    state = collections.OrderedDict(tensors())
    state._metadata = {"": {"version": 1}}
    tagged = torch.ones(2)
    tagged.tag = "an attribute"
    state["with_attributes"] = tagged
    torch.save(state, HERE / "zip.pth")
    torch.save(state, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(state, HERE / "protocol4.pth", pickle_protocol=4)
    expect("zip", state)

    small = torch.arange(3.0)
    checkpoint = {
        "epoch": 100,
        "arch": "resnet50",
        "best": np.float64(0.25),
        "count": np.int64(12),
        "flag": True,
        "nothing": None,
        "lr": 1e-3,
        "mean": (0.485, 0.456, 0.406),
        "args": argparse.Namespace(arch="resnet50", crops=[2, 6], out=pathlib.Path("/runs/1"), nested={"a": 1}),
        "state_dict": {"module.w": small, "module.steps": torch.tensor(7)},
        "ema": {"module.w": small},
        "optimizer": {"state": {0: {"momentum_buffer": small * 2}}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "history": collections.defaultdict(list, {"loss": [1.5, 2.0]}),
        "counter": collections.Counter("ab"),
        "size": torch.Size([3, 4]),
        "device": torch.device("cuda", 1),
        "dtype": torch.float32,
        "activation": torch.nn.ReLU,
        "version": torch.torch_version.TorchVersion("2.1.0"),
        "names": {"only"},
        "big": 2**200,
        "random": np.random.RandomState(0).get_state()[1][:2],
    }
    torch.save(checkpoint, HERE / "checkpoint.pth")
    expect("checkpoint",
           {"state_dict.module.w": small, "state_dict.module.steps": torch.tensor(7), "ema.module.w": small,
            "optimizer.state.0.momentum_buffer": small * 2,
            "random": torch.from_numpy(checkpoint["random"].astype(np.int64))},
           {"epoch": "100", "arch": "resnet50", "best": "0.25", "count": "12", "flag": "true", "lr": "0.001",
            "mean": "0.485,0.456,0.406", "args.arch": "resnet50", "args.crops": "2,6", "args.out": "/runs/1",
            "args.nested.a": "1", "optimizer.param_groups.0.lr": "0.1", "optimizer.param_groups.0.params": "0,1",
            "history.loss": "1.5,2", "counter.a": "1", "counter.b": "1", "size": "3,4", "device": "cuda:1",
            "version": "2.1.0", "names": "only"})

    arrays = {"model": {"w": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5),
                        "b": np.array([1.0, -1.0]), "texts": np.array(["a"])}, "__author__": "someone"}
    for protocol in (2, 5):
        (HERE / f"numpy{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))
    expect("numpy", {"model.w": torch.from_numpy(np.ascontiguousarray(arrays["model"]["w"])),
                     "model.b": torch.from_numpy(arrays["model"]["b"])}, {"__author__": "someone"})


if __name__ == "__main__":
    main()
