"""Whether a network still runs as it ran before: its operations are compared, and not computed.

That takes as long as Python takes for them, whatever the size of the network, where a pass of one picture takes the
time of its convolutions.
"""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from clearsight.core import passes
from clearsight.core.contents import settled_contents
from clearsight.core.model import Model
from clearsight.internals.expected_run import Comparing, Expected, Unanswered
from clearsight.internals.seen_run import Sight


def scores_alone(model: Model, x: Tensor) -> Tensor:
    """The scores of one picture x (1, C, *S) by itself, which is not counted as a pass."""
    with passes.uncounted(), torch.no_grad():
        return model.from_normalised(model.normalised(x))


def scores_seen(model: Model, x: Tensor) -> tuple[Tensor, Expected | None]:
    """The scores of one picture x (1, C, *S) by itself, and how the network ran; None: that cannot be seen.

    Hooks of others may ask for values at any time, and what a network keeps may be read later.
    """
    if passes.is_hooked(settled_contents(model.net).modules):
        return scores_alone(model, x), None
    with passes.uncounted(), torch.no_grad(), suppress(Exception):  # to see operations is in the way of some networks
        z = model.normalised(x)
        sight = Sight(model.net, z)
        scores = sight.look(lambda: model.from_normalised(z))
        run, scores = sight.run(scores), scores.clone()
        return scores, None if run.asked or sight.is_kept(run) else Expected(run)
    return scores_alone(model, x), None


def runs_as_before(model: Model, x: Tensor, before: Expected) -> bool:
    """Whether the network runs one picture x (1, C, *S) by the operations, tensors and constants of a run before."""
    with passes.uncounted(), torch.no_grad(), suppress(Exception):  # it runs in another way, or cannot be seen
        z = model.normalised(x)
        if z.stride() != before.run.strides[0] or passes.is_hooked(settled_contents(model.net).modules):
            return False
        steps, calls = Comparing(model.net, z, before, computed=False), Unanswered()
        with steps, calls:
            scores = model.from_normalised(z)
        run = steps.seen(scores, calls.asked)
        del scores
        return run == before.run and not steps.is_kept
    return False
