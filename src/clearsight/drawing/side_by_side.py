"""An input and maps of it, for the evidence of a report: a picture and its maps beside each other, a text below."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from clearsight.drawing.heatmaps import overlay, photo, strip
from clearsight.drawing.text import runs
from clearsight.drawing.text_picture import stacked, text_picture


def side_by_side(
    x: Tensor,
    maps: Sequence[Tensor],
    signs: Sequence[bool],
    *,
    region: Tensor | None = None,
    text: str | None = None,
) -> Image.Image:
    """The input by itself, then each map (*S) over it.

    x (C, *S) in [0, 1].  signs: for each map whether its negative values are drawn.  region: bool (*S), outlined in a
    picture and underlined in a text.  text: its characters where the input is one; the maps then stand below it.
    """
    if text is None:
        drawn = (overlay(x, m, signed=signed, region=region) for m, signed in zip(maps, signs, strict=True))
        return strip([photo(x, region), *drawn])
    marks = [] if region is None else [(i, i + 1) for i in region.nonzero()[:, 0].tolist() if i < len(text)]
    plain = torch.zeros(len(text))
    lines = [(plain, False), *zip(maps, signs, strict=True)]
    return stacked([text_picture(runs(text, m, signed=signed, marks=marks)) for m, signed in lines])
