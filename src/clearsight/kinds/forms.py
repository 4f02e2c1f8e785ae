"""Outputs of detectors and segmenters in another form than the one that is read, and the line that mends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

FormCode = Literal["labels-miscounted", "output-axes", "output-of-one-logit", "output-chosen", "output-shape"]


@dataclass(frozen=True)
class WrongForm:
    """What is wrong with the shape of outputs, what to do about it, and for programs the kind of problem."""

    what: str
    mend: str
    code: FormCode


def detector_form(out: Tensor, pictures: int, classes: int) -> WrongForm | None:
    """What is wrong with the shape of candidates; None of (B, N, 5 + K).

    Args:
        out: what the network returned for so many pictures.
        pictures: number of pictures B.
        classes: number of labels K.

    >>> import torch
    >>> detector_form(torch.zeros(2, 8, 100), 2, 3).mend
    'end forward with out.transpose(1, 2)'
    """
    columns, shape = 5 + classes, tuple(out.shape)
    if out.dim() == 3 and len(out) == pictures and shape[2] == columns:
        return None
    what = f"the network's output has shape {shape}, not ({pictures}, N, {columns})"
    if out.dim() == 3 and len(out) == pictures and shape[1] == columns:
        return WrongForm(what, "end forward with out.transpose(1, 2)", "output-axes")
    if out.dim() > 3 and len(out) == pictures and shape[-1] == columns:
        return WrongForm(what, "end forward with out.flatten(1, -2): one row for every candidate", "output-axes")
    if out.dim() != 3 or len(out) != pictures or shape[2] < 6:
        mend = (
            f"a detector of {classes} classes gives four sides, an objectness and a logit per class for every candidate"
        )
        return WrongForm(what, mend, "output-shape")
    if shape[2] == columns - 1:
        mend = (
            "if it gives no objectness, put 50 there: "
            "torch.cat([out[..., :4], torch.full_like(out[..., :1], 50.0), out[..., 4:]], 2)"
        )
        return WrongForm(f"{what}: one number too few for every candidate", mend, "labels-miscounted")
    held = f"{what}: it holds {shape[2] - 5} class logits, and there are {classes} labels"
    if shape[2] == columns + 1:
        mend = (
            "the background has no column: leave it out, torch.cat([out[..., :5], out[..., 6:]], 2) where it is "
            f"class 0; or give labels=[...] with {shape[2] - 5} names"
        )
        return WrongForm(f"{held}, as if the background were counted", mend, "labels-miscounted")
    return WrongForm(
        held, f"give labels=[...] (--labels FILE) with {shape[2] - 5} names, background left out", "labels-miscounted"
    )


def segmenter_form(out: Tensor, pictures: int, classes: int) -> WrongForm | None:
    """What is wrong with the shape or the type of a segmenter's logits; None of (B, K, h, w).

    Args:
        out: what the network returned for so many pictures.
        pictures: number of pictures B.
        classes: number of labels K.

    >>> import torch
    >>> segmenter_form(torch.zeros(2, 32, 32, 3), 2, 3).mend
    'end forward with out.permute(0, 3, 1, 2)'
    """
    shape = tuple(out.shape)
    what = f"the network's output has shape {shape}, not ({pictures}, {classes}, h, w)"
    if out.dim() not in (3, 4) or len(out) != pictures:
        return WrongForm(
            what, f"a segmenter of {classes} classes gives a logit per class for every pixel", "output-shape"
        )
    one = out.dim() == 3 or (shape[1] == 1 and classes > 1)
    if not out.is_floating_point() or (one and out.numel() and bool((out == out.round()).all())):
        mend = "return the logits (B, K, h, w) themselves: no gradient goes back through the argmax of them"
        return WrongForm(f"the network returns the numbers of the chosen classes, {shape}", mend, "output-chosen")
    if one and classes == 2:
        mend = (
            "let forward return two: z = out" + (".unsqueeze(1)" if out.dim() == 3 else "") + "; "
            "torch.cat([-z / 2, z / 2], 1) says the same of the second label against the first"
        )
        return WrongForm(f"{what}: one logit for every pixel", mend, "output-of-one-logit")
    if out.dim() == 3:
        return WrongForm(
            what, f"a segmenter of {classes} classes gives a logit per class for every pixel", "output-shape"
        )
    if shape[1] == classes:
        return None
    if shape[3] == classes:
        return WrongForm(what, "end forward with out.permute(0, 3, 1, 2)", "output-axes")
    more = "; the background has a label too" if shape[1] == classes + 1 else ""
    mend = f"give labels=[...] (--labels FILE) with {shape[1]} names, in the order of the logits{more}"
    return WrongForm(what, mend, "labels-miscounted")
