"""regnet_y_400mf.safetensors, resnet*.safetensors: forward and all gradients of torchvision's networks in training mode
on two resolutions, large images first (so running statistics are updated by the large batch, then the small).
resnet18_cifar is torchvision's with the stem that small images are given (3x3, stride 1, no pooling); resnet9 is Page's,
written down here with torchvision's manner of names and a mean at its end.

Parameters, buffers and images come from formula.py, under torchvision's names, without the classifier. The images are
image("input.large.<salt>", n, h, w) and "input.small.<salt>", with salt, sizes_large and sizes_small in the metadata.
The loss is sum_r sum_(n,c) R_r[n,c] F_r[n,c], with F_r the globally pooled features of resolution r and R_r =
signed("loss.large" or "loss.small"). Computed in double from float32 inputs; `float32_error` in the metadata is the
largest norm-wise error that PyTorch's own float32 makes on a gradient.

Tensors: features.large, features.small, eval.large (evaluation mode on the large images after those two updates), loss,
and the ledgers (see formula.ledger) gradients.*, buffers.*, input_gradients.*.
"""

from collections import OrderedDict
from pathlib import Path

import torch
import torchvision
from formula import fill, image, kink_margin, ledger, relative_error, save, signed
from torch import nn

HERE = Path(__file__).parent
# Name: sizes (n, h, w), and the salt at which the search for images without a ReLU input near zero begins.
CASES = {
    "regnet_y_400mf": ({"large": (2, 96, 96), "small": (3, 48, 48)}, 2),
    "resnet18": ({"large": (2, 64, 64), "small": (3, 40, 40)}, 0),
    "resnet18_cifar": ({"large": (2, 32, 32), "small": (3, 20, 20)}, 0),
    "resnet34": ({"large": (2, 64, 64), "small": (3, 40, 40)}, 0),
    "resnet9": ({"large": (2, 32, 32), "small": (3, 20, 20)}, 0),
    "resnet50": ({"large": (2, 64, 64), "small": (3, 40, 40)}, 17),
}
MARGIN = 3.5e-6


def conv_norm(number, into, of):
    return OrderedDict(
        {f"conv{number}": nn.Conv2d(into, of, 3, padding=1, bias=False), f"bn{number}": nn.BatchNorm2d(of), f"relu{number}": nn.ReLU()}
    )


class Sum(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def resnet9():
    """David Page, How to Train Your ResNet 4: prep, layer1 with a residual, layer2, layer3 with a residual."""

    def pooled(into, of):
        return nn.Sequential(conv_norm(1, into, of) | {"pool": nn.MaxPool2d(2)})

    def residual(width):
        return Sum(conv_norm(1, width, width) | conv_norm(2, width, width))

    return nn.Sequential(
        conv_norm(1, 3, 64)
        | {
            "layer1": nn.Sequential(pooled(64, 128), residual(128)),
            "layer2": nn.Sequential(pooled(128, 256)),
            "layer3": nn.Sequential(pooled(256, 512), residual(512)),
            "pool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
        }
    )


def build(name, dtype):
    if name == "resnet9":
        return fill(resnet9()).to(dtype).train()
    network = getattr(torchvision.models, name.removesuffix("_cifar"))(weights=None)
    if name.endswith("_cifar"):
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    network.fc = nn.Identity()  # pooled features remain
    return fill(network).to(dtype).train()


def images_of(sizes, salt, dtype):
    return {r: image(f"input.{r}.{salt}", *size).to(dtype) for r, size in sizes.items()}


def find_salt(name, sizes, salt):
    network = build(name, torch.float64)
    while True:
        with torch.no_grad(), kink_margin(network, pools=name == "resnet9") as watched:
            for x in images_of(sizes, salt, torch.float64).values():
                network(x)
        if watched.margin >= MARGIN:
            return salt
        salt += 1


def run(name, sizes, salt, dtype):
    network = build(name, dtype)
    images = {r: x.requires_grad_() for r, x in images_of(sizes, salt, dtype).items()}
    features = {r: network(x) for r, x in images.items()}
    loss = sum((signed("loss." + r, f.shape).to(dtype) * f).sum() for r, f in features.items())
    loss.backward()
    results = {
        "gradients": [(n, p.grad) for n, p in network.named_parameters()],
        "buffers": [(n, b.clone()) for n, b in network.named_buffers() if b.is_floating_point()],
        "input_gradients": [(r, x.grad) for r, x in images.items()],
    }
    network.eval()
    with torch.no_grad():
        features["eval"] = network(images["large"])
    return features, loss, results


def main():
    for name, (sizes, start) in CASES.items():
        salt = find_salt(name, sizes, start)
        features, loss, results = run(name, sizes, salt, torch.float64)
        single_features, _, single = run(name, sizes, salt, torch.float32)
        errors = [relative_error(s, d) for (_, s), (_, d) in zip(single["gradients"], results["gradients"])]
        feature_errors = [relative_error(single_features[r], features[r]) for r in features]
        tensors = {"features.large": features["large"], "features.small": features["small"],
                   "eval.large": features["eval"], "loss": loss.reshape(1)}
        metadata = {"salt": salt, "sizes_large": "%d %d %d" % sizes["large"], "sizes_small": "%d %d %d" % sizes["small"],
                    "float32_error": f"{max(errors):.2e}", "float32_error_features": f"{max(feature_errors):.2e}"}
        print(name, metadata)
        for prefix, named in results.items():
            more, names = ledger(prefix, named)
            tensors |= more
            metadata |= names
        save(HERE / f"{name}.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
