"""swav.safetensors: full SwAV iterations, and their parts alone.

The iteration follows the order of the original implementation: normalise the prototypes in place; forward, crops of one
resolution together; head linear - BN - ReLU - linear over all crops, L2 normalise, scores; Sinkhorn for the crops 0 and
1, with the queue's rows prepended and its newest embeddings pushed to the front; loss; backward; prototype gradients
dropped while frozen; LARC around SGD. Two iterations on the same images, in three variants:

    plain    no queue
    queue    with a queue filled by formula: queue_i = rows of signed("queue.<i>", (length, dim)), L2-normalised
    frozen   plain, with the prototypes frozen in the first iteration

Trunk: torchvision's RegNet of (depth 6, w_0 16, w_a 8, w_m 2, group width 8, SE 0.25), three stages. Parameters come from
formula.py under these names: torchvision's for the trunk, projection_head.{0,1,3}.*, prototypes.weight. Images:
image("input.<resolution>.<salt>"), the crops of a resolution stacked along N, crop-major. Settings are in the metadata.
Computed in double from the float32 inputs.

Tensors of a variant, for each iteration k in {1, 2}: <variant>.<k>.loss, .scores (all crops, crop-major), .assignments
(crops 0 and 1: 2 x batch rows), .embeddings, .prototypes (after normalising), .prototypes_grad, .queue (after the push);
ledgers (formula.ledger) .gradients, .parameters (after the step), .updates (parameters after minus parameters before,
the prototypes' taken from their normalised state), .buffers.
Parts: sinkhorn.*, larc.*, adamw_step.*, schedule.* — see the functions below.
"""

import math
from pathlib import Path

import numpy as np
import torch
from formula import fill, image, kink_margin, ledger, parameter, relative_error, save, signed
from torch import nn
from torch.nn import functional as F
from torchvision.models.regnet import BlockParams, RegNet

HERE = Path(__file__).parent
LARGE, SMALL, BATCH = (2, 40), (3, 24), 8  # crops, pixels a side
DIM, HIDDEN, PROTOTYPES, QUEUE = 16, 32, 24, 16
EPSILON, TEMPERATURE, SINKHORN_ITERATIONS = 0.05, 0.1, 3
LR, MOMENTUM, DECAY, TRUST, LARC_EPS = 0.6, 0.9, 1e-6, 0.001, 1e-8
ADAMW = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}
START_SALT, MARGIN = 2, 3.5e-6


class SwAV(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = RegNet(BlockParams.from_init_params(6, 16, 8.0, 2.0, 8, se_ratio=0.25))
        width = self.trunk.fc.in_features
        self.trunk.fc = nn.Identity()
        self.projection_head = nn.Sequential(nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))
        self.prototypes = nn.Linear(DIM, PROTOTYPES, bias=False)
        fill(self.trunk)  # torchvision's names, without a prefix
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                if not name.startswith("trunk.") and tensor.is_floating_point():
                    tensor.copy_(parameter(name, tuple(tensor.shape)))

    def forward(self, large, small):
        features = torch.cat([self.trunk(large), self.trunk(small)])
        z = F.normalize(self.projection_head(features), dim=1)
        return z, self.prototypes(z)

    def named(self, tensors):
        """For a ledger. Left out: the bias in front of batch norm, whose gradient is zero but for rounding."""
        return [(name.removeprefix("trunk."), t) for name, t in tensors if name != "projection_head.0.bias"]


def sinkhorn(scores, epsilon, iterations):
    """(N, K) scores -> (N, K) assignments whose rows sum to 1: prototypes first, then samples."""
    q = torch.exp(scores.t() / epsilon)
    k, n = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(1, keepdim=True)
        q /= k
        q /= q.sum(0, keepdim=True)
        q /= n
    return (q * n).t()


class LarcSGD:
    """SGD with momentum under layer-wise adaptive rates (clip off): g <- (g + wd p) trust |p| / (|g| + wd |p| + eps)
    where neither norm is zero, else g unchanged and no decay; m <- momentum m + g; p <- p - lr m. No gradient: skipped."""

    def __init__(self, parameters, lr=LR, momentum=MOMENTUM, decay=DECAY, trust=TRUST):
        self.parameters, self.lr, self.momentum, self.decay, self.trust = list(parameters), lr, momentum, decay, trust
        self.buffers = {}

    @torch.no_grad()
    def step(self):
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            g, p_norm, g_norm = p.grad.clone(), p.norm(), p.grad.norm()
            if p_norm != 0 and g_norm != 0:
                g = (g + self.decay * p) * (self.trust * p_norm / (g_norm + self.decay * p_norm + LARC_EPS))
            m = self.buffers.setdefault(i, torch.zeros_like(p))
            m.mul_(self.momentum).add_(g)
            p.sub_(self.lr * m)


