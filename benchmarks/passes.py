"""What every explainer costs beyond its counted passes: ``python benchmarks/passes.py --out benchmarks/passes.md``.

For each explainer, at 1 and 4 pictures through the demo network and 64 small ones through a small network: the
processor time of a call, divided by that of its counted passes, forwards at F and backwards at B.  F is a plain forward
of the same pictures at once, without gradients; F + B one with the way back to the pixels.  All are timed in one
process on one thread, by turns.  Calls are later ones: what is done once for a network is done before.  Methods of few
passes have ``--turns`` turns, others one.

All of it takes about 6 minutes of one core.  ``--turns 9``, on an idle machine, takes 12.  ``--only WORDS`` measures
some of the methods, ``--at 4`` one number of pictures.  The file is written anew after each method.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cost import CALLS, references
from products import Products, needed, run
from torch import Tensor

from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.memory import reuse_memory
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import demo_pictures, pixels
from clearsight.errors import Refused
from clearsight.models.loading import load
from clearsight.networks.plain_cnn import plain_cnn
from clearsight.runner.run import explain

SIZES = (1, 4, 64)
MOST = 1.15  # times its passes
FEW = 10  # passes: calls of more have one turn
SPELLED = {  # hundreds of passes at their defaults
    "rise": "rise(masks=100)", "score-cam": "score-cam(channels=50)", "lime": "lime(samples=100)",
    "kernel-shap": "kernel-shap(samples=100)", "partition-shap": "partition-shap(samples=100)",
    "meaningful-perturbation": "meaningful-perturbation(iterations=50)",
    "extremal-perturbation": "extremal-perturbation(iterations=50)",
    "guided-integrated-gradients": "guided-integrated-gradients(steps=50)", "xrai": "xrai(steps=20)",
}  # fmt: skip
WHY = {  # known reasons; what has none here was not looked into
    "relevance-cam": "a call's own cost",
    "deep-lift": "the network's operations are compared with the recording's, and change over change takes more steps "
    "than a ReLU's slope; of small pictures a call's own cost",
    "ablation-cam": "a call's own cost beside one pass",
    "guided-integrated-gradients": "each step ranks all values of the picture by their gradient",
    "eigen-cam": "a call's own cost beside one pass, and of small pictures the eigenvectors",
}  # fmt: skip
ABOUT = (
    "What formulas need: multiply-adds of convolutions and matrix products per picture, forwards in those of a plain",
    "forward and backwards in those of a plain way back to the pixels. The needed ones are counted layer by layer from",
    "the rules of the papers, the pass that gives the values included: `benchmarks/products.py` says how many products",
    "each rule takes, and where it is written. The run ones are those of a call, what it checks included. Where",
    "less is run than needed, sums over parts of both signs come from the pass and one product: most of all in rap.",
)
CHECKS = ("random", "edge", "centre")  # control maps, which run no network


@dataclass(frozen=True)
class Cost:
    """Of one call: its passes per picture, the time over that of the passes, and seconds beyond them per call.

    run: where the passes are those that the method's formula needs, what the call ran.
    """

    call: str
    forwards: float
    backwards: float
    ratio: float
    beyond: float
    run: Products | None = None


def main() -> None:
    """Measure every explainer, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="methods, with commas between")
    parser.add_argument("--at", type=int, choices=SIZES, help="one number of pictures")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(1)
    reuse_memory()  # as the command line does; without it passes of 16 pictures take twice the time (glibc)
    rows: dict[str, list[Cost | str]] = {}
    names = words.only.split(",") if words.only else [n for n in catalogue("explainers") if n not in CHECKS]
    sizes = (words.at,) if words.at else SIZES
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            rows[name] = [_measured(name, size, Path(folder), words.turns) for size in sizes]
            if words.out:
                words.out.write_text(table(rows, sizes))
    print(table(rows, sizes))


def _measured(name: str, size: int, folder: Path, turns: int) -> Cost | str:
    call = SPELLED.get(name, CALLS.get(name, name))
    if size == 64 and name == "occlusion":
        call = "occlusion(window=8, stride=4)"
    if name == "libra-cam":
        call = f'libra-cam(references="{references(folder)}")'
    model, x = network(size)
    try:
        cost: Cost | str = measured(model, x, call, turns)
    except Refused as e:
        cost = str(e)
    print(name, size, cost, file=sys.stderr, flush=True)
    return cost


_networks: dict[int, tuple[Classifier, Tensor]] = {}


