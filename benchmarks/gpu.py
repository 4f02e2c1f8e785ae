"""Every explainer and attack on a GPU beside the CPU, then how fast it is: ``python benchmarks/gpu.py --device cuda``.

First each method runs once on the device and once on the CPU, with the same pictures, question and seed: on the demo
network, on a small detector, segmenter and classifier of texts where the catalogue says that it takes them.  Then those
of the classifier are timed on the device, with four times as many pictures each time, until twice as many no longer
pay, or the memory is full.  Options are fewer than the defaults, so that all of it fits into 5 minutes; each call is
spelled in the table.

``--limit 300`` is the most seconds for all: what no longer fits is left out, and the table says so.  It is written anew
after each method.  ``--device cpu`` is the script's check of itself: all differences must be 0.  ``--tiny`` takes a
small network instead of the demo's, and fewer steps.  ``--only saliency,pgd`` takes some of the methods.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

import clearsight as cs
from clearsight.core import batching
from clearsight.core.catalogue import catalogue, parse
from clearsight.core.free_memory import free_memory
from clearsight.core.memory import reuse_memory
from clearsight.core.model import Model
from clearsight.core.norms import norm_of
from clearsight.core.preprocess import Preprocess
from clearsight.core.similarity import spearman
from clearsight.core.taking import takes_kind
from clearsight.core.targets import Goal, Target
from clearsight.data.datasets import demo_pictures, pixels
from clearsight.kinds.box_goals import objects
from clearsight.kinds.questions import usual_target
from clearsight.models.loading import device_of, load
from clearsight.networks.plain_cnn import plain_cnn
from clearsight.testing import linear_text, tiny_detector, tiny_segmenter

OUT = Path(__file__).with_suffix(".md")
KINDS = ("classifier", "detector", "segmenter", "text")
PICTURES = 2  # that are compared
SHARE, ALL = 0.6, 0.97  # of the limit, until which methods are compared and timed
CLOSE = 1e-3  # difference that rounding alone makes seldom
GAIN = 1.1  # times as many pictures a second: less does not pay
FIRST, TIMES = 4, 4  # pictures that are timed first, and how many times more are next
EPS = {  # few enough that not every picture falls
    "classifier": {"linf": 2 / 255, "l2": 0.25},
    "detector": {"linf": 0.3, "l2": 3.0},
    "segmenter": {"linf": 0.1, "l2": 1.0},
}
BRIEF = {
    "masks": 64, "samples": 32, "iterations": 20, "steps": 10, "channels": 32, "queries": 50, "evaluations": 10,
    "searches": 2, "tries": 4, "classes": 3, "window": 56, "stride": 28, "count": 4,
}  # fmt: skip
TINIER = {
    "masks": 12, "samples": 12, "iterations": 4, "steps": 4, "window": 8, "stride": 8, "queries": 20, "cells": 4,
    "most": 1.0,
}  # fmt: skip
BESIDE = (
    "## Beside the CPU",
    "",
    "Difference: the largest, as a share of the largest value of the CPU's result. Rank correlation: of the map that",
    "agrees least. Fooled: on the device and on the CPU.",
)
SPEED = (
    "## Time and memory on the device",
    "",
    "Milliseconds per picture (peak MB of a GPU), by pictures in a call, all of them through the network at once.",
)
Row = dict[str, Any]


class TimeUp(BaseException):
    """The time for one method is over; no method may catch it."""


@dataclass(frozen=True)
class Subject:
    """A model on the CPU and its copy on the device, with pictures, what is explained and what is attacked for."""

    kind: str
    here: Model
    there: Model
    x: Tensor
    target: Target | None
    goal: Goal
    eps: dict[str, float]


def main() -> None:
    """Compare, time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=float, default=300.0)
    parser.add_argument("--most", type=int, default=4096, help="pictures in one call")
    parser.add_argument("--only", default="", help="methods, with commas between")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    words = parser.parse_args()
    try:
        device_of(words.device)
    except cs.Refused as e:
        sys.exit(str(e))
    out = words.out.resolve()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["XDG_CACHE_HOME"] = folder  # where libra-cam keeps its tables
        reuse_memory()
        work(words, out)


