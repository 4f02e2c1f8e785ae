"""What one call costs beyond its passes, part by part: ``python benchmarks/fixed_cost.py``.

Calls of `explain` and `attack` on four pictures through the demo network, one thread, in the time that this thread
ran.  A pass is what a loop without this package would have too: the normalisation, the network forwards, and
`torch.autograd.grad`.  What a call takes besides is divided among the functions that take it, each without those
inside it.  Calls are later ones, by turns; medians.  Takes about half a minute for each 15 turns.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from clearsight.core import contents, first_pass, guard, model, rng, validation, weight_digest
from clearsight.core.memory import reuse_memory
from clearsight.core.methods import Method
from clearsight.data.datasets import demo_pictures, pixels
from clearsight.internals import probe
from clearsight.models.loading import load
from clearsight.runner.run import attack, explain

PICTURES = 4
EXPLAINERS = ("grad-cam", "eigen-cam", "saliency")
ATTACKS = ("fgsm", "pgd(steps=1)")
PASSES = "its passes"
REST = "the runner itself"


class Timer:
    """Seconds of this thread by part, each without the parts inside it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = [REST]
        self._since = 0.0

    def start(self) -> None:
        self.spent.clear()
        self._since = time.thread_time()

    def enter(self, part: str) -> None:
        self._turn()
        self._open.append(PASSES if self._open[-1] == PASSES else part)

    def leave(self) -> None:
        self._turn()
        self._open.pop()

    def stop(self) -> dict[str, float]:
        self._turn()
        return dict(self.spent)

    def _turn(self) -> None:
        now = time.thread_time()
        self.spent[self._open[-1]] += now - self._since
        self._since = now

    def function(self, part: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed as that part."""

        @wraps(run)
        def timed(*args: Any, **options: Any) -> Any:
            self.enter(part)
            try:
                return run(*args, **options)
            finally:
                self.leave()

        return timed

    def context(self, part: str, make: Callable[..., Any]) -> Callable[..., Any]:
        """The context manager, of which entering and leaving are timed as that part, and what is inside is not."""

        @wraps(make)
        def timed(*args: Any, **options: Any) -> Any:
            return _Around(self, part, make(*args, **options))

        return timed


class _Around:
    def __init__(self, timer: Timer, part: str, inside: AbstractContextManager[Any]) -> None:
        self.enter = timer.function(part, inside.__enter__)
        self.exit = timer.function(part, inside.__exit__)

    def __enter__(self) -> Any:
        return self.enter()

    def __exit__(self, *error: Any) -> Any:
        return self.exit(*error)


def main() -> None:
    """Time every call, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(1)
    reuse_memory()  # as the command line does
    text = table(measured(words.turns))
    print(text)
    if words.out:
        words.out.write_text(text)


def measured(turns: int) -> dict[str, dict[str, float]]:
    """The seconds of each part of each call, medians over its turns."""
    classifier = load("demo")
    x = pixels(classifier, demo_pictures()).repeat(PICTURES, 1, 1, 1)[:PICTURES]
    y = classifier(x).argmax(1).detach()
    calls: dict[str, Callable[[], object]] = {m: lambda m=m: explain(classifier, x, m) for m in EXPLAINERS}  # type: ignore[misc]
    calls |= {m: lambda m=m: attack(classifier, x, y, m) for m in ATTACKS}  # type: ignore[misc]
    for call in calls.values():
        call(), call()
    timer = Timer()
    _time_parts(timer)
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            gc.collect()
            classifier(x)  # after which caches hold what a pass leaves there, as they do where calls follow each other
            timer.start()
            call()
            seconds[name].append(timer.stop())
    parts = dict.fromkeys(part for each in seconds.values() for turn in each for part in turn)
    return {
        name: {part: statistics.median(turn.get(part, 0.0) for turn in each) for part in parts}
        | {"beyond": statistics.median(sum(turn.values()) - turn[PASSES] for turn in each)}
        for name, each in seconds.items()
    }


def _time_parts(timer: Timer) -> None:
    for owner, name in ((model.Model, "normalised"), (model.Model, "returned"), (torch.autograd, "grad")):
        setattr(owner, name, timer.function(PASSES, getattr(owner, name)))
    Method.__call__ = timer.function("the method's own arithmetic", Method.__call__)  # type: ignore[method-assign]
    probe.State.holds = timer.function("settings of modules compared", probe.State.holds)  # type: ignore[method-assign]
    functions = {
        "modules looked at": (contents.contents,),
        "weights hashed": (weight_digest.weight_digest,),
        "pictures and results checked": (validation.check_pixels, validation.check_result),
        "logits of the first pass noted": (first_pass.note,),
    }
    contexts = {"guard": (guard.guarded,), "seeds": (rng.seeded, rng.reseeded)}
    for part, those in functions.items():
        for f in those:
            _replace(f, timer.function(part, f))
    for part, those in contexts.items():
        for f in those:
            _replace(f, timer.context(part, f))


def _replace(old: object, new: object) -> None:
    """Put one function in the place of another wherever this package has imported it."""
    for m in [*sys.modules.values()]:
        if m.__name__.partition(".")[0] == "clearsight":
            for name in [name for name, value in vars(m).items() if value is old]:
                setattr(m, name, new)


def table(costs: dict[str, dict[str, float]]) -> str:
    """What was measured, as Markdown, in milliseconds."""
    parts = [part for part in next(iter(costs.values())) if part not in (PASSES, "beyond")]
    parts.sort(key=lambda part: -sum(cost[part] for cost in costs.values()))
    rows = {"**beyond its passes**": "beyond", **{part: part for part in parts}, PASSES: PASSES}
    lines = [
        "## What one call costs beyond its passes",
        "",
        "Made by `python benchmarks/fixed_cost.py`: milliseconds of one thread, four pictures of 224 pixels, the demo",
        "network, later calls. A pass is the normalisation, the network forwards, and `torch.autograd.grad`. Parts are",
        "without those inside them.",
        "",
        "| ms | " + " | ".join(costs) + " |",
        "|---" + "|---:" * len(costs) + "|",
    ]
    for row, key in rows.items():
        cells = [f"{1000 * cost[key]:.2f}" for cost in costs.values()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
