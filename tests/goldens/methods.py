"""methods.safetensors: full iterations of SimCLR and DINO, in the order of their authors' code.

SimCLR: embeddings z of two crops of each image (trunk, linear - BN - ReLU - linear, L2 normalise); NT-Xent; LARC around SGD
as in swav.py. DINO: teacher and student start alike; head linear - GELU - linear - GELU - linear, L2 normalise, linear
layer of rows of length 1; the teacher sees the large crops, the student all, batch norm by resolution; loss; the centre
moves in the loss, behind the targets; SGD; the teacher moves behind the update, in weights and not in buffers. Its
batch norm normalises by the batch. In the first iteration the last layer's gradient is dropped ("freeze").

Each on two trunks, of three stages and of two, two iterations on the same images:

    regnet   torchvision's RegNet of (depth 6, w_0 16, w_a 8, w_m 2, group width 8, SE 0.25)
    resnet   torchvision's ResNet of bottlenecks, 1 and 1, the first of width 8

Parameters come from formula.py under these names: torchvision's for the trunk, head.* behind it. Images:
image("input.<resolution>.<salt>"), the crops of a resolution stacked along N, crop-major. Settings are in the metadata.
Computed in double from the float32 inputs.

Tensors of a case, <method>.<trunk>.<k> for each iteration k in {1, 2}: .loss, .embeddings (of the student, crop-major);
DINO's .scores (of the student), .targets (of the large crops), .center (after the iteration); ledgers (formula.ledger)
.gradients, .parameters and .updates (after the step), .buffers, and DINO's .teacher (its parameters after the iteration)
and .teacher_buffers.
"""

import math
from pathlib import Path

import torch
from formula import fill, image, kink_margin, ledger, parameter, relative_error, save
from swav import LarcSGD
from torch import nn
from torch.nn import functional as F
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import Bottleneck, ResNet

HERE = Path(__file__).parent
LARGE, SMALL, BATCH = (2, 40), (3, 24), 8  # crops, pixels a side
HIDDEN, MARGIN = 32, 3.5e-6
SIMCLR = {"dim": 16, "temperature": 0.2, "lr": 0.6, "momentum": 0.9, "decay": 1e-6, "trust": 0.001, "larc_eps": 1e-8}
DINO = {"dim": 16, "outputs": 24, "temperature": 0.1, "teacher_temperature_start": 0.04, "teacher_temperature": 0.07,
        "teacher_momentum": 0.9, "center_momentum": 0.9, "iterations": 5, "lr": 0.3, "momentum": 0.9, "decay": 1e-4}  # fmt: skip


def regnet():
    trunk = RegNet(BlockParams.from_init_params(6, 16, 8.0, 2.0, 8, se_ratio=0.25))
    width = trunk.fc.in_features
    trunk.fc = nn.Identity()
    return trunk, width


def resnet():
    trunk = ResNet(Bottleneck, [1, 1, 1, 1])
    trunk.inplanes = 8
    trunk.conv1, trunk.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
    trunk.layer1, trunk.layer2 = trunk._make_layer(Bottleneck, 8, 1), trunk._make_layer(Bottleneck, 16, 1, stride=2)
    trunk.layer3 = trunk.layer4 = trunk.fc = nn.Identity()
    return trunk, 64


class ContrastiveHead(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SIMCLR["dim"]))


class DinoHead(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DINO["dim"]))
        self.last_layer = nn.utils.weight_norm(nn.Linear(DINO["dim"], DINO["outputs"], bias=False))
        self.last_layer.weight_g.data.fill_(1)
        self.last_layer.weight_g.requires_grad = False

    def forward(self, x):
        return F.normalize(self.mlp(x), dim=-1)


class Model(nn.Module):
    def __init__(self, trunk, head):
        super().__init__()
        self.trunk, width = trunk()
        self.head = head(width)
        fill(self.trunk)  # torchvision's names, without a prefix
        with torch.no_grad():
            for name, tensor in self.named():
                if name.startswith("head.") and tensor.is_floating_point():
                    tensor.copy_(parameter(name, tuple(tensor.shape)))

    def forward(self, *resolutions):
        return self.head(torch.cat([self.trunk(x) for x in resolutions]))

    def named(self, what="state_dict"):
        tensors = self.state_dict().items() if what == "state_dict" else getattr(self, what)()
        return [(n.removeprefix("trunk."), t) for n, t in tensors if t.is_floating_point() and "weight_g" not in n]


def copies(named):
    return [(n, t.detach().clone()) for n, t in named]


SHIFTS = ("head.0.bias", "bn1.bias", "layer2.0.bn3.bias", "layer2.0.downsample.1.bias")


def without_shifts(method, named):
    """Left out: what the batch norm behind it takes off again, whose gradient is zero but for rounding: the bias in front of
    SimCLR's, and those of the resnet in front of a ReLU that lets through all of a channel or nothing of it."""
    shifts = SHIFTS if method == "simclr" else ("bn1.bias",)
    return [(n, t) for n, t in named if n not in shifts]


class Simclr:
    resolutions = (LARGE,)

    def __init__(self, trunk, dtype):
        self.model = Model(trunk, ContrastiveHead).to(dtype).train()
        self.optimiser = LarcSGD(self.model.parameters(), SIMCLR["lr"], SIMCLR["momentum"], SIMCLR["decay"], SIMCLR["trust"])

    def loss(self, images, k):
        z = F.normalize(self.model(*images), dim=1)
        similarities = (z @ z.t() / SIMCLR["temperature"]).masked_fill(torch.eye(2 * BATCH, dtype=torch.bool), -math.inf)
        return F.cross_entropy(similarities, torch.arange(2 * BATCH).roll(BATCH)), {"embeddings": z}, {}

    def updated(self, k):
        return {}, {}


