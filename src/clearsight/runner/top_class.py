"""The top class of pictures as a target, found by the explainer's own first pass where that runs the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from torch import Tensor

from clearsight.core.first_pass import FirstPass, awaiting
from clearsight.core.model import Model
from clearsight.core.passes import uncounted
from clearsight.core.targets import ClassScore, Of
from clearsight.internals.scores import finite, scores


class TopClass(ClassScore):
    """The logit of each picture's top class.

    Which class that is, is asked when it is needed.  By then most methods have run the pictures; for the others one
    more pass is made, which is not counted as theirs.
    """

    of: Of

    def __init__(self, model: Model, first: FirstPass) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_first", first)
        object.__setattr__(self, "of", "logit")

    @cached_property
    def index(self) -> Tensor:
        first: FirstPass = self.__dict__["_first"]
        model: Model = self.__dict__["_model"]
        if first.logits is not None:
            return finite(model, first.logits.float().cpu()).argmax(1)
        with uncounted():
            return scores(model, first.x).argmax(1)


@contextmanager
def top_class_of(model: Model, x: Tensor) -> Iterator[TopClass]:
    """The top class of pictures x (B, C, *S), to be asked for inside."""
    with awaiting(model.net, x) as first:
        yield TopClass(model, first)
