"""Published robust accuracies of small MNIST networks, derived again by the attacks here.

python benchmarks/mnist_attacks.py MNIST CHECKPOINTS [PICTURES]   writes benchmarks/mnist_attacks.md

MNIST: a folder with the four idx files (t10k-images-idx3-ubyte.gz, ...).  CHECKPOINTS: fgsm.pth and pgd_madry.pth of
locuslab/fast_adversarial (Wong, Rice & Kolter 2020, arXiv:2001.03994), mnist_lenet5_clntrained.pt and
mnist_lenet5_advtrained.pt of BorealisAI/advertorch; those that are not there are left out.  PICTURES: so many of
the test set, evenly spread over it (its first thousand are harder than the rest), 1000 where none is said; AutoAttack
takes a quarter of them, FGSM all.
"""

from __future__ import annotations

import gzip
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.statistics import wilson

OUT = Path(__file__).with_suffix(".md")
ALL = float("inf")


@dataclass(frozen=True)
class Run:
    """One figure: what is published, and how it is derived here.  kind: accuracy, or the median distance."""

    file: str
    name: str
    published: str
    attack: str
    eps: float
    kind: str = "accuracy"
    share: float = 1.0  # of the pictures asked for


RUNS = (
    Run("fgsm.pth", "clean", "98.50 %", "", 0),
    Run("fgsm.pth", "FGSM, eps 0.3", "", "fgsm", 0.3, share=ALL),
    Run("fgsm.pth", "PGD-50, 10 restarts", "88.77 %", "pgd(steps=50, step=0.01, restarts=10)", 0.3),
    Run("fgsm.pth", "AutoAttack", "82.93 %", "auto-attack", 0.3, share=0.25),
    Run("pgd_madry.pth", "clean", "", "", 0),
    Run("pgd_madry.pth", "PGD-50, 10 restarts", "", "pgd(steps=50, step=0.01, restarts=10)", 0.3),
    Run("pgd_madry.pth", "AutoAttack", "", "auto-attack", 0.3, share=0.25),
    Run("mnist_lenet5_clntrained.pt", "clean", "98.89 %", "", 0),
    Run("mnist_lenet5_clntrained.pt", "FGSM, eps 0.1", "79.96 %", "fgsm", 0.1, share=ALL),
    Run("mnist_lenet5_clntrained.pt", "PGD-40, eps 0.3", "0 %", "pgd(steps=40, step=0.01)", 0.3),
    Run("mnist_lenet5_clntrained.pt", "FAB, L2", "median 1.423", "fab(norm=l2)", float("inf"), "distance", 0.25),
    Run("mnist_lenet5_clntrained.pt", "FAB, Linf", "median 0.112", "fab(norm=linf)", float("inf"), "distance", 0.25),
    Run("mnist_lenet5_clntrained.pt", "DeepFool, L2", "", "deepfool(norm=l2)", float("inf"), "distance", 0.25),
    Run(
        "mnist_lenet5_clntrained.pt", "Carlini-Wagner, L2", "DDN 1.388", "carlini-wagner", float("inf"), "distance", 0.1
    ),
    Run("mnist_lenet5_advtrained.pt", "clean", "98.64 %", "", 0),
    Run("mnist_lenet5_advtrained.pt", "PGD-40, eps 0.3", "about 92 %", "pgd(steps=40, step=0.01)", 0.3),
    Run("mnist_lenet5_advtrained.pt", "FAB, Linf", "median 0.3509", "fab(norm=linf)", float("inf"), "distance", 0.25),
    Run("mnist_lenet5_advtrained.pt", "AutoAttack", "", "auto-attack", 0.3, share=0.25),
)


def small() -> nn.Module:
    """The network of fast_adversarial."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


def lenet() -> nn.Module:
    """The network of advertorch, whose layers are named in another order than they are numbered here."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(7 * 7 * 64, 200), nn.ReLU(), nn.Linear(200, 10),
    )  # fmt: skip


def model(path: Path) -> cs.Classifier:
    net = lenet() if "lenet" in path.name else small()
    given = torch.load(path, map_location="cpu", weights_only=True)
    values = dict(zip(net.state_dict(), given.values(), strict=True))  # the order of both is that of the layers
    net.load_state_dict(values)
    return cs.wrap(net.eval(), cs.Preprocess(28, (0.0,), (1.0,)), labels=list("0123456789"))


def idx(path: Path) -> Tensor:
    data = gzip.decompress(path.read_bytes())
    dims = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape).copy())


def main() -> None:
    mnist, checkpoints = Path(sys.argv[1]), Path(sys.argv[2])
    most = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    x = idx(mnist / "t10k-images-idx3-ubyte.gz")[:, None].float() / 255
    y = idx(mnist / "t10k-labels-idx1-ubyte.gz").long()
    lines = []
    for run in RUNS:
        path = checkpoints / run.file
        if not path.exists():
            print(f"left out {run.file}: it is not in {checkpoints}", flush=True)
            continue
        network, began = model(path), time.monotonic()
        n = max(1, int(min(most * run.share, len(x)))) if run.attack else len(x)
        some = torch.arange(n) * len(x) // n
        if not run.attack:
            with torch.no_grad(), network.undisturbed():
                right = int((torch.cat([network(part) for part in x.split(500)]).argmax(1) == y).sum())
            told = f"{100 * right / n:.2f} %"
        else:
            found = cs.attack(network, x[some], y[some], run.attack, eps=run.eps, batch=256)
            if run.kind == "accuracy":
                left = int((~found.already & ~found.fooled).sum())
                low, high = wilson(left, n)
                told = f"{100 * left / n:.2f} % ({100 * low:.1f} to {100 * high:.1f})"
            else:
                far = found.distance[found.fooled]
                told = f"median {float(far.median()):.4g}, {len(far)} of {int((~found.already).sum())} fooled"
        seconds = time.monotonic() - began
        cells = (run.file, run.name, f"`{run.attack}`" if run.attack else "", run.published, told, n, f"{seconds:.0f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
        print(lines[-1], flush=True)
    head = (
        "# Published figures of small MNIST networks, derived again\n\n"
        f"Made by `python benchmarks/mnist_attacks.py MNIST CHECKPOINTS {most}`, on one thread of a shared processor. "
        "Accuracy under attack with its 95 % interval, or the median distance. Published figures are of all 10,000 "
        "pictures; ours of so many, evenly spread over these.\n\n"
        "| checkpoint | figure | attack here | published | found here | pictures | seconds |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    OUT.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
