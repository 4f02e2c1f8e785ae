"""The top class of pictures as a target, found by the explainer's own first pass where that runs the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from clearsight.core.first_pass import FirstPass, awaiting
from clearsight.core.model import Model
from clearsight.core.passes import uncounted
from clearsight.core.targets import ClassScore, Of, Rows
from clearsight.internals.scores import finite, scores


class TopClass(ClassScore):
    """The logit of each picture's top class.

    Which class that is, is asked when it is needed.  By then most methods have run the pictures; for the others, and
    for pictures about which their pass left a doubt, one more pass is made, which is not counted as theirs.
    """

    of: Of

    def __init__(self, model: Model, first: FirstPass, rows: Tensor | None = None) -> None:
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_first", first)
        object.__setattr__(self, "_some", rows)  # (n,), the pictures that it is about; None: all
        object.__setattr__(self, "of", "logit")

    def __getitem__(self, rows: Rows) -> ClassScore:
        first: FirstPass = self.__dict__["_first"]
        if first.complete:
            return super().__getitem__(rows)
        return TopClass(self.__dict__["_model"], first, self._rows()[rows])

    @cached_property
    def index(self) -> Tensor:
        first: FirstPass = self.__dict__["_first"]
        logits = first.logits
        if logits is None or self.__dict__["_some"] is not None:
            rows = self._rows().to(first.x.device)
            if not bool(first.known[rows].all()):
                with uncounted():
                    self._ask(first, rows)
            assert first.rows is not None
            logits = first.rows[rows]
        return finite(self.__dict__["_model"], logits.float().cpu()).argmax(1)

    def _rows(self) -> Tensor:
        rows: Tensor | None = self.__dict__["_some"]
        first: FirstPass = self.__dict__["_first"]
        return torch.arange(len(first.x)) if rows is None else rows

    def _ask(self, first: FirstPass, rows: Tensor) -> None:
        """Run what is not known: of pictures of a pass those in doubt, else all that are left, once for all parts."""
        unknown = ~first.known
        if int(rows.max()) < first.reached:
            unknown &= torch.zeros_like(unknown).index_fill(0, rows, True)
        asked = unknown.nonzero()[:, 0]
        first.put(asked, scores(self.__dict__["_model"], first.x[asked]))


@contextmanager
def top_class_of(model: Model, x: Tensor) -> Iterator[TopClass]:
    """The top class of pictures x (B, C, *S), to be asked for inside."""
    with awaiting(model.net, x) as first:
        yield TopClass(model, first)
