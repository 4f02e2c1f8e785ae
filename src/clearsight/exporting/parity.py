"""The same pictures through the model and through its file: what both answer, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clearsight.auditing.case import Case
from clearsight.core.classifier import Classifier
from clearsight.core.model import Model
from clearsight.core.similarity import spearman
from clearsight.core.targets import ClassScore
from clearsight.data.images import open_picture, to_bytes
from clearsight.data.records import Picture
from clearsight.engines.manifest import MAP, PROBABILITIES, VALUES
from clearsight.exporting.whole_file import Bytes, WholeFile
from clearsight.internals.layers import enlarge
from clearsight.runner.run import explain

_MAPS = 50  # pictures whose maps are compared
BATCH = 3  # of one picture, which must be answered as that picture alone is
_SAME_VALUE = 0.01  # of the range of a value over the pictures: two answers of a regressor are the same


@dataclass(frozen=True)
class Parity:
    """What a model and its file answer for the same N pictures.

    Args:
        before: what the model says of each class, (N, K): probabilities or values.
        after: what the file says.
        levels: the largest difference of the file's pixels from the model's, picture by picture, of 255.
        off: the share of pixels that differ at all.
        correlations: the rank correlation of the map of the file's top class with the model's, for some pictures.
        batch: the largest difference between a picture alone and the same picture three times.
    """

    before: Tensor
    after: Tensor
    levels: npt.NDArray[np.float64]
    off: float
    correlations: npt.NDArray[np.float64]
    batch: float

    @property
    def n(self) -> int:
        """The number of pictures."""
        return len(self.after)

    @property
    def apart(self) -> Tensor:
        """(N,) the largest difference over the classes."""
        return (self.after - self.before).abs().amax(1)


def decoded(picture: Picture, model: Model) -> Bytes:
    """A picture as the file takes it, (H, W, C) of 8 bits."""
    image = open_picture(picture.path).convert("L" if model.preprocess.channels == 1 else "RGB")
    values: Bytes = np.asarray(image).reshape(image.height, image.width, model.preprocess.channels)
    return values


def compare(case: Case, file: WholeFile, layer: str | None) -> Parity:
    """Ask the file about every picture of a case, one at a time, as its callers will.

    layer: that of the file's map, or None.
    """
    model, after, levels, off, correlations = case.model, [], [], [], []
    chances = VALUES if model.scores == "values" else PROBABILITIES
    drawn = set(case.sample(range(len(case.pictures)), _MAPS))
    batch = 0.0
    case.progress("comparing", 0, len(case.pictures))
    for row, picture in enumerate(case.pictures):
        given = decoded(picture, model)[None]
        found = file.run(given)
        after.append(torch.from_numpy(found[chances]).float())
        apart = levels_apart(file, given, picture, model)
        levels.append(float(apart.max()))
        off.append(float((apart > 0).mean()))
        if layer is not None and row in drawn:
            correlations.append(_correlation(case, row, found, int(after[-1].argmax()), layer))
        if row == 0:
            thrice = file.run(np.repeat(given, BATCH, 0))[chances]
            batch = float(np.abs(thrice - found[chances]).max())
        case.progress("comparing", row + 1, len(case.pictures))
    before = model.chances(case.logits.float())
    return Parity(before, torch.cat(after), np.array(levels), float(np.mean(off)), np.array(correlations), batch)


def levels_apart(file: WholeFile, given: Bytes, picture: Picture, model: Model) -> npt.NDArray[Any]:
    """How far the file's pixels of a picture lie from the model's, of 255."""
    wanted = to_bytes(open_picture(picture.path), model.preprocess).numpy()
    apart: npt.NDArray[Any] = np.abs(np.round(file.pixels(given)[0] * 255) - wanted)
    return apart


def _correlation(case: Case, row: int, found: dict[str, Any], top: int, layer: str) -> float:
    x = case.pixels([row])
    wanted = explain(case.model, x, f"cam(layer={layer})", ClassScore(top)).maps[0]
    given = enlarge(torch.from_numpy(found[MAP]).float(), x.shape[2:])[0]
    return spearman(given.double().numpy(), wanted.double().numpy())


def same_answers(model: Classifier, before: Tensor, after: Tensor) -> npt.NDArray[np.bool_]:
    """(N,) whether both answer the same: the same top class, labels, or values up to a hundredth of their range."""
    if model.scores == "multi-label":
        same = ((before > 0.5) == (after > 0.5)).all(1)
    elif model.scores == "values":
        span = (before.amax(0) - before.amin(0)).clamp_min(torch.finfo(before.dtype).tiny)
        same = ((before - after).abs() <= _SAME_VALUE * span).all(1)
    else:
        same = before.argmax(1) == after.argmax(1)
    result: npt.NDArray[np.bool_] = same.numpy()
    return result


def hits(case: Case, chances: Tensor) -> npt.NDArray[np.bool_]:
    """(labelled,) whether the top class is acceptable."""
    rows = case.labelled
    right: npt.NDArray[np.bool_] = case.truth[rows].gather(1, chances[rows].argmax(1)[:, None])[:, 0].numpy()
    return right


def worst(parity: Parity, most: int = 8) -> Sequence[int]:
    """The pictures on which the two differ most, the largest difference first."""
    return [int(i) for i in parity.apart.argsort(descending=True)[:most]]