def network(size: int) -> tuple[Classifier, Tensor]:
    """The network for so many pictures, and the pictures: the demo's own, or noise for a plain CNN."""
    if size not in _networks:
        if size == 64:
            torch.manual_seed(0)
            net = plain_cnn(10, (3, 32, 32), widths="16,32,32", norm="batch").eval()
            model = Classifier(net, Preprocess(32, (0.5,) * 3, (0.25,) * 3), tuple(map(str, range(10))))
            _networks[size] = model, torch.rand(size, 3, 32, 32)
        else:
            model = load("demo")
            x = pixels(model, demo_pictures())
            _networks[size] = model, x.repeat(-(-size // len(x)), 1, 1, 1)[:size]
    return _networks[size]


def measured(model: Classifier, x: Tensor, call: str, turns: int) -> Cost:
    """One call on pictures x (B, C, *S) beside its passes, by turns."""
    first = explain(model, x[:1], call)  # what is done once
    turns = turns if first.forwards + first.backwards <= FEW else 1
    needs = needed(model, x, call)
    forward, both = (_plain(model, x, backward=b) for b in (False, True))
    forward(), both()
    ratios, beyond = [], []
    after = _seconds(forward), _seconds(both)
    for _ in range(turns):
        before = after
        gc.collect()
        forward()  # after which the cache holds what a pass leaves there, as it does before the plain ones
        began = time.process_time()
        found = explain(model, x, call)
        spent = time.process_time() - began
        after = _seconds(forward), _seconds(both)
        f, fb = ((a + b) / 2 for a, b in zip(before, after, strict=True))
        passes = needs or Products(found.forwards, found.backwards)
        counted = passes.forwards * f + passes.backwards * (fb - f)
        ratios.append(spent / counted)
        beyond.append(spent - counted)
    spelled = "libra-cam(references=FOLDER)" if call.startswith("libra-cam") else call
    ran = run(model, x, call) if needs else None
    return Cost(spelled, passes.forwards, passes.backwards, statistics.median(ratios), statistics.median(beyond), ran)


def _plain(model: Classifier, x: Tensor, *, backward: bool) -> Callable[[], object]:
    """A plain pass of all pictures, as a loop without this package would make it of the model undisturbed."""

    def forward() -> Tensor:
        with torch.no_grad():
            return model(x)

    def both() -> Tensor:
        z = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(z).amax(1).sum(), z)
        return g

    def run() -> object:
        with model.undisturbed():
            return both() if backward else forward()

    return run


def _seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def table(rows: dict[str, list[Cost | str]], sizes: Sequence[int]) -> str:
    """What was measured, as Markdown."""
    lines = [
        "## What every explainer costs beyond its passes",
        "",
        "Made by `python benchmarks/passes.py`: processor time of a call over that of its counted passes, forwards at",
        "F and backwards at B, where F is a plain forward of the same pictures and F + B one with its way back to the",
        "pixels, timed around every call in the same process, one thread. 1 and 4 pictures go through the demo",
        f"network (224 pixels), 64 through a plain CNN of three convolutions (32 pixels). At most {MOST} is asked.",
        "Below 1 a method goes back through part of the network only, or its versions of a picture go together.",
        "Rules that run a layer several times, and ablation-cam, go by what their formula needs, in the second table.",
        "",
        "| method | F, B per picture | " + " | ".join(f"{n} picture{'s' * (n > 1)}" for n in sizes) + " |",
        "|---" + "|---:" * (len(sizes) + 1) + "|",
    ]
    late = []
    for name, costs in rows.items():
        known = [c for c in costs if isinstance(c, Cost)]
        if not known:
            lines.append(f"| {name} | refused: {costs[0]} |" + " |" * len(sizes))
            continue
        cells = [f"{c.ratio:.2f}" if isinstance(c, Cost) else "refused" for c in costs]
        counted = "by its formula" if known[0].run else f"{known[0].forwards:.4g}, {known[0].backwards:.4g}"
        lines.append(f"| {known[0].call} | {counted} | {' | '.join(cells)} |")
        for n, c in zip(sizes, costs, strict=True):
            if isinstance(c, Cost) and c.ratio > MOST:
                at = f"{n} picture{'s' * (n > 1)}"
                spent = f"{c.ratio:.2f}, {1000 * c.beyond:.0f} ms a call beyond its passes"
                late.append(f"- {c.call}, {at}: {spent}{_why(name)}.")
    return "\n".join([*lines, "", f"Above {MOST}:", "", *(late or ["- none."]), *_formulas(rows, sizes)]) + "\n"


def _formulas(rows: dict[str, list[Cost | str]], sizes: Sequence[int]) -> list[str]:
    """What formulas need and calls run, as Markdown; nothing where no method is measured by its formula."""
    lines = [
        f"| {c.call} | {n} | {c.forwards:.2f}, {c.backwards:.2f} | {c.run.forwards:.2f}, {c.run.backwards:.2f} |"
        for costs in rows.values()
        for n, c in zip(sizes, costs, strict=True)
        if isinstance(c, Cost) and c.run
    ]
    head = ["", *ABOUT, "", "| method | pictures | needed F, B | run F, B |", "|---|---:|---:|---:|"]
    return [*head, *lines] if lines else []


def _why(name: str) -> str:
    return f": {WHY[name]}" if name in WHY else ""


if __name__ == "__main__":
    main()
