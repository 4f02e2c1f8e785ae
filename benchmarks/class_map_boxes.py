"""Explainers ranked by the boxes of their maps: does the brightest part of a class map find the object?

python benchmarks/class_map_boxes.py DATA   writes benchmarks/class_map_boxes.md; DATA holds waterbirds and coco_masks.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clearsight.core.catalogue import catalogue
from clearsight.core.classifier import Classifier
from clearsight.core.statistics import wilson
from clearsight.core.targets import ClassScore
from clearsight.data.datasets import demo_pictures
from clearsight.data.images import open_picture, to_model, to_pixels
from clearsight.evaluation.class_map_boxes import OVERLAPS, box_overlaps, max_box_accuracy
from clearsight.evaluation.resampling import interval_over_pictures
from clearsight.models.loading import load
from clearsight.runner.run import explain, measure

OUT = Path(__file__).with_suffix(".md")
BIRDS = 60  # pictures of Waterbirds, the first of its test part in the order of their names
LEAST = 0.04  # share of the view that the largest box has to cover: smaller objects are smaller than a cell of the maps
THRESHOLDS = tuple(k / 25 for k in range(25))
BIRD_CLASSES = (*range(9, 25), *range(80, 101), *range(127, 147))  # ImageNet's, without cock and hen
IMAGENET = {  # COCO's words -> ImageNet's; classes that ImageNet lacks (person, giraffe, ...) are left out
    "bicycle": "mountain bike|bicycle-built-for-two", "motorcycle": "moped|motor scooter",
    "car": "beach wagon|cab|convertible|jeep|limousine|minivan|Model T|racer|sports car",
    "airplane": "airliner|warplane",
    "bus": "minibus|school bus|trolleybus", "boat": "canoe|catamaran|fireboat|gondola|lifeboat|schooner|speedboat|yawl",
    "train": "bullet train|electric locomotive|freight car|passenger car|steam locomotive|streetcar",
    "truck": "fire engine|garbage truck|moving van|pickup|tow truck|trailer truck", "traffic light": "traffic light",
    "parking meter": "parking meter", "bench": "park bench", "zebra": "zebra", "horse": "sorrel",
    "elephant": "African elephant|Indian elephant", "cat": "tabby|tiger cat|Persian cat|Siamese cat|Egyptian cat",
    "bear": "brown bear|American black bear|ice bear|sloth bear", "sheep": "ram|bighorn", "cow": "ox|water buffalo",
    "backpack": "backpack", "umbrella": "umbrella", "tie": "Windsor tie|bow tie|bolo tie", "skis": "ski",
    "sports ball": "soccer ball|tennis ball|baseball|basketball|volleyball|rugby ball", "wine glass": "goblet",
    "bottle": "beer bottle|wine bottle|water bottle|pop bottle", "cup": "cup|coffee mug|espresso", "banana": "banana",
    "bowl": "mixing bowl|soup bowl", "orange": "orange", "broccoli": "broccoli", "hot dog": "hotdog", "pizza": "pizza",
    "couch": "studio couch", "bed": "four-poster", "dining table": "dining table", "toilet": "toilet seat",
    "tv": "television|monitor|screen", "laptop": "laptop|notebook", "mouse": "mouse", "remote": "remote control",
    "keyboard": "computer keyboard", "cell phone": "cellular telephone", "microwave": "microwave", "vase": "vase",
    "toaster": "toaster", "refrigerator": "refrigerator", "teddy bear": "teddy",
    "clock": "analog clock|digital clock|wall clock",
}  # fmt: skip


TEXT = """# Boxes of class maps

Does the brightest part of a class map find the object? Made by `python benchmarks/class_map_boxes.py DATA` in
{minutes:.0f} minutes of processor time.

The embedded network, not trained for boxes, on {n} annotated photos: the demo pictures, those photos of `coco_masks`
that show a class which ImageNet has too, and the first {birds} test pictures of Waterbirds by name. Photos whose
largest box covers less than {least:.0f} % of the view are left out. The map is that of the best-scoring class which the
object may have, so the class is known; of several boxes of that class the one that fits best counts. The top class is
right on {right} % of the photos.

The controls ({controls}) do not know the class, and two of them not even the picture; nor does the whole
picture as the box. MaxBoxAcc chooses the threshold on the very photos that it judges, for the controls as for the
others. All in per cent but IoU; intervals are 95 %: Wilson's at a fixed threshold, else over draws of photos, each draw
with the best thresholds of its own.

