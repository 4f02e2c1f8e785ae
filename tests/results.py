"""What every explainer, attack and metric gives on three networks, so that a rebuilt house can be held against it.

    python tests/results.py write            tests/files/results.json, some minutes
    python tests/results.py compare          the same again, and every difference beyond rounding

Of each tensor four numbers are kept: its norm, its largest value, and two sums with fixed random signs.  All of it is
computed with one thread.  What is refused is kept as "refused".  Only public names are used.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

import clearsight as cs
import networks

FILE = Path(__file__).parent / "files" / "results.json"
NETWORKS = ("resnet18", "efficientnet_b0", "swin_t")
SHORT = {
    "steps": 4,
    "queries": 60,
    "evaluations": 10,
    "searches": 2,
    "tries": 3,
    "restarts": 1,
    "samples": 6,
    "stages": 2,
}
CLOSE = 1e-5  # of the largest number: what summing in another order may change

Numbers = list[float] | str


def short(kind: str, name: str) -> str:
    """A method with few steps."""
    options = cs.catalogue(kind)[name].options
    return f"{name}({', '.join(f'{k}={v}' for k, v in SHORT.items() if k in options)})"


def numbers(t: Tensor) -> list[float]:
    flat = t.detach().double().flatten()
    signs = torch.randint(0, 2, (2, len(flat)), generator=torch.Generator().manual_seed(7)).double() * 2 - 1
    return [float(flat.norm()), float(flat.max()), *map(float, signs @ flat)]


def given(run: Callable[[], Tensor]) -> Numbers:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return numbers(run())
        except cs.Refused:
            return "refused"


def results() -> dict[str, Numbers]:
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = temporary
        folder = networks.references(Path(temporary) / "references")
        return {key: value for name in NETWORKS for key, value in of_network(name, folder).items()}


def of_network(name: str, folder: Path) -> dict[str, Numbers]:
    model, other = networks.network(name), networks.network(name, seed=1)
    x, target = networks.pictures(model)[:2], cs.ClassScore([0, 1])
    with model.undisturbed(), torch.no_grad():
        goal = cs.Misclassify(model(x).argmax(1))
    maps = cs.explain(model, x, "gradient-x-input", target).maps
    regions = torch.zeros(maps.shape, dtype=torch.bool)
    regions[:, 10:40, 20:50] = True
    starts = torch.rand(4, *x.shape[1:], generator=torch.Generator().manual_seed(3))

    def explained(m: str) -> Tensor:
        return cs.explain(model, x, networks.spelled(m, folder), target).maps

    def attacked(m: str) -> Tensor:
        wants = cs.catalogue("attacks")[m].injected
        extra = {"other": other, "lessons": (x, goal), "starts": starts}
        extra = {k: v for k, v in extra.items() if k in wants}
        return cs.attack(model, x, goal, short("attacks", m), eps=budget(m), **extra).x

    def measured(m: str) -> Tensor:
        wants = cs.catalogue("metrics")[m].injected
        extra = {"other": other} if "other" in wants else {}
        words = short("metrics", m)
        return cs.measure(model, x, maps, words, target, regions=regions, method="gradient-x-input", **extra)

    kinds = {"explainers": explained, "attacks": attacked, "metrics": measured}
    return {f"{name} {kind} {m}": given(partial(run, m)) for kind, run in kinds.items() for m in _of_pictures(kind)}


def budget(attack: str) -> float | None:
    return math.inf if attack in ("boundary", "hop-skip-jump", "carlini-wagner", "deepfool", "fab") else None


def differences(was: dict[str, Numbers], now: dict[str, Numbers]) -> list[str]:
    """One line for each result that is another, beyond rounding."""
    lines = [f"{key}: gone" for key in was.keys() - now.keys()] + [f"{key}: new" for key in now.keys() - was.keys()]
    for key in was.keys() & now.keys():
        a, b = was[key], now[key]
        if isinstance(a, str) or isinstance(b, str):
            same = a == b
        else:
            most = max(map(abs, a))
            same = all(
                abs(p - q) <= CLOSE * most or (math.isnan(p) and math.isnan(q)) for p, q in zip(a, b, strict=True)
            )
        if not same:
            lines.append(f"{key}: {a} -> {b}")
    return sorted(lines)


def main() -> int:
    now = results()
    if sys.argv[1:] == ["write"]:
        FILE.write_text(json.dumps(now, indent=0) + "\n")
        return 0
    lines = differences(json.loads(FILE.read_text()), now)
    print(*lines, f"{len(lines)} of {len(now)} results are others", sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())


def _of_pictures(kind: str) -> list[str]:
    return [name for name, found in cs.catalogue(kind).items() if "texts-only" not in found.claims]