def work(words: argparse.Namespace, out: Path) -> None:
    """Compare each method, then time those of the classifier; the table is written after each."""
    began = time.monotonic()
    subjects = {kind: subject(kind, words.device, tiny=words.tiny) for kind in KINDS}
    some = [pair for pair in pairs() if not words.only or pair[2] in words.only.split(",")]
    calls = [(kind, folder, spelled(folder, name, tiny=words.tiny)) for kind, folder, name in some]
    head = heading(words.device, words.limit, tiny=words.tiny)
    compared: list[Row] = []
    timed: list[Row] = []
    for k, (kind, folder, call) in enumerate(calls):
        end, part = began + SHARE * words.limit, share(len(calls) - k)
        compared.append(in_time(end, part, compare, subjects[kind], folder, call))
        out.write_text(table(head, compared, timed))
    fast = [c for c in calls if c[0] == "classifier" and "control" not in parse(c[2], c[1]).method.claims]
    for k, (kind, folder, call) in enumerate(fast):
        end, part = began + ALL * words.limit, share(len(fast) - k)
        timed.append(in_time(end, part, saturate, subjects[kind], folder, call, words.most))
        out.write_text(table(head, compared, timed))
    print(f"{time.monotonic() - began:.0f} s, {words.out}")


def share(methods: int) -> float:
    """What part of the time that is left one of so many methods may take."""
    return min(0.25, 5 / methods)


def pairs() -> list[tuple[str, str, str]]:
    """(kind of model, folder of the catalogue, method) of everything that is run; methods of few passes first."""
    found = []
    for kind in ("classifier", "detector", "segmenter"):
        for folder in ("explainers", "attacks"):
            methods = catalogue(folder).items()
            taken = [(n, m) for n, m in methods if takes_kind(m, kind) and "texts-only" not in m.claims]
            taken.sort(key=lambda item: "few-passes" not in item[1].claims)
            found += [(kind, folder, n) for n, _ in taken]
    of_texts = [n for n, m in catalogue("attacks").items() if "texts-only" in m.claims]
    return found + [("text", "attacks", n) for n in of_texts]


def subject(kind: str, device: str, *, tiny: bool) -> Subject:
    """The model of a kind, on the CPU and on the device, and what it is asked."""
    draws = torch.Generator().manual_seed(0)
    target: Target | None = None
    if kind == "detector":
        here, x = tiny_detector(), 0.2 * torch.rand(PICTURES, 3, 32, 32, generator=draws)
        x[:, 0, 4:8, 8:12] = 0.9
        there_are = objects(here.detect(x))
        target, goal = usual_target(here, here(x)), cs.Vanish(there_are.boxes, there_are.classes, 0.05)
    elif kind == "segmenter":
        here, x = tiny_segmenter(), torch.rand(PICTURES, 3, 32, 32, generator=draws)
        target, goal = usual_target(here, here(x)), cs.PixelsMisread(here.segment(x), share=0.3)
    elif kind == "text":
        here = linear_text((torch.rand(2, 4, 12, generator=draws) - 0.5).tolist(), "abc")
        x = torch.nn.functional.one_hot(torch.randint(4, (PICTURES, 12), generator=draws), 4).mT.float()
        goal = cs.Misclassify(top(here, x))
    else:
        here = small_network() if tiny else load("demo")
        x = pixels(here, demo_pictures())
        classes = top(here, x)
        target, goal = cs.ClassScore(classes), cs.Misclassify(classes)
    there = replace(here, net=copy.deepcopy(here.net).to(device))
    return Subject(kind, here, there, x, target, goal, EPS.get(kind, {}))


