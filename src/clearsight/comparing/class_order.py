"""Detectors and segmenters whose classes stand in another order than those of the first: matched by their names."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from clearsight.comparing.sources import RunToCompare
from clearsight.core.model import Model
from clearsight.data.splits import named
from clearsight.errors import Refused
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter


def in_one_order(runs: Sequence[RunToCompare]) -> tuple[list[RunToCompare], list[str]]:
    """The runs, each model with its classes in the order of the first model, and a sentence on each that was turned.

    Audits stay as they are: they keep no class by its number.

    Refused: models with other classes than the first; another order of classes of which several have one name; when
    loaded, another order of classes of a model that is a kind of its own.
    """
    labels = {run.name: run.labels for run in runs if run.report is None}
    first, ours = next(iter(labels.items()), ("", ()))
    ordered, notes = [], []
    for run in runs:
        theirs = labels.get(run.name, ours)
        if sorted(theirs) != sorted(ours):
            raise Refused(
                f"{run.name} has other classes than {first}: {named(theirs)} beside {named(ours)}",
                "compare models of the same classes",
            )
        if theirs != ours:
            if len({*ours}) < len(ours):
                raise Refused(
                    f"{run.name} has the classes of {first} in another order, and several have one name: {named(ours)}",
                    "give each class a name of its own",
                )
            assert run.load is not None
            run = replace(run, load=partial(_load_in_order, run.load, ours))
            notes.append(f"{run.name} has the classes of {first} in another order: they were matched by their names.")
        ordered.append(run)
    return ordered, notes


def _load_in_order(load: Callable[[], Model], labels: tuple[str, ...]) -> Model:
    model = load()
    if type(model) not in (Detector, Segmenter):  # whose reading of the network's outputs is not known
        raise Refused(
            f"{model.source or 'a model'} is a {type(model).__name__} whose classes stand in another order",
            "give it with its outputs and its labels in the order of the first run",
        )
    order = tuple(model.labels.index(label) for label in labels)
    parts = {f.name: getattr(model, f.name) for f in fields(model)} | {"labels": labels}
    if isinstance(model, Detector):
        return _OrderedDetector(**parts, order=order)
    return _OrderedSegmenter(**parts, order=order)


@dataclass(frozen=True, eq=False)
class _OrderedDetector(Detector):
    """order: for each class its place among those of the network."""

    order: tuple[int, ...] = ()

    def read(self, z: Tensor, out: Tensor) -> Tensor:
        boxes, classes = super().read(z, out).tensor_split([5], 2)
        return torch.cat([boxes, classes[:, :, list(self.order)]], 2)

    @property
    def reading(self) -> Hashable:
        return super().reading, self.order


@dataclass(frozen=True, eq=False)
class _OrderedSegmenter(Segmenter):
    """order: for each class its place among those of the network."""

    order: tuple[int, ...] = ()

    def read(self, z: Tensor, out: Tensor) -> Tensor:
        return super().read(z, out)[:, list(self.order)]

    @property
    def reading(self) -> Hashable:
        return super().reading, self.order
