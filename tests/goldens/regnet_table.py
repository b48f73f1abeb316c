"""regnet_table.csv: every RegNet by name and rounding flavour, its stage depths, widths and effective group widths, and
its parameter counts without and with a 1000-way classifier.

The counts come from networks built without memory by timm (pycls flavour and its *_tv variants) and torchvision (tv
flavour; where the two flavours agree, both are built and compared). What neither library ships by name is built by
torchvision's RegNet class from the generating parameters.
"""

import csv
from pathlib import Path

import timm
import torch
import torchvision
from torchvision.models.regnet import BlockParams, RegNet

HERE = Path(__file__).parent

# name: depth, w_0, w_a, w_m, group width; se_ratio is 0.25 for every Y.
MODELS = {
    "x_200mf": (13, 24, 36.44, 2.49, 8),
    "x_400mf": (22, 24, 24.48, 2.54, 16),
    "x_600mf": (16, 48, 36.97, 2.24, 24),
    "x_800mf": (16, 56, 35.73, 2.28, 16),
    "x_1_6gf": (18, 80, 34.01, 2.25, 24),
    "x_3_2gf": (25, 88, 26.31, 2.25, 48),
    "x_4_0gf": (23, 96, 38.65, 2.43, 40),
    "x_6_4gf": (17, 184, 60.83, 2.07, 56),
    "x_8gf": (23, 80, 49.56, 2.88, 120),
    "x_12gf": (19, 168, 73.36, 2.37, 112),
    "x_16gf": (22, 216, 55.59, 2.1, 128),
    "x_32gf": (23, 320, 69.86, 2.0, 168),
    "y_200mf": (13, 24, 36.44, 2.49, 8),
    "y_400mf": (16, 48, 27.89, 2.09, 8),
    "y_600mf": (15, 48, 32.54, 2.32, 16),
    "y_800mf": (14, 56, 38.84, 2.4, 16),
    "y_1_6gf": (27, 48, 20.71, 2.65, 24),
    "y_3_2gf": (21, 80, 42.63, 2.66, 24),
    "y_4_0gf": (22, 96, 31.41, 2.24, 64),
    "y_6_4gf": (25, 112, 33.22, 2.27, 72),
    "y_8gf": (17, 192, 76.82, 2.19, 56),
    "y_12gf": (19, 168, 73.36, 2.37, 112),
    "y_16gf": (18, 200, 106.23, 2.48, 112),
    "y_32gf": (20, 232, 115.89, 2.53, 232),
    "y_64gf": (20, 352, 147.48, 2.4, 328),
    "y_128gf": (27, 456, 160.83, 2.52, 264),
    "y_256gf": (27, 640, 230.83, 2.53, 373),
    "y_256gf_classy": (27, 640, 124.47, 2.04, 848),
    "y_10b": (27, 1744, 620.83, 2.52, 1010),
}
# Published counts with a 1000-way classifier (torchvision's num_params), as a check on the libraries built here.
PUBLISHED = {
    ("x_400mf", "tv"): 5495976, ("x_800mf", "tv"): 7259656, ("x_1_6gf", "tv"): 9190136, ("x_3_2gf", "tv"): 15296552,
    ("x_8gf", "tv"): 39572648, ("x_16gf", "tv"): 54278536, ("x_32gf", "tv"): 107811560, ("y_400mf", "tv"): 4344144,
    ("y_800mf", "tv"): 6432512, ("y_1_6gf", "tv"): 11202430, ("y_3_2gf", "tv"): 19436338, ("y_8gf", "tv"): 39381472,
    ("y_16gf", "tv"): 83590140, ("y_32gf", "tv"): 145046770, ("y_128gf", "tv"): 644812894,
}  # fmt: skip


def timm_name(name, flavour):
    size = name[2:]
    digits = {"mf": lambda v: f"{round(float(v) / 100):03d}", "gf": lambda v: f"{round(float(v) * 10):03d}"}
    if size[-2:] not in digits:
        return None
    code = digits[size[-2:]](size[:-2].replace("_", "."))
    full = f"regnet{name[0]}_{code}" + ("_tv" if flavour == "tv" else "")
    return full if full in timm.list_models("regnet*") else None


def torchvision_build(name):
    """By torchvision's own function where it has one, else by its class."""
    function = getattr(torchvision.models, "regnet_" + name, None)
    if function:
        return function(weights=None), "torchvision"
    depth, w_0, w_a, w_m, group = MODELS[name]
    blocks = BlockParams.from_init_params(depth, w_0, w_a, w_m, group, se_ratio=0.25 if name[0] == "y" else None)
    return RegNet(blocks), "torchvision.RegNet"


def describe_timm(network):
    stages = [network.get_submodule(f"s{i}") for i in range(1, 5)]
    firsts = [next(stage.children()) for stage in stages]
    return stages, [b.conv3.conv.out_channels for b in firsts], [b.conv2.conv for b in firsts], network.head.fc


def describe_torchvision(network):
    stages = list(network.trunk_output.children())
    firsts = [next(stage.children()) for stage in stages]
    return stages, [b.f.c[0].out_channels for b in firsts], [b.f.b[0] for b in firsts], network.fc


def row(network, describe):
    stages, widths, grouped, fc = describe(network)
    count = sum(p.numel() for p in network.parameters())
    text = [" ".join(map(str, v)) for v in ([len(list(s.children())) for s in stages], widths,
                                            [c.in_channels // c.groups for c in grouped])]  # fmt: skip
    return [*text, count - sum(p.numel() for p in fc.parameters()), count]


def main():
    # The widths are computed with tensors, which must have values.
    generate = BlockParams.from_init_params

    def generate_on_cpu(*args, **kwargs):
        with torch.device("cpu"):
            return generate(*args, **kwargs)

    BlockParams.from_init_params = generate_on_cpu
    rows = []
    with torch.device("meta"):
        for name in MODELS:
            network, source = torchvision_build(name)
            tv = row(network, describe_torchvision)
            assert tv[-1] == PUBLISHED.get((name, "tv"), tv[-1]), (name, tv)
            by_timm = timm_name(name, "pycls")
            pycls = row(timm.create_model(by_timm), describe_timm) if by_timm else tv
            sources = [by_timm and "timm " + by_timm, source]
            if by_timm_tv := timm_name(name, "tv"):
                assert row(timm.create_model(by_timm_tv), describe_timm) == tv, name
                sources[1] += " = timm " + by_timm_tv
            if pycls == tv:
                rows.append([name, "both", *MODELS[name], *tv, " = ".join(filter(None, sources))])
            else:
                rows.append([name, "pycls", *MODELS[name], *pycls, sources[0]])
                rows.append([name, "tv", *MODELS[name], *tv, sources[1]])
    with open(HERE / "regnet_table.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow("name flavour depth w_0 w_a w_m group_width depths widths group_widths trunk_parameters "
                        "parameters_1000 source".split())  # fmt: skip
        writer.writerows(rows)
    print(f"regnet_table.csv: {len(rows)} rows")


if __name__ == "__main__":
    main()