def small_network() -> Model:
    """A plain CNN with random weights for pictures of 32 pixels."""
    torch.manual_seed(0)
    net = plain_cnn(10, (3, 32, 32), widths="8,16,16", norm="batch", head="average", dense="").eval()
    return cs.wrap(net, Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3), tuple(map(str, range(10))))


def top(model: Model, x: Tensor) -> Tensor:
    """The top class (B,) of pictures x (B, C, *S)."""
    with torch.no_grad():
        return model(x).argmax(1)


def spelled(folder: str, name: str, *, tiny: bool) -> str:
    """A method with those of the few steps and masks that it has options for."""
    options = catalogue(folder)[name].options
    asked = BRIEF | TINIER if tiny else BRIEF
    words = [f"{k}={v}" for k, v in asked.items() if k in options]
    if name == "libra-cam":
        Path("references").mkdir(exist_ok=True)
        for p in demo_pictures().pictures:
            shutil.copy(p.path, "references")
        words.append("references=references")
    return f"{name}({', '.join(words)})" if words else name


def run(of: Subject, folder: str, call: str, *, there: bool, n: int, batch: int | None = None) -> tuple[Tensor, Tensor]:
    """The maps (n, *S), or the attacked pictures and which of them are fooled, of the first n pictures repeated."""
    model = of.there if there else of.here
    rows = torch.arange(n) % len(of.x)
    x = of.x[rows]
    if folder == "explainers":
        maps = cs.explain(model, x, call, None if of.target is None else of.target[rows], batch=batch).maps
        return maps.cpu(), torch.zeros(n, dtype=torch.bool)
    other = model if "other" in parse(call, folder).method.injected else None
    eps = None if "unbounded" in parse(call, folder).method.claims else of.eps.get(norm_of(parse(call, folder)))
    found = cs.attack(model, x, of.goal[rows], call, eps=eps, other=other, batch=batch)
    return found.x.cpu(), found.fooled.cpu()


def compare(of: Subject, folder: str, call: str) -> Row:
    """How far the device's result lies from the CPU's."""
    n = min(PICTURES, len(of.x))
    try:
        (a, fooled), (b, fell) = (run(of, folder, call, there=there, n=n) for there in (True, False))
    except cs.Refused as e:
        return {"note": str(e)}
    difference = float((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(b.dtype).tiny))
    if folder == "attacks":
        return {"difference": difference, "device": int(fooled.sum()), "cpu": int(fell.sum()), "n": n}
    return {"difference": difference, "correlation": min(alike(p, q) for p, q in zip(a, b, strict=True)), "n": n}


def alike(a: Tensor, b: Tensor) -> float:
    """The rank correlation of two maps (*S); 1 for equal ones, also where they are constant."""
    return 1.0 if torch.equal(a, b) else spearman(a.double().numpy(), b.double().numpy())


def saturate(of: Subject, folder: str, call: str, most: int) -> Row:
    """Milliseconds per picture on the device with more and more pictures in a call, and the peak of its memory."""
    steps: list[tuple[int, float, float | None]] = []
    n, why = FIRST, "the most pictures asked for"
    try:
        run(of, folder, call, there=True, n=FIRST)  # what is done once
        while n <= most:
            steps.append((n, *measured(of, folder, call, n)))
            if len(steps) > 1 and steps[-2][1] < GAIN * steps[-1][1]:
                why = "more pictures no longer pay"
                break
            n *= TIMES
    except TimeUp:
        why = "the time is over"
    except (torch.OutOfMemoryError, cs.Refused) as e:
        why = "the memory is full" if "memory" in str(e).lower() else str(e)
    return {"steps": steps, "note": why}


def measured(of: Subject, folder: str, call: str, n: int) -> tuple[float, float | None]:
    """(ms per picture, peak MB of the device or None) of a call with n pictures that go through the network at once."""
    device = of.there.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    spent = float("inf")
    with room(device):
        for _ in range(2):  # the first call asks for the memory
            began = time.perf_counter()
            run(of, folder, call, there=True, n=n, batch=n)  # its result is on the CPU, so the device has ended
            spent = min(spent, time.perf_counter() - began)
            if spent > 1:
                break
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return 1000 * spent / n, peak


