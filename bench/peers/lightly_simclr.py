#!/usr/bin/env python3
"""SimCLR by lightly on images below a folder, for so many minutes of the processor: the peer of bench/against_lightly.

    build/peers-venv/bin/python bench/peers/lightly_simclr.py --data cifar10/train --out peer.pth --minutes 15

ResNet-18 with the stem for small images (3x3, stride 1, no pooling), lightly's transform, head and loss, AdamW with warm-up
and a cosine that ends with the time, which is counted from the first batch on. bf16 by autocast where a few steps of it
are faster than f32; channels_last in both. Writes the trunk's state dict, and says what it did on stderr.
"""

import argparse
import math
import sys
import time

import torch
import torchvision
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform

WARM_UP = 0.1  # of the run
DIM = 128


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of a folder for each class; classes are not looked at")
    parser.add_argument("--out", required=True, help="file of the trunk's state dict")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="of the two crops")
    parser.add_argument("--min-scale", type=float, default=0.2, help="smallest share of an image's area")
    parser.add_argument("--strength", type=float, default=0.5, help="of the colour jitter")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--temperature", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that load images")
    return parser.parse_args()


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torchvision.models.resnet18()
        self.trunk.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.trunk.maxpool = torch.nn.Identity()
        self.trunk.fc = torch.nn.Identity()
        self.head = SimCLRProjectionHead(512, 512, DIM)

    def forward(self, images):
        return self.head(self.trunk(images))


def step(model, loss, optimizer, views, bf16):
    views = torch.cat(views).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        first, second = model(views).chunk(2)
    value = loss(first.float(), second.float())
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.item()


def faster_in_bf16(options):
    """Trials on a model of their own, which leaves the one that is trained as it is."""
    best = {}
    for bf16 in (False, True):
        torch.manual_seed(0)
        model = Model().to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        views = [torch.randn(options.batch, 3, options.size, options.size) for _ in range(2)]
        seconds = []
        for _ in range(4):
            begin = time.perf_counter()
            step(model, NTXentLoss(options.temperature), optimizer, views, bf16)
            seconds.append(time.perf_counter() - begin)
        best[bf16] = min(seconds[1:])
    print(f"a step: {best[False]:.2f} s in f32, {best[True]:.2f} s in bf16", file=sys.stderr)
    return best[True] < best[False]


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    bf16 = faster_in_bf16(options)
    torch.manual_seed(options.seed)
    transform = SimCLRTransform(
        input_size=options.size,
        cj_strength=options.strength,
        gaussian_blur=0.0,
        min_scale=options.min_scale,
        normalize={"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    )
    loader = torch.utils.data.DataLoader(
        LightlyDataset(options.data, transform=transform),
        batch_size=options.batch,
        shuffle=True,
        drop_last=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
    )
    model = Model().to(memory_format=torch.channels_last)
    loss = NTXentLoss(options.temperature)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    start, images, done = time.perf_counter(), 0, False
    while not done:
        for views, _, _ in loader:
            passed = (time.perf_counter() - start) / (60 * options.minutes)
            if passed >= 1:
                done = True
                break
            rate = passed / WARM_UP if passed < WARM_UP else 0.5 + 0.5 * math.cos(math.pi * (passed - WARM_UP) / (1 - WARM_UP))
            for group in optimizer.param_groups:
                group["lr"] = rate * options.lr
            value = step(model, loss, optimizer, views, bf16)
            images += options.batch
            if images % (100 * options.batch) == 0:
                print(f"{100 * passed:.0f} %, {images / (time.perf_counter() - start):.0f} images/s, loss {value:.3f}", file=sys.stderr)
    seconds = time.perf_counter() - start
    print(f"{images} images in {seconds:.0f} s, {images / seconds:.0f} images/s", file=sys.stderr)
    torch.save(model.trunk.state_dict(), options.out)


if __name__ == "__main__":
    main()
