"""What is explained of each kind of model where nothing else is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core.model import Model
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.kinds.box_targets import BoxOf, BoxScore, Match
from clearsight.kinds.candidates import candidates
from clearsight.kinds.detections import detections
from clearsight.kinds.region_targets import RegionOf, RegionScore

BACKGROUND = ("background", "__background__", "_background_", "unlabelled", "unlabeled", "void")


def usual_target(model: Model, outputs: Tensor, *, chance: bool = False) -> Target:
    """The surest box of each picture for a detector; for a segmenter the pixels of the class that most of them have.

    Background counts only where there is nothing else.  The box and the pixels are those of the clean pictures, and
    stay.

    Args:
        model: a detector or a segmenter.
        outputs: its outputs for the pictures.
        chance: for metrics, which compare what is left: the score or the probability, from 0 to 1, is asked for, of
            whichever candidate stands for the box then.  Else the logit, of the box's own candidate, which is smooth.

    Refused: classifiers, whose target is the top class.
    """
    if model.kind == "detector":
        return _surest_box(outputs, "score", "matched") if chance else _surest_box(outputs, "class", "raw")
    if model.kind == "segmenter":
        return _largest_region(model, outputs, "prob" if chance else "logit")
    raise Refused(f"a {model.kind} has no box and no region: give cs.ClassScore(model.index(name))")


def _surest_box(outputs: Tensor, of: BoxOf, match: Match) -> BoxScore:
    """Of a picture without a detection, the candidate whose score is highest."""
    boxes, classes, raw = [], [], []
    scores = candidates(outputs).scores
    for i, found in enumerate(detections(outputs, most=1)):
        if len(found):
            k, n = int(found.labels[0]), int(found.raw[0])
        else:
            n, k = divmod(int(scores[i].argmax()), scores.shape[2])
        boxes.append(outputs[i, n, :4].float().cpu())
        classes.append(k)
        raw.append(n)
    return BoxScore(torch.stack(boxes), torch.tensor(classes), torch.tensor(raw), of, match)


def _largest_region(model: Model, outputs: Tensor, of: RegionOf) -> RegionScore:
    predicted = outputs.argmax(1).cpu()
    background = [k for k, label in enumerate(model.labels) if label.strip().lower() in BACKGROUND]
    counts = torch.stack([(predicted == k).flatten(1).sum(1) for k in range(outputs.shape[1])], 1)
    first = counts.clone()
    first[:, background] = 0
    counts = torch.where(first.any(1, keepdim=True), first, counts)
    classes = counts.argmax(1)
    return RegionScore(classes, predicted == classes[:, None, None], of)