@contextmanager
def room(device: torch.device) -> Iterator[None]:
    """On a GPU let a pass keep half of the memory that is free, instead of what suits a processor."""
    before = batching.BYTES
    if device.type == "cuda":
        batching.BYTES = (free_memory(device) or 2 * before) // 2
    try:
        yield
    finally:
        batching.BYTES = before


def in_time(end: float, part: float, work: Any, of: Subject, folder: str, call: str, *more: int) -> Row:
    """A row of the table, cut off where it takes more than 10 s and more than a part of the time left until end."""
    row: Row = {"kind": of.kind, "call": call}
    left = end - time.monotonic()
    if left < 0.5:
        return row | {"note": "left out: the time is over"}
    seconds = min(left, max(10.0, part * left))
    try:
        with until(seconds):
            row |= work(of, folder, call, *more)
    except TimeUp:
        row["note"] = f"cut off after {seconds:.0f} s"
    except Exception as e:  # a method that fails on the device is a row, and the others go on
        row["note"] = f"FAILED: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
    print(row, file=sys.stderr, flush=True)
    return row


@contextmanager
def until(seconds: float) -> Iterator[None]:
    """TimeUp is raised inside after so many seconds (not on Windows), at the latest when an operation ends."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def heading(device: str, limit: float, *, tiny: bool) -> list[str]:
    """What was run, where."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    network = "a small plain CNN (32 pixels, random weights)" if tiny else "the demo network (224 pixels)"
    lines = [
        "# Explainers and attacks on a GPU",
        "",
        f"Made by `python benchmarks/gpu.py --device {device}{' --tiny' if tiny else ''} --limit {limit:g}`: {name}, "
        f"PyTorch {torch.__version__.partition('+')[0]}, {network}.",
    ]
    if device == "cpu":
        lines += ["", "**Not run on a GPU so far.** This is the script's check of itself, a CPU beside itself;"]
        lines += ["its times are those of a busy machine."]
    return lines


def told(compared: Sequence[Row]) -> str:
    """How many methods agree, in a sentence."""
    far = [f"{r['call']} ({r['kind']})" for r in compared if r.get("difference", 0) > CLOSE]
    ran = sum("difference" in r for r in compared)
    return f"Of {ran} runs {len(far)} differ by more than {CLOSE:g}: {', '.join(far) or 'none'}."


def table(head: Sequence[str], compared: Sequence[Row], timed: Sequence[Row]) -> str:
    """What was found so far, as Markdown."""
    lines = [*head, "", *BESIDE, "", told(compared), ""]
    lines += ["| model | method | difference | rank correlation | fooled | |", "|---|---|---:|---:|---:|---|"]
    for r in compared:
        difference = f"{r['difference']:.1e}" if "difference" in r else ""
        rank = f"{r['correlation']:.5f}" if "correlation" in r else ""
        fooled = f"{r['device']}, {r['cpu']} of {r['n']}" if "device" in r else ""
        lines.append(f"| {r['kind']} | {r['call']} | {difference} | {rank} | {fooled} | {r.get('note', '')} |")
    lines += ["", *SPEED, ""]
    sizes = sorted({n for r in timed for n, *_ in r.get("steps", ())})
    lines += ["| method | " + " | ".join(map(str, sizes)) + " | ended because |", "|---" * (len(sizes) + 2) + "|"]
    for r in timed:
        cells = {n: f"{ms:.3g}" + ("" if mb is None else f" ({mb:.0f})") for n, ms, mb in r.get("steps", ())}
        lines.append(f"| {r['call']} | {' | '.join(cells.get(n, '') for n in sizes)} | {r.get('note', '')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
