"""The measures of Libra-CAM's paper for every class-activation method, on your own model and pictures.

    python benchmarks/libra_table.py demo FOLDER_OR_CSV --work WORK --out benchmarks/libra_table.md

Lee & Han 2022, doi:10.24963/ijcai.2022/442.  Every second picture (by name) is judged, the others are Libra-CAM's
references, so that no picture is its own reference.  What is done is kept in WORK, picture by picture: the same command
goes on where it was stopped, and asked for more pictures it runs only the new ones.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import clearsight as cs
from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.output import write_whole
from clearsight.core.statistics import FEWEST, bootstrap
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import Picture, open_data
from clearsight.data.images import open_picture, to_pixels
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.perturbation.map_thresholds import (
    LEVELS,
    best_level,
    measures,
    rises_through,
    stretched,
    without_lowest,
)
from clearsight.runner.run import explain

BATCH = 4  # pictures between two savings
BRIGHT = " AS BRIGHT AS "
REFERENCES = "the other half"  # how the references are called in the table


@dataclass(frozen=True, eq=False)
class Row:
    """One method: how each picture's probability changed when it was seen through its map, and how much was seen.

    changes, seen (n, levels); seen is the mean of the mask: 1 shows all of the picture, and changes nothing.
    """

    name: str
    changes: Tensor
    seen: Tensor
    seconds: float  # for one picture's map
    forwards: float

    def first(self, n: int) -> Row:
        return replace(self, changes=self.changes[:n], seen=self.seen[:n])


def methods(references: Path) -> dict[str, str]:
    """Name in the table -> spelling: all that read a layer, Libra-CAM in several ways, and the controls."""
    every = catalogue("explainers")
    controls = {n: n for n, m in every.items() if "control" in m.claims}
    layered = {n: n for n, m in every.items() if "layer" in m.options and "inner" not in m.options}
    where = f'references="{references}", threshold=0'
    libra = {
        f"libra-cam(references={REFERENCES})": f"libra-cam({where})",
        f"libra-cam(references={REFERENCES}, filtering=false)": f"libra-cam({where}, filtering=false)",
        "libra-cam(references=demo)": "libra-cam(references=demo, threshold=0)",
        "libra-cam": "libra-cam(threshold=0)",
    }
    cheap = {n: n for n in layered if n not in ("libra-cam", "score-cam")}
    libra["grad-cam, as bright as libra-cam(references=the other half)"] = f"grad-cam{BRIGHT}libra-cam({where})"
    return {**libra, **cheap, **controls, "score-cam": "score-cam"}


def maps_of(model: Classifier, x: Tensor, spelling: str, target: ClassScore) -> tuple[Tensor, float]:
    """A method's maps, each stretched from 0 to 1, and its forwards; "a AS BRIGHT AS b" are a's, brightened."""
    a, wanted, b = spelling.partition(BRIGHT)
    e = explain(model, x, a, target)
    masks = stretched(e.maps)
    if not wanted:
        return masks, e.forwards
    means = stretched(explain(model, x, b, target).maps).flatten(1).mean(1)
    return torch.stack([as_bright(m, float(mean)) for m, mean in zip(masks, means, strict=True)]), e.forwards


def as_bright(mask: Tensor, mean: float) -> Tensor:
    """A mask raised to the power with which its mean is that of another: the order of its places stays the same."""
    low, high = -6.0, 6.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float((mask**2**middle).mean()) > mean else (low, middle)
    return mask**2**low


def judge(
    model: Classifier, pictures: list[Picture], name: str, spelling: str, work: Path, most: int, kept: str
) -> Row:
    """Run one method on the first so many pictures; those that are done are not run again."""
    file = work / f"{hashlib.sha256(spelling.encode()).hexdigest()[:12]}.npz"
    changes, seen, seconds, forwards = torch.zeros(0, len(LEVELS)), torch.zeros(0, len(LEVELS)), 0.0, 0.0
    if file.is_file():
        with np.load(file) as was:
            if str(was["kept"]) == kept:
                changes, seconds = torch.from_numpy(was["changes"]), float(was["seconds"])
                seen, forwards = torch.from_numpy(was["seen"]), float(was["forwards"])
    while len(changes) < most:
        part = pictures[len(changes) : min(len(changes) + BATCH, most)]
        x = torch.stack([to_pixels(open_picture(p.path), model.preprocess) for p in part]).to(model.device)
        with model.undisturbed():
            target = ClassScore(scores(model, x).argmax(1))
        began = time.perf_counter()
        masks, passes = maps_of(model, x, spelling, target)
        seconds += time.perf_counter() - began
        forwards += passes * len(part)
        with model.undisturbed():
            masks = masks.to(x)
            changes = torch.cat([changes, rises_through(model, x, target, masks).cpu()])
            means = [without_lowest(masks, level).flatten(1).mean(1) for level in LEVELS]
            seen = torch.cat([seen, torch.stack(means, 1).cpu()])
        numbers = {"changes": changes.numpy(), "seen": seen.numpy(), "seconds": seconds, "forwards": forwards}
        arrays = {name: np.asarray(value) for name, value in {**numbers, "kept": kept, "spelling": spelling}.items()}
        write_whole(file, lambda f, arrays=arrays: np.savez(f, **arrays))
        print(f"{time.strftime('%H:%M:%S')}  {name}: {len(changes)} of {most}", flush=True)
    n = len(changes)
    return Row(name, changes, seen, seconds / max(n, 1), forwards / max(n, 1))


Choice = Callable[[Tensor], Tensor]  # changes (n, levels) -> which level is taken for each picture, (n,)


def no_threshold(changes: Tensor) -> Tensor:
    return torch.zeros(len(changes), dtype=torch.long)


def held_out(changes: Tensor) -> Tensor:
    """One threshold for all: the one that does best on the other half of the pictures."""
    found = no_threshold(changes)
    for mine in (0, 1):
        found[mine::2] = changes[1 - mine :: 2].clamp_min(0).mean(0).argmax()
    return found


def taken(values: Tensor, levels: Tensor) -> Tensor:
    return values.gather(1, levels[:, None])[:, 0]


def with_interval(values: Tensor) -> str:
    low_high = bootstrap(values.tolist())
    mean = f"{float(values.mean()):.3f}"
    return mean if low_high is None else f"{mean} [{low_high[0]:.3f}, {low_high[1]:.3f}]"


def summary(rows: list[Row], choose: Choice) -> list[str]:
    """One line for each method: the four measures, and how far API and APD are from grad-cam's on the same pictures."""
    changes = {r.name: taken(r.changes, choose(r.changes)) for r in rows}
    base = changes.get("grad-cam")
    lines = [
        "| method | n | API | APD | IR | DR | API − grad-cam's | APD − grad-cam's | seen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(rows, key=lambda r: -float(measures(changes[r.name]).rise.mean())):
        m = measures(changes[r.name])
        cells = [with_interval(v) for v in (m.rise, m.fall, m.rises, m.falls)]
        apart = " | "
        if base is not None and r.name != "grad-cam":
            n = min(len(base), len(m.rise))
            theirs = measures(base)
            gaps = m.rise[:n] - theirs.rise[:n], m.fall[:n] - theirs.fall[:n]
            apart = " | ".join(map(with_interval, gaps))
        seen = f"{float(taken(r.seen, choose(r.changes)).mean()):.2f}"
        lines.append(f"| {r.name} | {len(m.rise)} | {' | '.join(cells)} | {apart} | {seen} |")
    return lines


def by_threshold(rows: list[Row], measure: str) -> list[str]:
    heads = [f"{t} %" for t in LEVELS]
    lines = [f"| method | {' | '.join(heads)} | calibrated |", "|---|" + "---|" * (len(heads) + 1)]
    for r in rows:
        cells = [f"{float(getattr(measures(r.changes[:, i]), measure).mean()):.3f}" for i in range(len(LEVELS))]
        cells.append(f"**{float(getattr(measures(taken(r.changes, best_level(r.changes))), measure).mean()):.3f}**")
        lines.append(f"| {r.name} | {' | '.join(cells)} |")
    return lines


def top_chances(model: Classifier, pictures: list[Picture]) -> Tensor:
    """How sure the model is of its top class, (n,): no more than the rest of it can be gained."""
    found = []
    for p in pictures:
        x = to_pixels(open_picture(p.path), model.preprocess)[None].to(model.device)
        with model.undisturbed():
            found.append(scores(model, x).softmax(1).amax())
    return torch.stack(found)


CALIBRATED = """The threshold is chosen by the very number that is reported, for every method alike: read it as a
method's best case, and beside the tables above."""


def wrapped(words: str) -> str:
    return textwrap.fill(" ".join(words.split()), 118, break_on_hyphens=False)


def page(
    rows: list[Row],
    refused: list[str],
    added: list[str],
    model: Classifier,
    data: str,
    there: list[Picture],
    others: int,
) -> str:
    before = top_chances(model, there)
    words = f"""Made by `python benchmarks/libra_table.py {model.source} {Path(data).name}`: {len(there)} pictures may
    be judged (every second one by name, in an order drawn with seed 0; n says how many were), the other {others} are
    Libra-CAM's references. Asked is for each picture's top class, of which the model is sure to {before.mean():.3f} on
    average: no API can be above {(1 - before).mean():.3f}. Every map is stretched from 0 to 1 and multiplied with the
    picture after normalisation, so that what is muted has the mean colour; p is the probability of the class before, p'
    after. API = mean max(0, p' − p), APD = mean max(0, p − p'), IR = mean [p' > p], DR = mean [p' < p] (Lee & Han 2022,
    doi:10.24963/ijcai.2022/442). A threshold of t % sets the lowest t % of the places to 0. Brackets: 95 % bootstrap
    intervals over the pictures. Seen is the mean of the mask: one that shows nearly all of the picture loses little by
    these measures, whatever it points at. For comparison stands grad-cam with its map raised, in each picture, to the
    power with which as much is seen as by libra-cam with references: the places' order is grad-cam's, the brightness is
    not."""
    few = [r for r in rows if r.name.startswith("score-cam") or r.name in added]
    many = [r for r in rows if r not in few]
    most = min((len(r.changes) for r in many), default=0)  # the same pictures for all
    many = [r.first(most) for r in many]
    text = ["# Libra-CAM's measures for every class-activation method", "", wrapped(words)]
    text += ["", "## No threshold", "", *summary(many, no_threshold)]
    text += ["", "## One threshold for all pictures, chosen on the other half of them", "", *summary(many, held_out)]
    text += [
        "",
        "## Each picture's own threshold (calibrated)",
        "",
        wrapped(CALIBRATED),
        "",
        *summary(many, best_level),
    ]
    for measure, name in (("rise", "API"), ("fall", "APD"), ("rises", "IR"), ("falls", "DR")):
        text += ["", f"## {name} by threshold", "", *by_threshold(many, measure)]
    if few:
        n = min(len(r.changes) for r in few)
        beside = (f"libra-cam(references={REFERENCES})", "grad-cam")
        few = [r.first(n) for r in rows if r.name in beside or r in few]
        text += [
            "",
            f"## What takes long, on the first {n} pictures",
            "",
            "No threshold:",
            "",
            *summary(few, no_threshold),
        ]
        text += ["", "Calibrated:", "", *summary(few, best_level)]
    text += ["", "## Cost of a map", "", "| method | forwards | seconds |", "|---|---|---|"]
    text += [f"| {r.name} | {r.forwards:.1f} | {r.seconds:.2f} |" for r in rows]
    text += ["", f"Seconds on {torch.get_num_threads()} processor thread(s), others at work on the machine."]
    if refused:
        text += ["", "## Left out", "", *(f"- {line}" for line in refused)]
    return "\n".join(text) + "\n"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("model")
    ask.add_argument("data")
    ask.add_argument("--work", type=Path, default=Path("libra_table"), help="what is done is kept here")
    ask.add_argument("--out", type=Path, default=Path("libra_table.md"))
    ask.add_argument("--pictures", type=int, default=10**9, help="how many to judge")
    ask.add_argument("--slow", type=int, default=20, help="how many for methods of more than 100 forwards a picture")
    ask.add_argument("--add", action="append", default=[], help="another spelling, such as 'grad-cam(layer=blocks.6)'")
    ask.add_argument("--only", default="", help="only methods with this word in their name")
    given = ask.parse_args()
    model = cs.load(given.model)
    pictures = list(open_data(given.data).pictures)
    there, references = pictures[::2], pictures[1::2]
    there = [there[i] for i in np.random.default_rng(0).permutation(len(there))]
    table = given.work / "references.csv"
    lines = [["file", "label"], *[[str(p.path.resolve()), ""] for p in references]]
    if not table.is_file() or list(csv.reader(table.open(encoding="utf-8"))) != lines:
        write_whole(table, "".join(f'"{a}",{b}\n' for a, b in lines))
    rows, refused = [], []
    asked = {**methods(table), **{spelling: spelling for spelling in given.add}}
    kept = f"{model.fingerprint()} {[p.name for p in there]}"
    for name, spelling in asked.items():
        slow = name.partition("(")[0] == "score-cam"
        most = min(given.pictures, given.slow if slow else given.pictures, len(there))
        if given.only and given.only not in name:
            most = 0
        try:
            row = judge(model, there, name, spelling, given.work, most, kept)
        except Refused as e:
            refused.append(f"{name}: {e}")
        else:
            n = len(row.changes)
            rows += [row] if n >= FEWEST else []
            if 0 < n < FEWEST:
                cost = f"{row.forwards:.0f} forwards and {row.seconds:.0f} seconds each"
                refused.append(f"{name}: only {n} pictures were run ({cost}), too few for an interval")
    write_whole(given.out, page(rows, refused, given.add, model, given.data, there, len(references)))
    print(given.out)


if __name__ == "__main__":
    main()