class Dino:
    resolutions = (LARGE, SMALL)

    def __init__(self, trunk, dtype):
        self.model = Model(trunk, DinoHead).to(dtype).train()
        self.teacher = Model(trunk, DinoHead).to(dtype).train()
        self.teacher.load_state_dict(self.model.state_dict())
        self.center = torch.zeros(1, DINO["outputs"], dtype=dtype)
        self.optimiser = torch.optim.SGD([p for p in self.model.parameters() if p.requires_grad], DINO["lr"], DINO["momentum"], weight_decay=DINO["decay"])

    def loss(self, images, k):
        z = self.model(*images)
        scores = self.model.head.last_layer(z)
        with torch.no_grad():
            outputs = self.teacher.head.last_layer(self.teacher(images[0]))
            tau = (DINO["teacher_temperature_start"], DINO["teacher_temperature"])[k - 1]  # an epoch an iteration, two of warm-up
            targets = F.softmax((outputs - self.center) / tau, dim=-1)
        total, terms = 0, 0
        crops = LARGE[0] + SMALL[0]
        for i, q in enumerate(targets.chunk(2)):
            for v, s in enumerate((scores / DINO["temperature"]).chunk(crops)):
                if v != i:
                    total, terms = total - (q * F.log_softmax(s, dim=-1)).sum(-1).mean(), terms + 1
        self.center = DINO["center_momentum"] * self.center + (1 - DINO["center_momentum"]) * outputs.mean(0, keepdim=True)
        return total / terms, {"embeddings": z, "scores": scores, "targets": targets}, {}

    @torch.no_grad()
    def updated(self, k):
        m = 1 - (1 - DINO["teacher_momentum"]) * (1 + math.cos(math.pi * (k - 1) / DINO["iterations"])) / 2
        for s, t in zip(self.model.parameters(), self.teacher.parameters()):
            t.mul_(m).add_((1 - m) * s.detach())
        buffers = [(n, b) for n, b in self.teacher.named("named_buffers")]
        return {"center": self.center}, {"teacher": copies(self.teacher.named("named_parameters")), "teacher_buffers": copies(buffers)}


METHODS, TRUNKS = {"simclr": Simclr, "dino": Dino}, {"regnet": regnet, "resnet": resnet}


def iterations(method, trunk, salt, dtype):
    """Two iterations; returns ({name: tensor}, {name: named tensors for a ledger}, smallest margin of a ReLU input)."""
    run = METHODS[method](TRUNKS[trunk], dtype)
    images = [image(f"input.{'large' if (c, s) == LARGE else 'small'}.{salt}", c * BATCH, s, s).to(dtype) for c, s in run.resolutions]
    tensors, ledgers, margin = {}, {}, float("inf")
    for k in (1, 2):
        with kink_margin(run.model) as watched:
            loss, here, more = run.loss(images, k)
        margin = min(margin, watched.margin)
        run.model.zero_grad()
        loss.backward()
        parameters = run.model.named("named_parameters")
        gradients = [(n, p.grad.clone()) for n, p in parameters]
        if method == "dino" and k == 1:
            run.model.head.last_layer.weight_v.grad = None
            gradients = [(n, g) for n, g in gradients if "weight_v" not in n]
        before = copies(parameters)
        run.optimiser.step()
        after = copies(parameters)
        values, lists = run.updated(k)
        at = f"{method}.{trunk}.{k}."
        tensors |= {at + n: t.detach().clone() for n, t in ({"loss": loss.reshape(1)} | here | values).items()}
        lists |= {"gradients": gradients, "parameters": after, "buffers": copies(run.model.named("named_buffers")),
                  "updates": [(n, a - b) for (n, a), (_, b) in zip(after, before) if (a - b).any()]}  # fmt: skip
        ledgers |= {at + n: without_shifts(method, named) for n, named in lists.items()}
    return tensors, ledgers, margin


def main():
    tensors, metadata = {}, {}
    metadata |= {"large": f"crops={LARGE[0]} size={LARGE[1]}", "small": f"crops={SMALL[0]} size={SMALL[1]}"}
    for method, settings in (("simclr", SIMCLR), ("dino", DINO)):
        metadata[method] = f"batch={BATCH} hidden={HIDDEN} " + " ".join(f"{n}={v}" for n, v in settings.items())
        for trunk in TRUNKS:
            salt = 1
            while (found := iterations(method, trunk, salt, torch.float64))[2] < MARGIN:
                salt += 1
            values, ledgers, margin = found
            single = iterations(method, trunk, salt, torch.float32)
            worst = {n: relative_error(single[0][n], t) for n, t in values.items()}
            worst |= {n: max(relative_error(a, b) for (_, a), (_, b) in zip(single[1][n], named)) for n, named in ledgers.items()}
            print(method, trunk, f"salt {salt} margin {margin:.1e}", {n.split(".", 2)[2]: f"{e:.1e}" for n, e in worst.items()})
            metadata[f"{method}.{trunk}.salt"] = salt
            metadata[f"{method}.{trunk}.float32_error"] = f"{max(worst[f'{method}.{trunk}.{k}.gradients'] for k in (1, 2)):.2e}"
            tensors |= values
            for name, named in ledgers.items():
                more, names = ledger(name, named)
                tensors |= more
                metadata |= names
    save(HERE / "methods.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
