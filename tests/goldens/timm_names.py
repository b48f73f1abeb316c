"""timm_regnety_004.txt: a line for each tensor of timm's regnety_004, its name and its extents."""

from pathlib import Path

import timm


def main():
    tensors = timm.create_model("regnety_004", pretrained=False).state_dict()
    lines = [" ".join([name, *map(str, tensor.shape)]) for name, tensor in tensors.items()]
    (Path(__file__).parent / "timm_regnety_004.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