def images_of(salt):
    return [image(f"input.{r}.{salt}", crops * BATCH, size, size) for r, (crops, size) in (("large", LARGE), ("small", SMALL))]


def iterations(variant, salt, dtype):
    """Two iterations; returns ({name: tensor}, {name: named tensors for a ledger}, smallest margin of a ReLU input)."""
    model = SwAV().to(dtype).train()
    crops = LARGE[0] + SMALL[0]
    images = [x.to(dtype) for x in images_of(salt)]
    optimiser = LarcSGD(model.parameters())
    queue = [F.normalize(signed(f"queue.{i}", (QUEUE, DIM)).to(dtype), dim=1) for i in range(2)] if variant == "queue" else None
    tensors, ledgers, margin = {}, {}, float("inf")
    for k in (1, 2):
        with torch.no_grad():
            model.prototypes.weight.copy_(F.normalize(model.prototypes.weight, dim=1))
        prototypes = model.prototypes.weight.detach().clone()
        with kink_margin(model) as watched:
            z, scores = model(*images)
        margin = min(margin, watched.margin)
        loss, assignments = 0.0, []
        for i in (0, 1):
            with torch.no_grad():
                rows = slice(i * BATCH, (i + 1) * BATCH)
                out = scores[rows].detach()
                if queue is not None:
                    out = torch.cat([queue[i] @ prototypes.t(), out])
                    queue[i] = torch.cat([z[rows].detach(), queue[i]])[:QUEUE]
                q = sinkhorn(out, EPSILON, SINKHORN_ITERATIONS)[-BATCH:]
            assignments.append(q)
            for v in set(range(crops)) - {i}:
                p = F.log_softmax(scores[v * BATCH : (v + 1) * BATCH] / TEMPERATURE, dim=1)
                loss = loss - (q * p).sum(1).mean() / (crops - 1) / 2
        model.zero_grad()
        loss.backward()
        gradients = model.named((n, p.grad.clone()) for n, p in model.named_parameters())
        if variant == "frozen" and k == 1:
            model.prototypes.weight.grad = None
        before = model.named((n, p.detach().clone()) for n, p in model.named_parameters())
        optimiser.step()
        after = model.named((n, p.detach().clone()) for n, p in model.named_parameters())
        here = {"loss": loss.detach().reshape(1), "scores": scores, "assignments": torch.cat(assignments), "embeddings": z,
                "prototypes": prototypes, "prototypes_grad": dict(gradients)["prototypes.weight"]}
        if queue is not None:
            here["queue"] = torch.stack(queue).clone()
        tensors |= {f"{variant}.{k}.{n}": t.detach() for n, t in here.items()}
        ledgers |= {
            f"{variant}.{k}.gradients": gradients,
            f"{variant}.{k}.parameters": after,
            f"{variant}.{k}.updates": [(n, a - b) for (n, a), (_, b) in zip(after, before)],
            f"{variant}.{k}.buffers": model.named((n, b.clone()) for n, b in model.named_buffers() if b.is_floating_point()),
        }
    return tensors, ledgers, margin


def find_salt(variants, salt):
    while any(iterations(v, salt, torch.float64)[2] < MARGIN for v in variants):
        salt += 1
    return salt


def add_iterations(tensors, metadata):
    variants = ("plain", "queue", "frozen")
    salt = find_salt(variants, START_SALT)
    metadata |= {"salt": salt, "large": f"crops={LARGE[0]} size={LARGE[1]}", "small": f"crops={SMALL[0]} size={SMALL[1]}",
                 "settings": f"batch={BATCH} hidden={HIDDEN} dim={DIM} prototypes={PROTOTYPES} queue={QUEUE} epsilon={EPSILON} "
                 f"temperature={TEMPERATURE} sinkhorn_iterations={SINKHORN_ITERATIONS} lr={LR} momentum={MOMENTUM} "
                 f"decay={DECAY} trust={TRUST} larc_eps={LARC_EPS}", "adamw_step": "lr={lr} betas={betas} eps={eps} decay={weight_decay}".format(**ADAMW)}  # fmt: skip
    for variant in variants:
        values, ledgers, margin = iterations(variant, salt, torch.float64)
        single = iterations(variant, salt, torch.float32)
        worst = {n: relative_error(single[0][n], t) for n, t in values.items()}
        worst |= {n: max(relative_error(a, b) for (_, a), (_, b) in zip(single[1][n], named)) for n, named in ledgers.items()}
        print(variant, f"salt {salt} margin {margin:.1e}", {n.removeprefix(variant + "."): f"{e:.1e}" for n, e in worst.items()})
        metadata[variant + ".float32_error"] = f"{max(worst[f'{variant}.{k}.gradients'] for k in (1, 2)):.2e}"
        tensors |= values
        for name, named in ledgers.items():
            more, names = ledger(name, named)
            tensors |= more
            metadata["names." + name.split(".")[-1]] = names[name + ".names"]  # the same in every variant and iteration


