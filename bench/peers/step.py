#!/usr/bin/env python3
"""One SwAV training step in PyTorch on the CPU: the peer that bench/step is measured against.

    bench/peers/setup && build/peers-venv/bin/python bench/peers/step.py --model regnet_y_400mf --batch 32

Protocol, so that a driver can run the two in turn on the same cores:
  1. After building and warming up, one line on stdout: {"ready": true, "model": ..., "mode": ..., ...}.
  2. For every line on stdin, a number n: n steps are run, and n lines are printed, one as each step ends:
     {"ms": 342.1, "images_per_s": 93.5, "loss": 5.7}.
  3. At the end of stdin the program exits.
Anything else goes to stderr. Between requests the program sleeps in read().

Modes (fp32): channels_last, contiguous (eager), compile (torch.compile of trunk and head, channels_last). A fair
comparison takes the fastest. The program starts itself anew with an environment in which PyTorch is at its best: no
mmap and no trimming in malloc (tcmalloc instead where --tcmalloc names the library), transparent huge pages, threads
bound to cores.
"""

import argparse
import json
import os
import sys
import time

TUNED = "SACCADE_PEER_TUNED"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="regnet_y_400mf", help="a torchvision RegNet or ResNet")
    parser.add_argument("--mode", default="channels_last", choices=["channels_last", "contiguous", "compile"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--crops", default="2x96,4x48", help="COUNTxSIDE of each resolution, the assigning two first")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--prototypes", type=int, default=300)
    parser.add_argument("--optimizer", default="sgd", choices=["sgd", "larc"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=3, help="steps before the ready line")
    parser.add_argument("--tcmalloc", help="path of libtcmalloc.so, to be preloaded")
    return parser.parse_args()


def start_tuned(options):
    """Restarts the program with the settings that only the environment can give."""
    if os.environ.get(TUNED):
        return
    never = 1 << 62
    environment = dict(
        os.environ,
        GLIBC_TUNABLES=f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold={never}"
        f":glibc.malloc.top_pad={64 << 20}:glibc.malloc.arena_max=1",
        OMP_NUM_THREADS=str(options.threads),
        OMP_PROC_BIND="close",
        OMP_PLACES="cores",
        **{TUNED: "1"},
    )
    if options.tcmalloc:
        environment["LD_PRELOAD"] = options.tcmalloc
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def build_step(options):
    """A function that runs one training step and returns the loss."""
    import torch
    import torchvision
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    layout = torch.contiguous_format if options.mode == "contiguous" else torch.channels_last
    crops = [tuple(map(int, part.split("x"))) for part in options.crops.split(",")]
    views, batch = sum(count for count, _ in crops), options.batch

    trunk = getattr(torchvision.models, options.model)(weights=None)
    width = trunk.fc.in_features
    trunk.fc = nn.Identity()
    trunk.to(memory_format=layout).train()
    head = nn.Sequential(
        nn.Linear(width, options.hidden),
        nn.BatchNorm1d(options.hidden),
        nn.ReLU(inplace=True),
        nn.Linear(options.hidden, options.dim),
    ).train()
    prototypes = nn.Linear(options.dim, options.prototypes, bias=False)
    parameters = [p for module in (trunk, head, prototypes) for p in module.parameters()]
    images = [torch.randn(count * batch, 3, side, side).to(memory_format=layout) for count, side in crops]

    def embed(*images):
        return F.normalize(head(torch.cat([trunk(x) for x in images])), dim=1)

    if options.mode == "compile":
        embed = torch.compile(embed)

    @torch.no_grad()
    def sinkhorn(scores, epsilon=0.05, iterations=3):
        q = torch.exp(scores.t() / epsilon)
        k, n = q.shape
        q /= q.sum()
        for _ in range(iterations):
            q /= q.sum(1, keepdim=True) * k
            q /= q.sum(0, keepdim=True) * n
        return (q * n).t()

    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0 if options.optimizer == "larc" else 1e-6, fused=True)

    @torch.no_grad()
    def larc(trust=0.001, decay=1e-6, eps=1e-8):
        gradients = [p.grad for p in parameters]
        p_norms = torch.stack(torch._foreach_norm(parameters))
        g_norms = torch.stack(torch._foreach_norm(gradients))
        rates = trust * p_norms / (g_norms + decay * p_norms + eps)
        adapted = ((p_norms != 0) & (g_norms != 0)).tolist()
        rates = rates.tolist()
        chosen = [i for i, yes in enumerate(adapted) if yes]
        torch._foreach_add_([gradients[i] for i in chosen], [parameters[i] for i in chosen], alpha=decay)
        torch._foreach_mul_([gradients[i] for i in chosen], [rates[i] for i in chosen])

    def step():
        with torch.no_grad():
            prototypes.weight.copy_(F.normalize(prototypes.weight, dim=1))
        scores = prototypes(embed(*images))
        log_p = F.log_softmax(scores / 0.1, dim=1).view(views, batch, -1)
        loss = 0.0
        for i in (0, 1):
            q = sinkhorn(scores[i * batch : (i + 1) * batch].detach())
            others = [v for v in range(views) if v != i]
            loss = loss - (q * log_p[others]).sum() / (batch * (views - 1) * 2)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if options.optimizer == "larc":
            larc()
        optimiser.step()
        return loss.item()

    return step, torch.__version__


def main():
    options = arguments()
    start_tuned(options)
    step, version = build_step(options)
    for _ in range(options.warmup):
        step()
    facts = {"ready": True, "model": options.model, "mode": options.mode, "batch": options.batch, "crops": options.crops,
             "optimizer": options.optimizer, "threads": options.threads, "torch": version}  # fmt: skip
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            start = time.perf_counter()
            loss = step()
            seconds = time.perf_counter() - start
            print(json.dumps({"ms": round(1e3 * seconds, 3), "images_per_s": round(options.batch / seconds, 2),
                              "loss": round(loss, 5)}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
