#!/usr/bin/env python3
"""Writes the solar cells of ELPV as a folder of PNGs and a table of labels that saccade-eval reads.

    pip install elpv-dataset numpy pillow && python3 bench/solar_cells.py solar
    saccade-pretrain --data solar/train --run runs/solar --minutes 5
    saccade-eval --weights runs/solar --train solar/labels.csv --linear --few-labels 0.01,0.1

2,624 gray electroluminescence images of 300 x 300 pixels, each with a probability of a defect given by experts (Buerhop-Lutz
et al., "A benchmark for visual identification of defective solar cells in electroluminescence imagery", 2018). Here a cell is
defective where that is above a half, and three quarters of each class, drawn by a fixed seed, are to learn from.
"""
import argparse
import csv
import pathlib

import numpy as np
from elpv_dataset.utils import load_dataset
from PIL import Image

parser = argparse.ArgumentParser(description="Solar cells as PNGs with a table of labels")
parser.add_argument("folder", type=pathlib.Path, help="where they go: train/, test/ and labels.csv")
parser.add_argument("--seed", type=int, default=0, help="of the division in train and test")
arguments = parser.parse_args()

images, probabilities, _ = load_dataset()
defective = probabilities > 0.5
split = np.full(len(images), "train", dtype=object)
random = np.random.default_rng(arguments.seed)
for of_class in (np.flatnonzero(defective), np.flatnonzero(~defective)):
    split[random.permutation(of_class)[: round(len(of_class) / 4)]] = "test"

for part in ("train", "test"):
    (arguments.folder / part).mkdir(parents=True, exist_ok=True)
with open(arguments.folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["path", "label", "split"])
    for i, image in enumerate(images):
        path = f"{split[i]}/cell{i:04d}.png"
        Image.fromarray(image).save(arguments.folder / path)
        table.writerow([path, "defective" if defective[i] else "functional", split[i]])
print(f"{arguments.folder}: {sum(split == 'train')} cells to learn from, {sum(split == 'test')} to be judged by, "
      f"{sum(defective)} of {len(images)} defective")