- V2: MaxBoxAccV2 (Choe et al. 2020), the mean over IoU 0.3, 0.5 and 0.7 of the share of photos on which a box of a
  bright part fits, at the best threshold for all photos; the ranking.
- less centre: V2 less that of the control `centre`, paired by photo.
- IoU 0.5: the same share at IoU 0.5 alone, and the threshold, one of 25.
- known, top-1: the metrics `gt-known-localisation` and `top-1-localisation`: the box of the largest part above 20 % of
  the map's highest value has an IoU of at least 0.5, and the top class is right too.
- IoU: the mean of the metric `box-iou`. The last columns are V2 on each set alone.
"""


@dataclass(frozen=True)
class Photo:
    """A photo as the model sees it, boxes (M, 4) of its object there, and the classes that the object may have."""

    x: Tensor
    boxes: Tensor
    classes: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One explainer: IoU at all thresholds (B, T) and, at the paper's threshold, the catalogue's metrics (B,)."""

    name: str
    overlaps: Tensor
    iou: Tensor
    known: Tensor
    top: Tensor


def photo(model: Classifier, path: Path, boxes: Sequence[Sequence[float]], classes: Sequence[int]) -> Photo | None:
    """The photo, where what the model sees of its largest box is large enough; boxes in pixels of the file."""
    image = open_picture(path)
    corners = to_model(torch.tensor(boxes, dtype=torch.float64).view(-1, 2, 2), image.size, model.preprocess)
    height, width = model.preprocess.size
    seen = corners.clamp(min=0).minimum(torch.tensor([width, height], dtype=torch.float64)).view(-1, 4).float()
    areas = (seen[:, 2] - seen[:, 0]) * (seen[:, 3] - seen[:, 1])
    if areas.max() < LEAST * height * width:
        return None
    return Photo(to_pixels(image, model.preprocess), seen[areas > 0], tuple(classes))


def demo_photos(model: Classifier) -> Iterator[Photo | None]:
    for picture in demo_pictures().pictures:
        boxes = [box for region in picture.regions or () for box in region.boxes]
        yield photo(model, picture.path, boxes, [model.index(label) for label in picture.labels])


def bird_photos(model: Classifier, root: Path) -> Iterator[Photo | None]:
    with open(root / "labels.csv", newline="", encoding="utf-8") as f:
        rows = sorted((r for r in csv.DictReader(f) if r["split"] == "test"), key=lambda r: r["file"])
    for r in rows[:BIRDS]:
        x, y, w, h = (float(r[f"box_{k}"]) for k in "xywh")
        yield photo(model, root / "images" / r["file"], [[x, y, x + w, y + h]], BIRD_CLASSES)


def coco_photos(model: Classifier, root: Path) -> Iterator[Photo | None]:
    """Each photo once, with the class of its largest box that ImageNet has too, and all boxes of that class."""
    lines = (root / "object_detection.yaml").read_text(encoding="utf-8").splitlines()
    names = dict(line.strip().split(": ", 1) for line in lines if line.startswith("  ") and ": " in line)
    for path in sorted((root / "images").rglob("*.jpg")):
        listed = next(iter(root.glob(f"boxes_yolo/**/{path.stem}.txt")), None)
        wide, high = open_picture(path).size
        by_word: dict[str, list[list[float]]] = {}
        for line in listed.read_text().splitlines() if listed else ():
            number, cx, cy, w, h = line.split()
            x, y, w, h = float(cx) * wide, float(cy) * high, float(w) * wide, float(h) * high
            by_word.setdefault(names[number], []).append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        known = [word for word in by_word if word in IMAGENET]
        if known:
            word = max(known, key=lambda k: max((b[2] - b[0]) * (b[3] - b[1]) for b in by_word[k]))
            yield photo(model, path, by_word[word], [model.index(label) for label in IMAGENET[word].split("|")])


def measured(model: Classifier, call: str, photos: Sequence[Photo], regions: Tensor) -> Row:
    """One explainer on all photos, for the best of the acceptable classes; "whole picture" is the map that is 1."""
    maps, target = torch.ones(len(photos), *model.preprocess.size), best_classes(model, photos)
    x = torch.stack([p.x for p in photos])
    if call != "whole picture":
        maps = explain(model, x, call, target).maps
    metrics = [
        measure(model, x, maps, name, target, regions=regions)
        for name in ("box-iou", "gt-known-localisation", "top-1-localisation")
    ]
    row = Row(call, box_overlaps(maps, [p.boxes for p in photos], THRESHOLDS, parts="all"), *metrics)
    print(call, max_box_accuracy(row.overlaps, THRESHOLDS).mean, flush=True)
    return row


