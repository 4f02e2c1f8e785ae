"""Small pictures of a red and a blue rectangle on noise, their boxes as COCO JSON and their classes as PNGs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (64, 96)  # height, width
COLOURS = {"red": (255, 30, 30), "blue": (30, 30, 255)}


def drawn(folder: Path, n: int = 8, *, masks: bool = False, seed: int = 0) -> Path:
    """A folder of n pictures in images/, and annotations/instances.json, or masks/ of 0 ground, 1 red, 2 blue."""
    height, width = SIZE
    g = np.random.default_rng(seed)
    images, boxes = [], []
    for part in ("images", "masks" if masks else "annotations"):
        (folder / part).mkdir(parents=True)
    for i in range(n):
        pixels = (g.random((height, width, 3)) * 60 + 60).astype(np.uint8)
        classes = np.zeros((height, width), np.uint8)
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": width, "height": height})
        for k, colour in enumerate(COLOURS.values(), 1):
            w, h = (int(v) for v in g.integers(12, 28, 2))
            x, y = int(g.integers(0, width - w)), int(g.integers(0, height - h))
            pixels[y : y + h, x : x + w], classes[y : y + h, x : x + w] = colour, k
            box = {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
            boxes.append({"id": len(boxes) + 1, "image_id": i + 1, "category_id": k} | box)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        if masks:
            Image.fromarray(classes).save(folder / "masks" / f"{i}.png")
    if not masks:
        categories = [{"id": k, "name": name} for k, name in enumerate(COLOURS, 1)]
        record = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations" / "instances.json").write_text(json.dumps(record))
    return folder
