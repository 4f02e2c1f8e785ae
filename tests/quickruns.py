"""Training that takes a second: small photos, a recipe for them, and what to compare runs by."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import clearsight as cs
from clearsight.training.recipe import Recipe
from workshop import COLOURS, square

TINY = 'clearsight:plain-cnn(widths="6,8", padding=1, pools=2, norm=batch, head=average, dense="")'
QUICK = Recipe(arch=TINY, size=16, epochs=3, batch=6, augment="flip", lr="0.02", shares="0.6,0.2,0.2")
BASE = replace(QUICK, epochs=2, lr="auto", batch=32)  # of a search, in two epochs

# a process of its own runs the package that these tests import
OWN = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(cs.__file__).parents[1])}


def photos(folder: Path, each: int = 10) -> Path:
    """Squares of three colours, in class folders; so small that none passes for a near-duplicate of another."""
    for k, colour in enumerate(COLOURS):
        for i in range(each):
            path = folder / "photos" / colour / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            square(colour, 1000 * k + i)[0].resize((24, 24)).save(path)
    return folder / "photos"


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()
