"""Numbers by formula, and the file format: shared by the generators of this folder.

Golden files stay small because nothing that a closed formula can produce is stored. The formula (also in C++:
tests/support/golden.h) is, for the element with flat index i, counted in PyTorch's row-major order, of a tensor `name`:

    hash(name, i) = mix(fnv1a64(name) + (i + 1) * 0x9E3779B97F4A7C15)       (64-bit wrap-around)
    mix(z):  z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31   (splitmix64)
    unit(name, i) = (hash >> 40) * 2^-24                                    (in [0, 1), exact in float32)

Everything is computed in double and rounded once to float32, so both languages get the same bits.
"""

import json
import struct

import numpy as np
import torch

GOLDEN_RATIO = 0x9E3779B97F4A7C15
SLICE = 8  # leading values kept of a tensor in a ledger
PROJECTIONS = 4  # random +-1 projections kept of a tensor in a ledger


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def hashes(name, count):
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a64(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(name, count):
    """float64 in [0, 1), multiples of 2^-24."""
    return (hashes(name, count) >> np.uint64(40)).astype(np.float64) * 2.0**-24


def signed(name, shape, scale=1.0):
    """float32 in [-scale, scale)."""
    values = (2.0 * unit(name, int(np.prod(shape))) - 1.0) * scale
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def image(name, n, h, w, channels=3):
    """float32 (n, channels, h, w): pixel noise in [-1, 1) plus an offset in [-4, 4) for each image and channel (4 times
    the tensor `name`.offset), so that the images differ after pooling. Summed in double, rounded once."""
    offset = 8.0 * unit(name + ".offset", n * channels).reshape(n, channels, 1, 1) - 4.0
    pixels = 2.0 * unit(name, n * channels * h * w).reshape(n, channels, h, w) - 1.0
    return torch.from_numpy((pixels + offset).astype(np.float32))


def parameter(name, shape):
    """The float32 value of a parameter or buffer, from its name and shape:
    rank >= 2                                (2 unit - 1) sqrt(6 / fan_in), fan_in = all sizes but the first
    *.weight of rank 1 (batch norm's gamma)  0.25 + 0.5 unit
    *.bias                                   v + 1 where v = 2 unit - 1 >= 0, else v - 1
    *.running_mean                           0.2 (2 unit - 1)
    *.running_var                            0.5 + unit
    Biases stay away from zero, and gammas are small beside them, so that few inputs of a ReLU lie near its kink: see
    kink_margin.
    """
    count = int(np.prod(shape))
    if len(shape) >= 2:
        return signed(name, shape, np.sqrt(6.0 / (count / shape[0])))
    if name.endswith("weight"):
        values = 0.25 + 0.5 * unit(name, count)
    elif name.endswith("bias"):
        values = 2.0 * unit(name, count) - 1.0
        values += np.where(values >= 0, 1.0, -1.0)
    elif name.endswith("running_mean"):
        values = 0.2 * (2.0 * unit(name, count) - 1.0)
    elif name.endswith("running_var"):
        values = 0.5 + unit(name, count)
    else:
        raise ValueError(f"no formula for {name}")
    return torch.from_numpy(values.astype(np.float32))


def fill(module):
    """Sets every parameter and floating buffer of a module by its name, and returns the module."""
    with torch.no_grad():
        for name, tensor in list(module.named_parameters()) + list(module.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(parameter(name, tuple(tensor.shape)))
    return module


class kink_margin:
    """Context that watches every nn.ReLU of a module: `margin` is the smallest |input| of any, in units of the standard
    deviation of that ReLU's inputs. An input that rounding carries across zero changes the gradient by far more than
    rounding does (about 1 / sqrt(number of inputs)), so two correct float32 implementations agree to 1e-4 only where
    no input is that close. The generators choose images for which none is. With `pools` the two largest of each window of
    an nn.MaxPool2d, where they are above zero, count likewise by their distance: rounding may swap them."""

    def __init__(self, module, pools=False):
        self.module, self.pools, self.margin = module, pools, float("inf")

    def __enter__(self):
        relus = [m for m in self.module.modules() if isinstance(m, torch.nn.ReLU)]
        self.hooks = [m.register_forward_pre_hook(self.watch) for m in relus]
        pools = [m for m in self.module.modules() if self.pools and isinstance(m, torch.nn.MaxPool2d)]
        self.hooks += [m.register_forward_pre_hook(self.watch_pool) for m in pools]
        return self

    def watch(self, _, inputs):
        x = inputs[0].detach()
        self.margin = min(self.margin, (x.abs().min() / x.std()).item())

    def watch_pool(self, pool, inputs):
        x = inputs[0].detach()
        windows = torch.nn.functional.unfold(x, pool.kernel_size, stride=pool.stride)
        windows = windows.reshape(*x.shape[:2], pool.kernel_size**2, -1)
        first, second = windows.topk(2, dim=2).values.unbind(2)
        self.margin = min(self.margin, ((first - second)[first > 0].min() / x.std()).item())

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def ledger(prefix, named):
    """What is kept of many large tensors: for each its L2 norm, its first SLICE values and PROJECTIONS sums
    sum_i s_ki t_i with signs s_ki = +1 where bit k of hash("projection", i) is set, else -1. The squared difference of
    a projection is, on average, the squared norm of the tensors' difference: the projections measure the norm-wise
    error without the tensor. Returns (tensors to store, metadata naming the rows)."""
    largest = max(t.numel() for _, t in named)
    bits = hashes("projection", largest)
    signs = [np.where(bits >> np.uint64(k) & np.uint64(1), 1.0, -1.0) for k in range(PROJECTIONS)]
    norms, slices, projections = [], [], []
    for _, tensor in named:
        flat = tensor.detach().double().contiguous().reshape(-1).numpy()
        norms.append(np.linalg.norm(flat))
        slices.append(np.pad(flat[:SLICE], (0, max(0, SLICE - flat.size))))
        projections.append([float(np.dot(s[: flat.size], flat)) for s in signs])
    tensors = {
        prefix + ".norms": np.array(norms),
        prefix + ".slices": np.array(slices),
        prefix + ".projections": np.array(projections),
    }
    return tensors, {prefix + ".names": "\n".join(name for name, _ in named)}


def relative_error(a, b):
    """||a - b|| / ||b||."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


def save(path, tensors, metadata=None):
    """Writes a safetensors file: 8-byte little-endian header length, JSON header, raw little-endian data. Tensors are
    stored as float32."""
    header, blobs, offset = {}, [], 0
    if metadata:
        header["__metadata__"] = {key: str(value) for key, value in metadata.items()}
    for name, tensor in sorted(tensors.items()):
        array = np.asarray(tensor.detach() if isinstance(tensor, torch.Tensor) else tensor, dtype="<f4", order="C")
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        blobs.append(array.tobytes())
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    print(f"{path.name}: {len(tensors)} tensors, {offset} bytes")
