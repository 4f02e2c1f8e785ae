"""Brown, Mane, Roy, Abadi & Gilmer 2017, arXiv:1712.09665; the transformations are Athalye et al., arXiv:1707.07397."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from clearsight.attacks.common.lessons import learned, sorted_lessons
from clearsight.attacks.common.pasting import Cut, Shape, cut, pasted
from clearsight.core import rng
from clearsight.core.catalogue import method
from clearsight.core.model import Model
from clearsight.core.output import write_whole
from clearsight.core.targets import Goal, as_goal
from clearsight.core.validation import check_pixels
from clearsight.errors import Refused

DPI = 300


@method(paper="arXiv:1712.09665", claims="linf unbounded pictures-only stochastic")
def patch(
    model: Model,
    x: Tensor,
    goal: Goal,
    *,
    eps: float,
    lessons: tuple[Tensor, Goal],
    share: float = 0.1,
    shape: Shape = "disc",
    rotation: float = 45.0,
    scale: float = 0.2,
    steps: int = 20,
    step: float = 0.1,
) -> Tensor:
    """A patch to stick into any picture, learned from other pictures and pasted at a random place of these.

    x (B, C, *S) in [0, 1], pictures alone -> the same shape.  eps plays no part: the patch replaces all pixels that it
    covers, and no other pixel changes.  lessons: pictures (N, C, *S) and their goal, from which the patch is learned;
    nothing is learned from x.

    Place, rotation and size are drawn for every picture and, during learning, anew each time a lesson is seen.  With
    Become it is a patch for one class.

    Args:
        share: share of the picture's area that the patch covers where it is largest, above 0.
        shape: disc or square.
        rotation: maximum rotation in degrees, either way, from 0 to 180.
        scale: share of its side by which the patch may be smaller, from 0 (always as large) to below 1.
        steps: number of passes through all lessons, from 1; each costs two passes forward and one back for each lesson.
        step: change of a pixel of the patch in the first step, above 0 and up to 1; it falls linearly to 0.

    Refused: inputs without height and width, and a patch too large to lie within the picture.

    Source: Brown et al. 2017; the transformations are those of Athalye et al., arXiv:1707.07397.

    On a model of brightness a square that covers all of the picture is black:

    >>> from clearsight.testing import pooled
    >>> from clearsight.core.targets import Misclassify
    >>> model, x = pooled([[4.0], [0.0]]), torch.full((2, 1, 2, 2), 0.5)
    >>> lessons = (x, Misclassify(torch.tensor([0, 0])))
    >>> options = {"share": 1.0, "shape": "square", "rotation": 0.0, "scale": 0.0}
    >>> patch(model, x[:1], lessons[1][:1], eps=1.0, lessons=lessons, **options).tolist()
    [[[[0.0, 0.0], [0.0, 0.0]]]]
    """
    of = _outline(model, x, share, shape, rotation, scale, steps, step)
    pictures = sorted_lessons(model, lessons, x, "patch")
    learned_patch = _learned(model, pictures, of, rotation, scale, steps, step, torch.initial_seed())
    return pasted(x, learned_patch, of, _chance(x), rotation=rotation, scale=scale)


def learned_patch(
    model: Model,
    x: Tensor,
    goal: Tensor | Goal,
    *,
    share: float = 0.1,
    shape: Shape = "disc",
    rotation: float = 45.0,
    scale: float = 0.2,
    steps: int = 20,
    step: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """Return the patch (C, p, p) in [0, 1] that the attack with the same options learns from lessons x (N, C, H, W).

    goal: right classes (N,), or a Goal.  ``printable`` writes the patch to a file.
    """
    x = check_pixels(model, x)
    of = _outline(model, x, share, shape, rotation, scale, steps, step)
    with model.undisturbed():
        pictures = sorted_lessons(model, (x, as_goal(goal)), x, "patch")
        return _learned(model, pictures, of, rotation, scale, steps, step, seed).cpu()


def printable(patch: Tensor, path: str | Path, *, cm: float = 10.0, shape: Shape = "disc") -> Path:
    """Write a patch (C, p, p) of one or three channels as a PNG that prints ``cm`` wide, at 300 dots per inch.

    Outside the shape the PNG is transparent, which prints as paper.  At 2.54 cm it is 300 dots wide:

    >>> from tempfile import mkdtemp
    >>> with Image.open(printable(torch.rand(3, 7, 7), Path(mkdtemp()) / "patch.png", cm=2.54)) as image:
    ...     image.size
    (300, 300)
    """
    if patch.dim() != 3 or patch.shape[0] not in (1, 3) or patch.shape[1] != patch.shape[2]:
        raise Refused(
            f"a patch of shape {tuple(patch.shape)} cannot be printed: it must be square, with 1 or 3 channels"
        )
    side = round(cm / 2.54 * DPI)
    if not 1 <= side <= 10000:
        raise Refused(f"a printed patch must be 0.01 to 84 cm wide, not {cm:g}")
    large = interpolate(patch.detach().cpu().float()[None], (side, side), mode="bilinear", align_corners=False)[0]
    away = (torch.arange(side) + 0.5) / side * 2 - 1
    inside = (away[:, None] ** 2 + away**2 <= 1) if shape == "disc" else torch.ones(side, side, dtype=torch.bool)
    four = torch.cat([large.clamp(0, 1).expand(3, side, side), inside[None].float()])
    image = Image.fromarray((four * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(), "RGBA")
    return write_whole(Path(path), lambda f: image.save(f, "PNG", dpi=(DPI, DPI)))


def _outline(
    model: Model, x: Tensor, share: float, shape: Shape, rotation: float, scale: float, steps: int, step: float
) -> Cut:
    if x.dim() != 4:
        raise Refused("patch needs pictures with height and width: it does not take sequences")
    if not 0 <= rotation <= 180:
        raise Refused(f"patch(rotation={rotation:g}): rotation must be from 0 to 180 degrees")
    if not 0 <= scale < 1:
        raise Refused(f"patch(scale={scale:g}): scale must be at least 0 (always the same size) and below 1")
    if steps < 1 or not 0 < step <= 1:
        raise Refused(f"patch(steps={steps}, step={step:g}): steps must be at least 1, step above 0 and at most 1")
    return cut(share, shape, tuple(x.shape[2:]))


def _learned(
    model: Model,
    lessons: tuple[Tensor, Goal],
    of: Cut,
    rotation: float,
    scale: float,
    steps: int,
    step: float,
    seed: int,
) -> Tensor:
    """Learn the patch from mid-grey, along the sign of a running mean of the gradients with decay 0.9."""
    mean = torch.zeros(lessons[0].shape[1], of.pixels, of.pixels, device=lessons[0].device)

    def wear(z: Tensor, thing: Tensor, rows: Tensor) -> Tensor:
        return pasted(z, thing, of, _chance(z, rows), rotation=rotation, scale=scale)

    def change(thing: Tensor, way: Tensor, done: float) -> Tensor:
        total = way.abs().sum()
        mean.mul_(0.9).add_(way / total.clamp_min(torch.finfo(way.dtype).tiny))
        return (thing - step * (1 - done) * mean.sign()).clamp(0, 1)

    first = torch.full_like(mean, 0.5)
    return learned(model, lessons, first, wear, change, steps=steps, seed=seed & (2**63 - 1))


def _chance(x: Tensor, rows: Tensor | None = None) -> Tensor:
    """Four random numbers in [0, 1) for each picture, for ``pasted``."""
    return rng.uniform(x.flatten(1)[:, :4] if x[0].numel() >= 4 else x.new_empty(len(x), 4), rows)
