"""Maps that training can change: inside, what explainers make keeps its graph, back to the weights of the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from clearsight.core.catalogue import Call, Method, catalogue
from clearsight.core.model import Model
from clearsight.errors import Refused

CLAIM = "learnable"  # of an explainer: inside `keeping_graph` the gradient of its map in the weights is right

_kept: ContextVar[bool] = ContextVar("kept", default=False)


@contextmanager
def keeping_graph() -> Iterator[None]:
    """Inside, maps have a gradient in the weights: nothing is detached, and gradients are differentiable themselves."""
    token = _kept.set(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        _kept.reset(token)


def is_kept() -> bool:
    return _kept.get()


def held(t: Tensor) -> Tensor:
    """The tensor itself where its graph is kept, else without it."""
    return t if _kept.get() else t.detach()


def over(t: Tensor) -> Tensor | None:
    """Where a result may be written (`out=`): over t, which nobody reads again, or nowhere where a graph is kept."""
    return None if _kept.get() else t


def single(t: Tensor) -> Tensor:
    """In single precision, or as exact as the network is where its graph is kept."""
    return t if _kept.get() else t.float()


def must_learn(call: Call) -> None:
    """Refuse, where the graph is kept, an explainer whose map has no gradient in the weights, or a wrong one."""
    if not _kept.get() or CLAIM in call.method.claims:
        return
    able = [name for name, m in catalogue("explainers").items() if CLAIM in m.claims]
    raise Refused(
        f"explainer {call.method.name}: its map has no gradient in the network's weights that training could follow, "
        f"because {_why_not(call.method)}",
        f"name one that has: {', '.join(able)}",
    )


_WHY_NOT = {
    "ablation-cam": "it weights channels by scores of a pass for each, of which no graph is kept",
    "deep-lift": "its slopes between two pictures are worked out of values that are cut from the weights, which is a "
    "limit of Clearsight's code, not of the method",
    "extremal-perturbation": "it is the end of many steps of a search",
    "guided-integrated-gradients": "its path is a choice of pixels by the order of their gradients, which jumps",
    "libra-cam": "it weights channels by scores of changed pictures, of which no graph is kept",
    "meaningful-perturbation": "it is the end of many steps of a search",
    "score-cam": "it weights channels by scores of a pass for each, of which no graph is kept",
    "xrai": "it ranks regions of the picture, and a rank jumps",
}


def _why_not(explainer: Method) -> str:
    """Why the map of an explainer has no gradient in the weights, in half a sentence."""
    if "control" in explainer.claims:
        return "it does not depend on the network"
    if "scores-only" in explainer.claims:
        return "it reads the scores of many changed pictures, of which no graph is kept"
    return _WHY_NOT.get(explainer.name, f"it does not claim {CLAIM}")


@contextmanager
def at_rest(model: Model) -> Iterator[None]:
    """Inside, a network that is being trained is undisturbed, as every other one that is measured already is."""
    if not _kept.get():
        yield
        return
    token = _kept.set(False)
    try:
        with model.undisturbed():
            yield
    finally:
        _kept.reset(token)