def add_sinkhorn(tensors, metadata):
    """sinkhorn.<N>x<K>.eps<e>.iter<t>: assignments of the scores signed("sinkhorn.scores.<N>x<K>", (N, K))."""
    for n, k in ((32, 16), (12, 40)):
        scores = signed(f"sinkhorn.scores.{n}x{k}", (n, k)).double()
        for epsilon in (0.05, 0.03):
            for t in (3, 10):
                tensors[f"sinkhorn.{n}x{k}.eps{epsilon}.iter{t}"] = sinkhorn(scores, epsilon, t)


LARC_CASES = {"ordinary": (6, 5), "vector": (7,), "zero_parameter": (5,), "zero_gradient": (5,), "no_gradient": (5,)}


def add_larc(tensors, metadata):
    """larc.<case>.<k>: the tensor `case` after step k in 1..3 of LARC-SGD (lr 0.6, momentum 0.9, decay 0.1: large, to be
    seen). Start: parameter("larc.<case>.weight"), or zeros for zero_parameter. Gradient of step k: signed("larc.<case>.grad.k"),
    zeros for zero_gradient in step 2 only (so that momentum still moves it), none for no_gradient in step 2 only."""
    leaves = {}
    for name, shape in LARC_CASES.items():
        start = torch.zeros(shape) if name == "zero_parameter" else parameter(f"larc.{name}.weight", shape)
        leaves[name] = start.double()
    optimiser = LarcSGD(leaves.values(), decay=0.1)
    for k in (1, 2, 3):
        for name, leaf in leaves.items():
            leaf.grad = signed(f"larc.{name}.grad.{k}", leaf.shape).double()
            if k == 2 and name == "zero_gradient":
                leaf.grad.zero_()
            if k == 2 and name == "no_gradient":
                leaf.grad = None
        optimiser.step()
        tensors |= {f"larc.{name}.{k}": leaf.clone() for name, leaf in leaves.items()}


def add_adamw(tensors, metadata):
    """adamw_step.<case>.<k>: after step k in 1..3 of torch.optim.AdamW (settings in the metadata), for the cases
    matrix (6, 5) and vector (7), from parameter("adamw.<case>.weight") and gradients signed("adamw.<case>.grad.k")."""
    leaves = {name: parameter(f"adamw.{name}.weight", shape).double() for name, shape in (("matrix", (6, 5)), ("vector", (7,)))}
    optimiser = torch.optim.AdamW(leaves.values(), **ADAMW)
    for k in (1, 2, 3):
        for name, leaf in leaves.items():
            leaf.grad = signed(f"adamw.{name}.grad.{k}", leaf.shape).double()
        optimiser.step()
        tensors |= {f"adamw_step.{name}.{k}": leaf.clone() for name, leaf in leaves.items()}


def add_schedules(tensors, metadata):
    """schedule.<case>: the learning rate of each iteration: linear warm-up, endpoints inclusive, then cosine."""
    cases = {"warmup": (0.3, 4.8, 0.0048, 3 * 7, 10 * 7), "no_warmup": (0.0, 0.6, 0.0006, 0, 10 * 5)}
    for name, (start, base, final, warmup, total) in cases.items():
        remaining = total - warmup
        cosine = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * t / remaining)) for t in range(remaining)]
        tensors["schedule." + name] = np.concatenate([np.linspace(start, base, warmup), cosine])
        metadata["schedule." + name] = f"start={start} base={base} final={final} warmup={warmup} total={total}"


def main():
    tensors, metadata = {}, {}
    for part in (add_iterations, add_sinkhorn, add_larc, add_adamw, add_schedules):
        part(tensors, metadata)
    save(HERE / "swav.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
