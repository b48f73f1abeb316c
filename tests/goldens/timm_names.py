"""timm_regnety_004.txt, timm_resnet18.txt, timm_resnet34.txt: a line for each tensor of timm's network of that name, its
name and its extents."""

from pathlib import Path

import timm


def main():
    for network in ("regnety_004", "resnet18", "resnet34"):
        tensors = timm.create_model(network, pretrained=False).state_dict()
        lines = [" ".join([name, *map(str, tensor.shape)]) for name, tensor in tensors.items()]
        (Path(__file__).parent / f"timm_{network}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
