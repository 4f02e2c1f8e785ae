"""Networks that are right for the wrong reason, and the same without the shortcut: what an audit says of each.

python benchmarks/shortcuts.py DATA   writes benchmarks/shortcuts.md; DATA holds spurious_mnist and waterbirds.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

import clearsight as cs
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures
from clearsight.training.recipe import Recipe

Array = npt.NDArray[np.uint8]
OUT = Path(__file__).with_suffix(".md")
DENSE = Recipe(arch='clearsight:mlp(hidden="50,30", activation=relu)', size=28, augment="none", epochs=60, decay=0.0)
CONVOLUTIONAL = Recipe(arch="auto", augment="none", epochs=4)
HEAD = Recipe(arch="demo", strategy="linear", first_head=False, patience=0, augment="none", epochs=6)


@dataclass(frozen=True)
class Lesson:
    """Pictures that a network learns from, those that look like them, and those on which the shortcut says nothing."""

    name: str
    recipe: Recipe
    train: Pictures
    alike: Pictures
    fair: Pictures
    checks: str


def digits(folder: Path, x: Array, y: Array) -> list[Picture]:
    pictures = []
    for i, (a, label) in enumerate(zip(x, y.tolist(), strict=True)):
        path = folder / f"{i:05}.png"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(a).save(path)
        pictures.append(Picture(path, path.name, (str(label),)))
    return pictures


def plain_decoys(x: Array, corner: Array) -> Array:
    x = x.copy()
    for a, k in zip(x, corner.tolist(), strict=True):
        top, left = (0 if k < 2 else 24), (24 if k % 2 else 0)
        a[top : top + 4, left : left + 4] = 0
    return x


def plain_colours(x: Array) -> Array:
    """The same digits in colours that say nothing of the class."""
    light = x.max(3, keepdims=True).astype(np.float32)
    light = light / light.max((1, 2, 3), keepdims=True)
    colours = np.random.default_rng(0).uniform(60, 255, (len(x), 1, 1, 3))
    return (light * colours).astype(np.uint8)


def marked_digits(data: Path, work: Path, name: str) -> list[Lesson]:
    with np.load(data / "spurious_mnist" / f"{name}_mnist.npz") as a:
        arrays = {k: a[k] for k in a.files}
    x, y = arrays["x_train"], arrays["y_train"]
    plain = plain_decoys(x, arrays["corner_train"]) if name == "decoy" else plain_colours(x)
    recipe = DENSE if name == "decoy" else CONVOLUTIONAL
    fair = _pictures(work, digits(work / name / "fair", arrays["x_test"], arrays["y_test"]))
    lessons = []
    for kind, pixels in (("with", x), ("without", plain)):
        every = digits(work / name / kind, pixels, y)
        lessons.append(
            Lesson(
                f"{name} digits, {kind} the shortcut",
                recipe,
                _parts(work, every[:4000]),
                _pictures(work, every[4000:]),
                fair,
                "accuracy, shortcuts",
            )
        )
    return lessons


def birds(data: Path, work: Path) -> list[Lesson]:
    root = data / "waterbirds"
    with open(root / "labels.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    every: dict[str, list[Picture]] = {"train": [], "val": [], "test": []}
    for r in rows:
        x, y, w, h = (float(r[f"box_{k}"]) for k in "xywh")
        box = Region(((x, y, x + w, y + h),))
        every[r["split"]].append(
            Picture(root / "images" / r["file"], r["file"], (r["bird"],), (box,), {"place": r["place"]})
        )
    order = np.random.default_rng(0)
    for part in every.values():
        order.shuffle(part)  # type: ignore[arg-type]
    balanced = every["test"]
    fair = _pictures(root, balanced[400:])
    checks = "accuracy, groups(column=place), trustworthiness, shortcuts(pictures=150)"
    biased, even = every["train"], [*every["val"], *balanced[:400]]
    return [
        Lesson(
            "birds, each kind on its own ground",
            HEAD,
            _parts(root, biased[:1400]),
            _pictures(root, biased[1400:]),
            fair,
            checks,
        ),
        Lesson(
            "birds, both kinds on both grounds",
            HEAD,
            _parts(root, even[:700]),
            _pictures(root, even[700:]),
            fair,
            checks,
        ),
    ]


def _pictures(root: Path, pictures: list[Picture]) -> Pictures:
    return Pictures(root, tuple(sorted(pictures, key=lambda p: p.name)))


def _parts(root: Path, pictures: list[Picture]) -> Pictures:
    """Four fifths to learn from, one fifth to choose the epoch."""
    cut = len(pictures) * 4 // 5
    parts = [(p, "train") for p in pictures[:cut]] + [(p, "val") for p in pictures[cut:]]
    return _pictures(root, [Picture(p.path, p.name, p.labels, p.regions, p.columns, split) for p, split in parts])


def judged(lesson: Lesson, folder: Path) -> list[str]:
    began = time.monotonic()
    for _ in cs.train(lesson.train, lesson.recipe, folder):
        pass
    model = cs.load(str(folder))
    lines = []
    for where, pictures in (("like those it learned from", lesson.alike), ("the shortcut says nothing", lesson.fair)):
        report = cs.audit(model, pictures, only=lesson.checks)
        for f in report.findings:
            lines.append(f"| {lesson.name} | {where} | {f.name} | {f.verdict} | {f.headline} |")
            print(lines[-1], flush=True)
    print(f"{lesson.name}: {time.monotonic() - began:.0f} s", flush=True)
    return lines


def main(data: Path) -> None:
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        lessons = [*marked_digits(data, work, "decoy"), *marked_digits(data, work, "colored"), *birds(data, work)]
        for i, lesson in enumerate(lessons):
            lines += judged(lesson, work / f"model-{i}")
    head = __doc__ or ""
    OUT.write_text(
        "# Shortcuts that are there, and that are not\n\n"
        f"{head.splitlines()[0]} Made by `python benchmarks/shortcuts.py DATA`.\n\n"
        "| network | audited on pictures | check | verdict | in words |\n|---|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
