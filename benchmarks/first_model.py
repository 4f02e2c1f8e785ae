"""How soon ``clearsight train`` has a first model of about 250 photos: ``python benchmarks/first_model.py DATA``.

DATA holds clothing10/ and grocery12/ (class folders, the latter in train/ and test/).  Of each class the first 30 or 21
photos are the folder that is trained on, without an option; it is divided as always into train, val and test.  Accuracy
is that on test and on the photos of each class that are left, which chose nothing.  Seconds are those of processors
that the process takes (``time.process_time``), because the clock also counts what else the machine does.

    python benchmarks/first_model.py DATA --only clothing10 --how without

What was measured is kept in benchmarks/first_model.json, and the table is benchmarks/first_model.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

import clearsight as cs
from clearsight.core.statistics import wilson
from clearsight.data.datasets import open_data
from clearsight.internals.scores import scores_of
from clearsight.training.loop import train
from clearsight.training.recipe import Recipe

HERE = Path(__file__).parent
FOUND = HERE / "first_model.json"
SETS = {"clothing10": 30, "grocery12": 21}  # photos of each class to train on
HOW = {"with": Recipe(), "without": Recipe(first_head=False, patience=0)}


def main() -> None:
    """Train on each in both ways, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("clearsight-runs/first-model"))
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--how", choices=HOW)
    words = parser.parse_args()
    for name in [words.only] if words.only else SETS:
        lay_out(words.data / name, words.work / name, SETS[name])
        for how in [words.how] if words.how else HOW:
            found: dict[str, Any] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
            found[f"{name} {how}"] = measured(words.work / name, how)
            FOUND.write_text(json.dumps(found, indent=1) + "\n")
            (HERE / "first_model.md").write_text(table(found))


def lay_out(data: Path, work: Path, each: int) -> None:
    """Links to the photos of each class: the first ones in photos/, the others in left/."""
    parts = [data / part for part in ("train", "test") if (data / part).is_dir()] or [data]
    for label in sorted(p.name for p in parts[0].iterdir() if p.is_dir()):
        files = [f for part in parts for f in sorted((part / label).iterdir())]
        for i, file in enumerate(files):
            link = work / ("photos" if i < each else "left") / label / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(file.resolve())


def measured(work: Path, how: str) -> dict[str, Any]:
    """Train, and judge the first model and the last one."""
    began, run = time.process_time(), work / how
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "judging": 0.0}
    for epoch in train(work / "photos", HOW[how], run):
        print(work.name, how, epoch.line(), flush=True)
        if epoch.number == 0:
            result |= {"first": time.process_time() - began, "first right": judged(work, run)}
            result["judging"] = time.process_time() - began - result["first"]
    result |= {"end": time.process_time() - began - result["judging"], "epochs": epoch.number}
    metrics = json.loads((run / "metrics.json").read_text())
    return {**result, "right": judged(work, run), "kept": metrics["epoch"], "pictures": metrics["pictures"]}


def judged(work: Path, run: Path) -> list[int]:
    """How many of the photos of test and of those left the model in the folder is right on, and of how many."""
    model, right, n = cs.load(run), 0, 0
    for pictures in (open_data(run / "split.csv", split="test"), open_data(work / "left")):
        truth = torch.tensor([model.labels.index(p.labels[0]) for p in pictures.pictures])
        right += int((scores_of(model, cs.pixels(model, pictures)).argmax(1) == truth).sum())
        n += len(truth)
    return [right, n]


def table(found: dict[str, Any]) -> str:
    """Seconds and accuracies as Markdown."""
    lines = [
        "# The first model",
        "",
        f"Made by `python benchmarks/first_model.py DATA` with one thread on a machine of {os.cpu_count()} cores:",
        "`clearsight train` on about 250 photos without an option, and with `--no-first-head --patience 0`, which",
        "trains as it did before there were first models. Seconds are those of the processor (the machine did other",
        "work), from the call of `train` to the folder that `load` reads, its report included. Accuracy is that on the",
        "test split and on more photos of the same classes, none of which chose anything; intervals are 95 %.",
        "Epoch 0 is the first model, kept where no later epoch has a lower loss on val. The first run of a call also",
        "loads timm.",
        "In the committed table the rows without were measured on the version before, one run of each.",
        "",
        "| photos | first head | first model | right | interval | end | epochs | kept | right | interval | n |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for what, m in sorted(found.items()):
        name, how = what.split()
        first = f"{m['first']:.0f} s | {share(m['first right'])}" if "first" in m else "none | – | –"
        lines.append(
            f"| {name}, {sum(m['pictures'].values())} | {how} | {first} | {m['end']:.0f} s | {m['epochs']} "
            f"| epoch {m['kept']} | {share(m['right'])} | {m['right'][1]} |"
        )
    return "\n".join(lines) + "\n"


def share(right: list[int]) -> str:
    """An accuracy and its interval as two cells."""
    low, high = wilson(*right)
    return f"{100 * right[0] / right[1]:.1f} % | {100 * low:.1f} to {100 * high:.1f} %"


if __name__ == "__main__":
    main()
