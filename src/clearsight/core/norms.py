"""Norms of perturbations: budgets, distances, projections and steepest directions, of pixels in [0, 1].

The change of a text is measured in characters: how many places of a one-hot tensor (B, letters, L) differ.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import Call, write_value
from clearsight.core.first_pass import same

Norm = Literal["linf", "l2"]
Measure = Literal["linf", "l2", "characters"]
NORMS: tuple[Norm, ...] = get_args(Norm)
# the budgets most often published, of 32 x 32 pixels for L2; a few characters of a text
USUAL: dict[Measure, float] = {"linf": 8 / 255, "l2": 0.5, "characters": 8.0}


def word(eps: float) -> str:
    """A budget as people write it, in three digits.

    >>> word(8 / 255), word(0.5), word(0.3 / 255)
    ('8/255', '0.5', '0.3/255')
    """
    if eps == 0:
        return "0"
    text = write_value(float(eps))
    if len(text) <= 7:
        return text
    return f"{255 * eps:.3g}/255" if eps < 0.3 else f"{eps:.3g}"


def norm_of(call: Call) -> Measure:
    """The norm in which an attack keeps its budget: its option ``norm``, or what it claims."""
    if "norm" in call.method.options:
        spelled: Norm = call.options.get("norm", call.method.options["norm"].default)
        return spelled
    if "characters" in call.method.claims:
        return "characters"
    return "l2" if "l2" in call.method.claims else "linf"


def perturbation_norm(move: Tensor, norm: Measure) -> Tensor:
    """The size of each change: (B, ...) -> (B,); of texts (B, letters, L) the number of places.

    >>> perturbation_norm(torch.tensor([[3.0, -4.0]]), "l2"), perturbation_norm(torch.tensor([[3.0, -4.0]]), "linf")
    (tensor([5.]), tensor([4.]))
    """
    if norm == "characters":
        return (move != 0).any(1).flatten(1).sum(1).to(move.dtype)
    flat = move.flatten(1)
    return flat.norm(dim=1) if norm == "l2" else flat.abs().amax(1)


def per_picture(values: Tensor, pictures: Tensor) -> Tensor:
    """One value for each picture, (n,), in a shape that goes with pictures (n, ...).

    >>> per_picture(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 1, 1, 1])
    """
    return values.view(-1, *[1] * (pictures.dim() - 1))


def project(raw: Tensor, x: Tensor, eps: float | Tensor, norm: Measure) -> Tensor:
    """A picture (B, ...) within eps of x and in [0, 1]: of Linf the nearest to raw; of L2 the move is made shorter.

    Of a text (B, letters, L) the first changes of eps whole characters are kept; see `_with_characters`.
    eps: one for all, or (B,); it may be infinite.
    """
    if norm == "linf" and isinstance(eps, float):
        return torch.clamp(raw, x - eps, x + eps).clamp_(0, 1)
    limit = per_picture(torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(len(x)), x)
    if norm == "characters":
        return _with_characters(raw, x, limit[:, 0])
    if norm == "l2":
        move = raw - x
        length = per_picture(perturbation_norm(move, norm), x).clamp_min(torch.finfo(x.dtype).tiny)
        raw = torch.where(length > limit, x + move * (limit / length), raw)  # a tensor of its own
    else:
        raw = torch.clamp(raw, x - limit, x + limit)
    return raw.clamp_(0, 1)


def _with_characters(raw: Tensor, x: Tensor, limit: Tensor) -> Tensor:
    """The text x (B, letters, L) with the first ``limit`` (B, 1) places that raw changes, each one whole character.

    A changed place becomes the letter that raw is most for.  Padding stays padding, and a character is never taken out.

    >>> x, raw = torch.eye(2)[None], torch.tensor([[[0.1, 0.9], [0.2, 0.3]]])
    >>> _with_characters(raw, x, torch.tensor([[1.0]])).tolist()
    [[[0.0, 0.0], [1.0, 1.0]]]
    """
    letters = torch.zeros_like(x).scatter_(1, raw.argmax(1, keepdim=True), 1)
    allowed = (raw.amax(1) > 0) & (x.amax(1) > 0)
    changed = (letters != x).any(1) & (raw != x).any(1) & allowed
    kept = changed & (changed.cumsum(1) <= limit)
    return torch.where(kept[:, None], letters, x)


def overstep(raw: Tensor, projected: Tensor, norm: Measure) -> float:
    """How far the worst of raw (B, ...) was outside of its budget: in pixels, or in characters that were put back."""
    if norm == "characters":
        return float(perturbation_norm(raw - projected, norm).max())
    if same(raw, projected):
        return 0.0
    lowest, highest = (raw - projected).aminmax()
    return max(float(highest), -float(lowest))


def steepest(g: Tensor, norm: Measure) -> Tensor:
    """The direction of size 1 in which a gradient (B, ...) rises most; nothing where it is nothing.

    >>> steepest(torch.tensor([[3.0, -4.0]]), "linf"), steepest(torch.tensor([[3.0, -4.0]]), "l2")
    (tensor([[ 1., -1.]]), tensor([[ 0.6000, -0.8000]]))
    """
    if norm == "linf":
        return g.sign()
    top = per_picture(g.flatten(1).abs().amax(1), g)  # its squares may be too small to hold
    g = torch.where(top > 0, g / top.clamp_min(torch.finfo(g.dtype).tiny), 0.0)
    return g / per_picture(perturbation_norm(g, norm).clamp_min(0.5), g)


def step_down(x: Tensor, g: Tensor, size: float, norm: Norm) -> Tensor:
    """Pictures x (B, ...) less a step of this size in the direction in which a gradient g (B, ...) rises most."""
    if norm == "linf":  # of a sign the product is exact, so that both in one round as one after the other
        return torch.add(x, steepest(g, norm), alpha=-size)
    return x - size * steepest(g, norm)


def within(x: Tensor, eps: float, norm: Norm, rows: Tensor | None = None) -> Tensor:
    """A random point within eps of each picture (n, ...), and in [0, 1]; rows (n,): whose draws these are.

    linf: even over the cube's part in [0, 1]; l2: even over the ball, then clipped to [0, 1].
    """
    if norm == "linf":
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        return low + (high - low) * rng.uniform(x, rows)
    way = steepest(rng.normal(x, rows), norm)
    radius = rng.uniform(x.flatten(1)[:, :1], rows).pow(1 / x.shape[1:].numel())
    return project(x + eps * per_picture(radius, x) * way, x, eps, norm)
