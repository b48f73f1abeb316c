"""ops.safetensors: single operations of PyTorch, forward and all gradients, whole.

Inputs, weights and the upstream gradient come from formula.py: for case `c`, input = signed("c.input"), weights =
parameter("c.<name>"), upstream gradient = signed("c.upstream") (of the output's shape; 1 for a scalar). Layouts are
PyTorch's: images (n, c, h, w), weights (out, in / groups, kh, kw). Computed in double from the float32 inputs.

Tensors "<case>.output", "<case>.<name>.grad", and what the case adds. The metadata describes each case in one line:
"<case>" = "key=value ..." with the input's shape and the settings.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from formula import parameter, save, signed

HERE = Path(__file__).parent

CONVOLUTIONS = {
    # name: n, in, h, w, out, kernel, stride, padding, groups
    "conv2d.3x3": (2, 5, 7, 6, 8, 3, 1, 1, 1),
    "conv2d.3x3_stride2": (2, 3, 9, 8, 16, 3, 2, 1, 1),
    "conv2d.7x7_stride2": (2, 3, 15, 14, 8, 7, 2, 3, 1),
    "conv2d.1x1": (2, 24, 5, 4, 16, 1, 1, 0, 1),
    "conv2d.1x1_stride2": (2, 16, 7, 6, 24, 1, 2, 0, 1),
    "conv2d.group8": (2, 24, 7, 6, 24, 3, 1, 1, 3),
    "conv2d.group8_stride2": (2, 16, 9, 8, 16, 3, 2, 1, 2),
    "conv2d.group16": (1, 32, 6, 5, 32, 3, 1, 1, 2),
    "conv2d.group24": (1, 48, 5, 6, 48, 3, 2, 1, 2),
}


class Case:
    """Collects the leaves, output and gradients of one operation under its name."""

    def __init__(self, name, tensors):
        self.name, self.tensors, self.leaves = name, tensors, {}

    def leaf(self, name, value):
        self.leaves[name] = value.double().requires_grad_()
        return self.leaves[name]

    def input(self, *shape, name="input", scale=1.0):
        return self.leaf(name, signed(f"{self.name}.{name}", shape, scale))

    def parameter(self, name, *shape):
        return self.leaf(name, parameter(f"{self.name}.{name}", shape))

    def finish(self, output):
        upstream = signed(self.name + ".upstream", output.shape).double() if output.dim() else torch.tensor(1.0)
        output.backward(upstream)
        self.tensors[self.name + ".output"] = output.reshape(output.shape or (1,))
        for name, leaf in self.leaves.items():
            self.tensors[f"{self.name}.{name}.grad"] = leaf.grad


def convolutions(tensors, metadata):
    for name, (n, c_in, h, w, c_out, k, stride, padding, groups) in CONVOLUTIONS.items():
        case = Case(name, tensors)
        x, weight = case.input(n, c_in, h, w), case.parameter("weight", c_out, c_in // groups, k, k)
        case.finish(F.conv2d(x, weight, None, stride, padding, 1, groups))
        metadata[name] = f"n={n} in={c_in} h={h} w={w} out={c_out} kernel={k} stride={stride} padding={padding} groups={groups}"
    case = Case("linear", tensors)
    case.finish(F.linear(case.input(6, 20), case.parameter("weight", 12, 20), case.parameter("bias", 12)))
    metadata["linear"] = "n=6 in=20 out=12"


def batch_norms(tensors, metadata):
    n, c, h, w = 3, 20, 5, 4
    for variant in ("plain", "relu", "residual_relu"):
        name = "batch_norm." + variant
        case = Case(name, tensors)
        x = case.input(n, c, h, w, scale=3.0)
        gamma, beta = case.parameter("weight", c), case.leaf("bias", signed(name + ".bias", (c,), 0.5))
        mean, var = (parameter(f"{name}.running_{s}", (c,)).double() for s in ("mean", "var"))
        y = F.batch_norm(x, mean, var, gamma, beta, training=True, momentum=0.1, eps=1e-5)
        if variant == "residual_relu":
            y = y + case.input(n, c, h, w, name="residual")
        case.finish(y if variant == "plain" else y.relu())
        tensors[name + ".running_mean.after"], tensors[name + ".running_var.after"] = mean, var
        metadata[name] = f"n={n} c={c} h={h} w={w} input_scale=3 bias_scale=0.5 momentum=0.1 eps=1e-5"


def pools(tensors, metadata):
    case = Case("max_pool.3x3_stride2", tensors)
    case.finish(F.max_pool2d(case.input(2, 12, 9, 8), 3, 2, 1))
    metadata[case.name] = "n=2 c=12 h=9 w=8 kernel=3 stride=2 padding=1"
    case = Case("global_average_pool", tensors)
    case.finish(case.input(3, 12, 5, 4).mean((2, 3)))
    metadata[case.name] = "n=3 c=12 h=5 w=4"


def squeeze_excite(tensors, metadata):
    n, c, h, w, r = 3, 16, 5, 4, 6
    case = Case("squeeze_excite", tensors)
    x = case.input(n, c, h, w)
    fc1 = case.parameter("fc1.weight", r, c, 1, 1), case.parameter("fc1.bias", r)
    fc2 = case.parameter("fc2.weight", c, r, 1, 1), case.parameter("fc2.bias", c)
    case.finish(x * F.conv2d(F.conv2d(x.mean((2, 3), keepdim=True), *fc1).relu(), *fc2).sigmoid())
    metadata[case.name] = f"n={n} c={c} h={h} w={w} reduced={r}"


def losses(tensors, metadata):
    case = Case("cross_entropy.soft", tensors)
    n, k, temperature = 6, 20, 0.1
    target = (4 * signed(case.name + ".target_logits", (n, k)).double()).softmax(1)
    scores = case.input(n, k)
    case.finish(F.cross_entropy(scores / temperature, target))
    tensors[case.name + ".target"] = target
    metadata[case.name] = f"n={n} k={k} temperature={temperature} reduction=mean"
    case = Case("cross_entropy.labels", tensors)
    case.finish(F.cross_entropy(case.input(n, k, scale=3.0), torch.arange(n) * 3 % k))
    metadata[case.name] = f"n={n} k={k} input_scale=3 label_of_row_i=3i%k reduction=mean"
    case = Case("l2_normalize", tensors)
    case.finish(F.normalize(case.input(5, 16), dim=1))
    metadata[case.name] = "n=5 c=16 eps=1e-12"


def main():
    tensors, metadata = {}, {}
    for family in (convolutions, batch_norms, pools, squeeze_excite, losses):
        family(tensors, metadata)
    save(HERE / "ops.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
