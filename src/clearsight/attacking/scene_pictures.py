"""The pictures of a place, with their boxes or class maps where these are named, as `attack_scenes` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from clearsight.attacking.scenes import Scenes
from clearsight.core.preprocess import Preprocess
from clearsight.data.box_folders import open_boxes
from clearsight.data.datasets import joined, open_each
from clearsight.data.images import open_picture, to_pixels
from clearsight.data.mask_folders import open_masks
from clearsight.data.records import Picture, Pictures
from clearsight.data.text_inputs import refuse_texts
from clearsight.data.truth_records import BoxTruth
from clearsight.data.truth_to_input import map_to_input, truth_to_input
from clearsight.errors import Refused
from clearsight.kinds.box_goals import Objects, objects
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter


def open_scenes(
    model: Detector | Segmenter,
    places: Sequence[str],
    *,
    boxes: Path | None = None,
    voc_base: int | None = None,
    masks: Path | None = None,
    split: str | None = None,
    pictures: int = 0,
    seed: int = 0,
) -> tuple[Scenes, tuple[str, ...]]:
    """Read pictures, and the truth about them -> them, and notes on how they were read and what was left out.

    Args:
        model: whose input the pictures become; its labels number the classes of the truth.
        places: folders of pictures, or pictures.
        boxes: annotations for a detector, as `open_boxes` reads them; they are of one folder.
        voc_base: what Pascal VOC calls the first pixel.
        masks: masks or outlines for a segmenter, as `open_masks` reads them; they are of one folder.
        split: which split to take.
        pictures: maximum number of pictures, drawn by seed; 0 takes all.
        seed: start of the draw.

    Refused: truth of the other kind of model, several places with one truth, and where no picture can be read.
    """
    data = _open(model, places, boxes, voc_base, masks, split)
    refuse_texts(data, f"a {model.kind}")
    chosen = list(data.pictures)
    if 0 < pictures < len(chosen):
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))[:pictures]
        chosen = [chosen[i] for i in sorted(order.tolist())]
    names, pixels, truths, broken = [], [], [], list(data.broken)
    for picture in chosen:
        try:
            x, truth = _read(picture, model.preprocess)
        except Refused as e:
            broken.append((picture.name, str(e)))
            continue
        names.append(picture.name)
        pixels.append(x)
        truths.append(truth)
    if not pixels:
        raise Refused(f"none of the pictures can be read ({'; '.join(': '.join(one) for one in broken[:3])})")
    known: Objects | Tensor | None = None
    if boxes is not None:
        known = objects([t for t in truths if isinstance(t, BoxTruth)])
    elif masks is not None:
        known = torch.stack([t for t in truths if isinstance(t, Tensor)])
    notes = (*data.notes, *(f"left out {name}: {why}" for name, why in broken))
    return Scenes(torch.stack(pixels), tuple(names), known, " ".join(places)), notes


def _open(
    model: Detector | Segmenter,
    places: Sequence[str],
    boxes: Path | None,
    voc_base: int | None,
    masks: Path | None,
    split: str | None,
) -> Pictures:
    """The pictures of all places, with their truth where it is named."""
    if isinstance(model, Detector) and masks is not None:
        raise Refused("--masks is for a segmenter, and the model is a detector", "name boxes: --boxes")
    if isinstance(model, Segmenter) and (boxes is not None or voc_base is not None):
        raise Refused("--boxes and --voc-base are for a detector, and the model is a segmenter", "name masks: --masks")
    if boxes is None and masks is None:
        return joined(open_each(places, split=split))
    if len(places) != 1:
        raise Refused(f"{len(places)} places with one truth", "name the folder of the pictures")
    if boxes is not None:
        return open_boxes(places[0], boxes, model.labels, split=split, voc_base=voc_base)
    return open_masks(places[0], masks, model.labels, split=split)


def _read(picture: Picture, preprocess: Preprocess) -> tuple[Tensor, BoxTruth | Tensor | None]:
    """The picture as the model takes it, and its truth in the same frame."""
    x = to_pixels(open_picture(picture.path), preprocess)
    if picture.boxes is not None:
        truth = truth_to_input(picture.boxes, preprocess)
        return x, truth.keep(~truth.crowd)
    return x, None if picture.pixels is None else map_to_input(picture.pixels(), preprocess)
