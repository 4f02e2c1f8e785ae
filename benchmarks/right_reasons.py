"""Training for the right reason on three sets with a shortcut: ``python benchmarks/right_reasons.py --data DATA``.

DATA holds spurious_mnist/ (decoy_mnist.npz, colored_mnist.npz), waterbirds/ and perhaps mnist/ (idx files), of which
the decoy digits are then made, 60,000 of them as in the paper.  Every network is trained by ``train`` on picture files
with annotation files; runs are kept in --work, and one that is finished is not trained again.  The table is
benchmarks/right_reasons.md, and what was measured benchmarks/right_reasons.json: what stands there is not measured
again.

    python benchmarks/right_reasons.py --data DATA --only decoy --seeds 1 --epochs 3 --each 1000
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from digits import idx
from PIL import Image

import clearsight as cs
from clearsight.core.statistics import wilson
from clearsight.internals.scores import scores_of

HERE = Path(__file__).parent
FOUND = HERE / "right_reasons.json"
TIMES = "times.json"  # in a run's folder, once it is finished: how long its training took
SETS = ("decoy", "coloured", "waterbirds")
SIDE, PATCH = 28, 4
Array = npt.NDArray[Any]

MLP = {"arch": 'clearsight:mlp(hidden="50,30", activation=relu)', "augment": "none", "optimiser": "adam", "lr": "0.001",
       "decay": 0.0, "schedule": "constant", "warmup": 0.0, "batch": 256, "epochs": 64}  # fmt: skip
CNN = {"augment": "none", "epochs": 15, "batch": 64}
BIRDS = {"arch": "demo", "augment": "none", "epochs": 6, "strategy": "full", "lr": "0.0003"}
# name of the row -> (kind of pictures to train on, recipe); GUIDE stands for the file of annotations
ROWS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "decoy": {
        "plain": ("own", MLP),
        "right-reasons": ("own", {**MLP, "avoid": "GUIDE", "guide_by": "right-reasons"}),
        "counterexamples": ("own", {**MLP, "avoid": "GUIDE", "guide_by": "counterexamples"}),
        "energy": ("own", {**MLP, "avoid": "GUIDE", "guide_by": "energy"}),
        "plain, no decoys in training": ("none", MLP),
    },
    "coloured": {
        "plain": ("own", CNN),
        "right-reasons, masks of the digits": ("own", {**CNN, "guide": "GUIDE", "guide_by": "right-reasons"}),
        "plain, hue varied": ("own", {**CNN, "augment": "colour-jitter(hue=0.5, saturation=0.9)"}),
        "plain, grey": ("own", {**CNN, "grey": True}),
    },
    "waterbirds": {
        "plain": ("own", BIRDS),
        "energy, 10 % of the boxes": (
            "own", {**BIRDS, "guide": "GUIDE", "guide_share": 0.1, "guide_by": "energy(explainer=grad-cam, weight=10)"},
        ),
        "energy of weight 50, 10 % of the boxes": (
            "own", {**BIRDS, "guide": "GUIDE", "guide_share": 0.1, "guide_by": "energy(explainer=grad-cam, weight=50)"},
        ),
        "cam-loss, 10 % of the boxes": (
            "own", {**BIRDS, "guide": "GUIDE", "guide_share": 0.1, "guide_by": "cam-loss(weight=100)"},
        ),
        "counterexamples, 10 % of the boxes": (
            "own", {**BIRDS, "guide": "GUIDE", "guide_share": 0.1, "guide_by": "counterexamples"},
        ),
    },
}  # fmt: skip
PUBLISHED = {
    "decoy": "Ross et al. 2017 (authors' notebook): plain 51.6 % on random decoys, right-reasons 98.2 / 96.1 % on "
    "training / test, 96.1 % without decoys in training",
    "coloured": "Rieger et al. 2020, arXiv:1909.13584 (another colouring): plain 0.5 %, CDEP 25.1 %",
    "waterbirds": "Rao et al. 2023, arXiv:2303.11932, report Waterbirds-100 with 1 % of the boxes as a chart",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("clearsight-runs/right-reasons"))
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--rows", help="only rows whose name holds this")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--each", type=int, help="only so many training pictures of a set")
    words = parser.parse_args()
    for name in [words.only] if words.only else SETS:
        home = words.work / (name if words.each is None else f"{name}-{words.each}")
        if not (home / "written").exists():
            shutil.rmtree(home, ignore_errors=True)
            {"decoy": decoy, "coloured": coloured, "waterbirds": waterbirds}[name](words.data, home, words.each)
            (home / "written").touch()
        for row, (kind, recipe) in ROWS[name].items():
            if words.rows is None or words.rows in row:
                for seed in range(words.seeds):
                    one(home, name, row, kind, recipe, seed, words.epochs)


def one(home: Path, name: str, row: str, kind: str, options: dict[str, Any], seed: int, epochs: int | None) -> None:
    """Train one network, judge it, and write the table anew."""
    options = {
        k: str(home / ("guide" if name == "coloured" else "guide.csv")) if v == "GUIDE" else v
        for k, v in options.items()
    }
    recipe = replace(cs.Recipe(**options), seed=seed, epochs=epochs or options["epochs"], split_seed=0)
    said = "".join(c if c.isalnum() else "-" for c in row)
    run = home / f"run-{said}-{recipe.epochs}-{seed}"
    found: dict[str, Any] = json.loads(FOUND.read_text()) if FOUND.exists() else {}
    key = f"{home.name} | {row} | {seed} | {recipe.epochs}"
    began, cpu = time.monotonic(), time.process_time()
    if key not in found and not (run / TIMES).exists():
        shutil.rmtree(run, ignore_errors=True)
        for epoch in cs.train(home / kind, recipe, run, save_first=False):
            print(name, row, seed, epoch.line(), flush=True)
        times = {"minutes": (time.monotonic() - began) / 60, "processor": (time.process_time() - cpu) / 60}
        (run / TIMES).write_text(json.dumps(times))
    if key not in found:
        about = {"set": name, "row": row, "seed": seed, "epochs": recipe.epochs, "pictures": home.name}
        found[key] = {**about, **json.loads((run / TIMES).read_text()), "parts": judged(home, run, name)}
        FOUND.write_text(json.dumps(found, indent=1) + "\n")
    print(key, {part: f"{k} of {n}" for part, (k, n) in found[key]["parts"].items()}, flush=True)
    (HERE / "right_reasons.md").write_text(table(found))


def judged(home: Path, run: Path, name: str) -> dict[str, tuple[int, int]]:
    """How many of the test pictures are right, in each part of them: (right, number)."""
    model = cs.load(str(run))
    folders = {"decoy": ("random", "clean"), "coloured": ("random",), "waterbirds": ("own",)}[name]
    parts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for folder in folders:
        pictures = cs.folder(home / folder, split="test")
        for start in range(0, len(pictures.pictures), 256):
            some = pictures.pictures[start : start + 256]
            best = scores_of(model, cs.pixels(model, *(p.path for p in some))).argmax(1).tolist()
            for p, k in zip(some, best, strict=True):
                right = model.labels[k] == Path(p.path).parent.name
                place = Path(p.path).stem.split("-")[0]
                for part in (folder, f"{Path(p.path).parent.name} on {place}") if name == "waterbirds" else (folder,):
                    parts[part][0] += right
                    parts[part][1] += 1
    if name == "waterbirds":
        groups = [parts[part] for part in parts if " on " in part]
        parts["worst group"] = min(groups, key=lambda g: g[0] / g[1])
    return {part: (k, n) for part, (k, n) in parts.items()}


def table(found: dict[str, Any]) -> str:
    """The rows of each set: the mean over seeds, its range, and the interval of the pictures of all seeds."""
    lines = [
        "# Right for the right reasons",
        "",
        "`python benchmarks/right_reasons.py --data DATA`.  Each cell, in %: the mean over the seeds, the range of",
        "several, and Wilson's 95 % interval of all their test pictures together.  A number behind a set says that so",
        "many of its training pictures are used.  The weight of 50 for waterbirds was chosen on the set's balanced",
        "validation pictures, which training does not see.",
        "",
    ]
    rows: dict[str, dict[tuple[str, int], list[Any]]] = defaultdict(lambda: defaultdict(list))
    for entry in found.values():
        rows[entry["pictures"]][entry["row"], entry["epochs"]].append(entry)
    for pictures, of in rows.items():
        parts = [p for p in next(iter(of.values()))[0]["parts"] if p != "own"]
        lines += [f"## {pictures}", "", f"| training | epochs | seeds | {' | '.join(parts)} | minutes (processor) |",
                  "|---|---|---|" + "---|" * (len(parts) + 1)]  # fmt: skip
        for (row, epochs), entries in of.items():
            cells = [cell([e["parts"][part] for e in entries]) for part in parts]
            minutes, cpu = (sum(e[k] for e in entries) / len(entries) for k in ("minutes", "processor"))
            lines.append(f"| {row} | {epochs} | {len(entries)} | {' | '.join(cells)} | {minutes:.1f} ({cpu:.1f}) |")
        lines += ["", f"Published: {PUBLISHED[next(iter(of.values()))[0]['set']]}.", ""]
    return "\n".join(lines)


def cell(counts: list[tuple[int, int]]) -> str:
    shares = [100 * k / n for k, n in counts]
    low, high = (100 * end for end in wilson(sum(k for k, _ in counts), sum(n for _, n in counts)))
    spread = "" if len(counts) == 1 else f"{min(shares):.1f} to {max(shares):.1f}; "
    return f"{sum(shares) / len(shares):.1f} ({spread}{low:.1f} to {high:.1f})"


def decoy(data: Path, home: Path, each: int | None) -> None:
    """Digits with a grey patch in a corner: its grey says the class in training, and nothing in the test."""
    rng = np.random.default_rng(0)
    if (data / "mnist").is_dir():
        parts = [(idx(next((data / "mnist").glob(f"{s}-images*"))), idx(next((data / "mnist").glob(f"{s}-labels*"))))
                 for s in ("train", "t10k")]  # fmt: skip
        corners = [rng.integers(0, 4, len(x)) for x, _ in parts]
        greys = [parts[0][1], rng.integers(0, 10, len(parts[1][0]))]
        (train, y), (test, z) = parts
    else:
        held = np.load(data / "spurious_mnist" / "decoy_mnist.npz")
        train, y, test, z = (held[k] for k in ("x_train", "y_train", "x_test", "y_test"))
        corners, greys = [held["corner_train"], held["corner_test"]], [y, held["c_test"]]
    train, y = train[:each], y[:each]
    boxes = []
    for i, (x, label) in enumerate(zip(train, y, strict=True)):
        top, left = corner(int(corners[0][i]))
        save(patched(x, top, left, int(greys[0][i])), home / "own" / "train" / str(label) / f"{i}.png")
        save(patched(x, top, left, None), home / "none" / "train" / str(label) / f"{i}.png")
        boxes.append((f"{i}.png", left, top, PATCH, PATCH))
    for i, (x, label) in enumerate(zip(test, z, strict=True)):
        top, left = corner(int(corners[1][i]))
        save(patched(x, top, left, int(greys[1][i])), home / "random" / "test" / str(label) / f"t{i}.png")
        save(patched(x, top, left, None), home / "clean" / "test" / str(label) / f"t{i}.png")
    write_boxes(home, boxes)


def corner(k: int) -> tuple[int, int]:
    return (0 if k < 2 else SIDE - PATCH), (0 if k % 2 == 0 else SIDE - PATCH)


def patched(x: Array, top: int, left: int, grey: int | None) -> Array:
    """The digit with the patch of Ross et al., of the grey 255 - 25 k; None takes a patch out."""
    out = x.copy()
    out[top : top + PATCH, left : left + PATCH] = 0 if grey is None else 255 - 25 * grey
    return out


def coloured(data: Path, home: Path, each: int | None) -> None:
    """Digits in the colour of their class in training, 95 % of them, and in any colour in the test."""
    held = np.load(data / "spurious_mnist" / "colored_mnist.npz")
    (home / "guide").mkdir(parents=True)
    for i, (x, label) in enumerate(zip(held["x_train"][:each], held["y_train"][:each], strict=True)):
        save(x, home / "own" / "train" / str(label) / f"{i}.png")
        save((x.max(2) > 0).astype(np.uint8) * 255, home / "guide" / f"{i}.png")
    for i, (x, label) in enumerate(zip(held["x_test"], held["y_test"], strict=True)):
        save(x, home / "random" / "test" / str(label) / f"t{i}.png")


def waterbirds(data: Path, home: Path, each: int | None) -> None:
    """Birds on the background that goes with them in training and validation, and on both in the test."""
    boxes = []
    with (data / "waterbirds" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    train = [r for r in rows if r["split"] == "train"]
    kept = {r["file"] for r in train[:: max(1, len(train) // each)]} if each else {r["file"] for r in train}
    for row in rows:
        if row["split"] == "val" or (row["split"] == "train" and row["file"] not in kept):
            continue  # the balanced validation pictures would say what the training pictures hide
        place = home / "own" / row["split"] / row["bird"] / f"{row['place']}-{row['file']}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "waterbirds" / "images" / row["file"], place)
        if row["split"] == "train":
            boxes.append((place.name, *(float(row[f"box_{k}"]) for k in "xywh")))
    write_boxes(home, boxes)


def save(x: Array, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(x).save(path, compress_level=1)


def write_boxes(home: Path, boxes: list[tuple[Any, ...]]) -> None:
    with (home / "guide.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "box_x", "box_y", "box_w", "box_h"), *boxes])


if __name__ == "__main__":
    main()