def best_classes(model: Classifier, photos: Sequence[Photo]) -> ClassScore:
    with model.undisturbed(), torch.no_grad():
        logits = torch.cat([model(p.x[None]) for p in photos])
    classes = [max(p.classes, key=lambda k, i=i: float(logits[i, k])) for i, p in enumerate(photos)]
    return ClassScore(torch.tensor(classes))


def region(model: Classifier, boxes: Tensor) -> Tensor:
    """bool (H, W): pixels with their centre in a box."""
    inside = torch.zeros(model.preprocess.size, dtype=torch.bool)
    for x1, y1, x2, y2 in (boxes - 0.5).ceil().int().tolist():
        inside[y1:y2, x1:x2] = True
    return inside


def gain(row: Row, other: Row) -> str:
    """MaxBoxAccV2 less that of another, paired by picture, each with thresholds of its own in every draw."""
    least = torch.tensor(OVERLAPS)[:, None]
    fits = np.stack([(r.overlaps[:, None] >= least).double().numpy() for r in (row, other)], 1)
    n = len(fits)

    def differences(sums: np.ndarray) -> np.ndarray:
        means = sums.max(3).mean(2) / n
        return means[:, :1] - means[:, 1:]

    [interval] = interval_over_pictures(fits, differences, shares=False)
    value = float(differences(fits.sum(0)[None])[0, 0])
    return f"{100 * value:+.1f} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else ""


def percent(value: float, interval: tuple[float, float] | None) -> str:
    return f"{100 * value:.1f}" + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else "")


def share(values: Tensor) -> str:
    k, n = int(values.nansum()), len(values)
    return percent(k / n, wilson(k, n))


def cells(row: Row, centre: Row, parts: Sequence[slice]) -> str:
    best = max_box_accuracy(row.overlaps, THRESHOLDS)
    of_sets = [max_box_accuracy(row.overlaps[part], THRESHOLDS).mean for part in parts]
    shown = [
        percent(best.mean, best.mean_interval),
        "" if row is centre else gain(row, centre),
        f"{percent(best.accuracy[1], best.intervals[1])} at {best.threshold[1]:.2f}",
        share(row.known),
        share(row.top),
        f"{float(row.iou.nanmean()):.3f}",
        *(f"{100 * mean:.1f}" for mean in of_sets),
    ]
    return f"| {row.name} | {' | '.join(shown)} |"


def main(data: Path) -> None:
    began = time.process_time()
    model = load("demo")
    found = [
        ("demo photos", demo_photos(model)),
        ("COCO", coco_photos(model, data / "coco_masks")),
        ("Waterbirds", bird_photos(model, data / "waterbirds")),
    ]
    sets = [(name, [p for p in photos if p is not None]) for name, photos in found]
    photos = [p for _, of_set in sets for p in of_set]
    ends = np.cumsum([0, *(len(of_set) for _, of_set in sets)]).tolist()
    parts = [slice(a, b) for a, b in pairwise(ends)]
    regions = torch.stack([region(model, p.boxes) for p in photos])
    calls = [m.name for m in catalogue("explainers").values() if {"few-passes", "control"} & m.claims]
    rows = [measured(model, call, photos, regions) for call in ["whole picture", *calls]]
    centre = next(row for row in rows if row.name == "centre")
    rows.sort(key=lambda row: -max_box_accuracy(row.overlaps, THRESHOLDS).mean)
    right = share(torch.tensor([float(r) for r in answers(model, photos)]))
    controls = ", ".join(m.name for m in catalogue("explainers").values() if "control" in m.claims)
    names = " | ".join(f"{name} (n = {len(of_set)})" for name, of_set in sets)
    minutes = (time.process_time() - began) / 60
    text = TEXT.format(n=len(photos), minutes=minutes, right=right, controls=controls, birds=BIRDS, least=100 * LEAST)
    lines = [
        text,
        f"| explainer | V2 | less centre | IoU 0.5 | known | top-1 | IoU | {names} |",
        "|---|---|---|---|---|---|---|" + "---|" * len(sets),
        *(cells(row, centre, parts) for row in rows),
    ]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def answers(model: Classifier, photos: Sequence[Photo]) -> list[bool]:
    """Whether the top class of each photo is one that its object may have."""
    with model.undisturbed(), torch.no_grad():
        return [int(model(p.x[None]).argmax()) in p.classes for p in photos]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
