"""Class maps over their picture: what is true, what was said, and where the two differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clearsight.drawing.box_picture import with_legend
from clearsight.drawing.charts import kind
from clearsight.drawing.heatmaps import enlarged, photo

WRONG = "#9d3f86"
MENDED, BROKEN = "#0a5c36", WRONG
GROUND = "#76808c"  # of a class of background, which most pixels have
NOT_JUDGED = 255
_OPAQUE = 0.6
_SIDE = 224
_GAP = 8
_MOST = 7  # classes that a legend names


def class_colour(label: int, ground: int | None = None) -> str:
    """The colour of a class; grey for that of background.  More than eight classes share colours.

    >>> class_colour(0, ground=0), class_colour(1, ground=0) == class_colour(9, ground=0)
    ('#76808c', True)
    """
    return GROUND if label == ground else kind(label)[0]


def class_map_pictures(x: Tensor, said: Tensor, truth: Tensor, ground: int | None) -> list[Image.Image]:
    """A picture x (C, H, W) under its true classes (H, W), under those that were said, and with what is wrong.

    Pixels that are not judged stay grey in the first and the last.  ground: the class of background, which is left
    without colour, where there is one.
    """
    judged = truth != NOT_JUDGED
    wrong = judged & (said != truth)
    return [
        _over(x, [(truth == k, class_colour(k, ground)) for k in _shown(truth, ground)]),
        _over(x, [(said == k, class_colour(k, ground)) for k in _shown(said, ground)]),
        _over(x, [(wrong, WRONG)]),
    ]


def plain_picture(x: Tensor) -> Image.Image:
    """A picture x (C, H, W) as it is, in the size of the others."""
    return enlarged(photo(x).convert("RGB").resize((x.shape[2], x.shape[1])), _SIDE)


def change_pictures(x: Tensor, before: Tensor, after: Tensor, truth: Tensor, ground: int | None) -> list[Image.Image]:
    """A picture x (C, H, W) under its true classes (H, W), with what changed, and under the classes before and after.

    What changed: pixels that were wrong and are right, and the reverse.  ground: as in `class_map_pictures`.
    """
    judged = truth != NOT_JUDGED
    was, is_now = judged & (before == truth), judged & (after == truth)
    true, said_before, _ = class_map_pictures(x, before, truth, ground)
    _, said_after, _ = class_map_pictures(x, after, truth, ground)
    return [true, _over(x, [(is_now & ~was, MENDED), (was & ~is_now, BROKEN)]), said_before, said_after]


def with_class_legend(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    maps: Sequence[Tensor],
    ground: int | None,
    marked: Sequence[tuple[str, str, bool]] = (("wrong", WRONG, False),),
) -> Image.Image:
    """Pictures in rows of two above what their colours mean: the classes that the maps show, and marked pixels.

    marked: further entries of the legend, as `with_legend` takes them.
    """
    shown = [k for k in torch.unique(torch.cat([m.flatten() for m in maps])).tolist() if k not in (NOT_JUDGED, ground)]
    entries = [(labels[k], class_colour(k, ground), False) for k in shown[:_MOST]]
    if len(shown) > _MOST:
        entries.append((f"and {len(shown) - _MOST} more", "#ffffff", False))
    wide, high = images[0].width + _GAP, images[0].height + _GAP
    paper = Image.new("RGB", (2 * wide - _GAP, high * ((len(images) + 1) // 2) - _GAP), "white")
    for n, image in enumerate(images):
        paper.paste(image, (n % 2 * wide, n // 2 * high))
    return with_legend(paper, [*entries, *marked])


def _shown(classes: Tensor, ground: int | None) -> list[int]:
    found: list[int] = torch.unique(classes).tolist()
    return [k for k in found if k not in (NOT_JUDGED, ground)]


def _over(x: Tensor, parts: Sequence[tuple[Tensor, str]]) -> Image.Image:
    """A pale grey picture, coloured where each part (H, W) is."""
    grey = 0.35 + 0.65 * np.asarray(photo(x).convert("L").resize((x.shape[2], x.shape[1])), dtype=np.float64) / 255
    pixels = np.repeat(grey[..., None], 3, 2)
    for where, colour in parts:
        tint = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        inside = where.numpy()
        pixels[inside] = (1 - _OPAQUE) * pixels[inside] + _OPAQUE * tint
    return enlarged(Image.fromarray((pixels * 255).round().astype(np.uint8)), _SIDE)
