#!/usr/bin/env python3
"""The work of bench/data_loading.cpp by torchvision and Pillow, on one core: images/s, one line a measurement.

    pip install torch torchvision pillow numpy && taskset -c 0 python3 bench/peers/data_loading.py

SwAV's augmentation as its authors wrote it for torchvision: decode a 500 x 375 JPEG, then 2 x 96 and 4 x 48 crops; and
Fashion-MNIST-like 28 x 28 gray images with 2 x 28 and 2 x 16 crops.
"""
import io
import os
import random
import time

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

torch.set_num_threads(1)
HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(HERE, "../../tests/goldens/augment/photo.jpg"), "rb") as file:
    PHOTO = file.read()


class RandomBlur:
    def __call__(self, image):
        if random.random() > 0.5:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def crop(size, scale, mean, std):
    jitter = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)
    return transforms.Compose([
        transforms.RandomResizedCrop(size, scale=scale),
        transforms.RandomHorizontalFlip(p=0.5),
        transforms.RandomApply([jitter], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        RandomBlur(),
        transforms.ToTensor(),
        transforms.Normalize(mean=mean, std=std),
    ])


def measure(name, work, seconds=3.0):
    work()
    done, start = 0, time.process_time()
    while time.process_time() - start < seconds:
        work()
        done += 1
    print(f"{name:28s} {done / (time.process_time() - start):10.1f} images/s", flush=True)


def decode():
    return Image.open(io.BytesIO(PHOTO)).convert("RGB")


rgb = ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))
photo_crops = [crop(96, (0.14, 1.0), *rgb)] * 2 + [crop(48, (0.05, 0.14), *rgb)] * 4
fashion_crops = [crop(28, (0.3, 1.0), (0.286,), (0.353,))] * 2 + [crop(16, (0.1, 0.3), (0.286,), (0.353,))] * 2
image = decode()
clothes = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))

measure("decode_jpeg", decode)
measure("crops/photo", lambda: [c(image) for c in photo_crops])
measure("pipeline_photo", lambda: [c(decode_once) for decode_once in [decode()] for c in photo_crops])
measure("pipeline_fashion_mnist", lambda: [c(clothes) for c in fashion_crops])
