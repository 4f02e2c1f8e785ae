"""Whether a map sums to what it promises: the target's own change, against which alone what is missing is held.

Never against the map: where an operation hands on too much, the map grows with its error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clearsight.core import diagnostics
from clearsight.core.targets import Target
from clearsight.errors import Refused
from clearsight.explainers.common.one_output import is_one_output

LOST = 0.01  # what an exact method may miss of the target's change
ROUNDED = (
    1e-4  # and of the size of the scores on top, for what they are rounded to: a thousand times float32's last bit
)
LEAST = 1e-3  # of that size: no smaller change is divided by, so that rounding alone is no large share


def size_of(target: Target, *logits: Tensor) -> Tensor:
    """How large the scores are that a target reads, (B,), in its units: what its change is rounded against.

    logits: outputs (B, ...) of the pictures and of what they are compared with.  Of a classifier the largest logit of a
    row, times the target's slopes, for logits are sums that are rounded together; of other kinds, whose outputs have
    several units, each output times its own slope.  Or the target itself, where that is larger.
    """
    if is_one_output(target):  # its slope is 1
        return torch.stack([rows.abs().amax(1) for rows in logits]).amax(0)
    sizes = []
    for rows in logits:
        at = rows.detach().clone().requires_grad_()
        with torch.enable_grad():
            score = target(at)
            (g,) = torch.autograd.grad(score.sum(), at)
        together = g.abs().sum(1) * rows.abs().amax(1) if rows.dim() == 2 else (g * rows).abs().flatten(1).sum(1)
        sizes += [together.detach(), score.detach().abs()]
    return torch.stack(sizes).amax(0)


def note_missing(missing: Tensor, change: Tensor, size: Tensor) -> None:
    """Keep what maps' sums have too much, (B,), also as a share of the target's change (of at least LEAST of size)."""
    diagnostics.note("completeness residual", missing)
    diagnostics.note(diagnostics.SHARE, missing / torch.maximum(change.abs(), LEAST * size).clamp_min(1e-30))


def note_or_refuse(name: str, missing: Tensor, change: Tensor, size: Tensor, instead: str) -> None:
    """For a method that is exact: keep what is missing, (B,), and refuse maps that miss more than rounding explains."""
    note_missing(missing, change, size)
    most = LOST * change.abs() + ROUNDED * size
    bad = ~(missing.abs() <= most)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise Refused(
            f"{name} is not exact for this network: the map sums to {float(change[i] + missing[i]):.3g}, but the "
            f"target changes by {float(change[i]):.3g}; {instead}"
        )
