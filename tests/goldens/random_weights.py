"""random_weights.py FOLDER COUNT [SEED]: random tensors in random layouts, saved by torch.save in random ways as
<i>.pth, and the same as safetensors beside them, cast as Saccade casts."""
import collections
import pathlib
import sys

import torch
from safetensors.torch import save_file

from weights import CAST

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
         torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64]


def any_of(random, choices):
    return choices[int(torch.randint(len(choices), (), generator=random))]


def tensor(random):
    dtype = any_of(random, TYPES)
    rank = int(torch.randint(0, 6, (), generator=random))
    shape = [any_of(random, [0, 1, 1, 2, 3, 5, 8]) if any_of(random, range(4)) == 0 else
             int(torch.randint(1, 7, (), generator=random)) for _ in range(rank)]
    # Any bits, NaN and infinities among them; a wider storage to take views of.
    pad = any_of(random, [0, 0, 1, 3])
    wide = [n + pad for n in shape]
    count = int(torch.tensor(wide).prod()) if wide else 1
    size = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 256, (count * size,), generator=random, dtype=torch.uint8)
    if dtype == torch.bool:
        raw = raw % 2
    if dtype == torch.uint64:
        raw.view(-1, 8)[:, 7] %= 128  # more than an int64 can be is refused
    full = raw.view(dtype).view(wide)
    view = full[tuple(slice(pad, None) for _ in shape)] if rank else full
    kind = any_of(random, range(6))
    if kind == 1 and rank:
        view = view.permute(*torch.randperm(rank, generator=random).tolist())
    if kind == 2 and rank:
        view = view[..., :: any_of(random, [1, 2, 3])]
    if kind == 3:
        view = view.expand(3, *view.shape)
    if kind == 4 and rank == 4:
        view = view.contiguous(memory_format=torch.channels_last)
    if kind == 5 and view.is_floating_point():
        view = torch.nn.Parameter(view)
    return view


def main():
    folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    random = torch.Generator().manual_seed(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    for i in range(count):
        flat, saved = {}, any_of(random, [dict, collections.OrderedDict])()
        for n in range(any_of(random, range(1, 5))):
            t = tensor(random)
            if any_of(random, range(3)) == 0:
                saved.setdefault("inner", {})[n] = t
                flat[f"inner.{n}"] = t
            else:
                saved[f"t{n}.weight"] = t
                flat[f"t{n}.weight"] = t
            if any_of(random, range(4)) == 0:  # the same again, or a view of it
                other = t.detach()[1:] if t.dim() and t.shape[0] > 1 else t
                saved[f"again{n}"] = other
                flat[f"again{n}"] = other
        protocol = any_of(random, [2, 2, 3, 4, 5])
        torch.save(saved, folder / f"{i}.pth", pickle_protocol=protocol,
                   _use_new_zipfile_serialization=any_of(random, [True, True, False]))
        save_file({k: t.detach().to(CAST.get(t.dtype, t.dtype)).contiguous().clone() for k, t in flat.items()},
                  folder / f"{i}.safetensors")


if __name__ == "__main__":
    main()
