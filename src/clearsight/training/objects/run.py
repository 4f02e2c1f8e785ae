"""The training of a detector or a segmenter between two steps, how it begins, and what of it is saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.copying import copied
from clearsight.core.light_imports import without_compiler
from clearsight.core.model import Model
from clearsight.training.batches import order
from clearsight.training.checkpoints import learning_state, restore_learning, save_state
from clearsight.training.history import since_best
from clearsight.training.objects.history import ObjectEpoch
from clearsight.training.objects.network import ObjectNetwork
from clearsight.training.objects.prepared import ObjectData
from clearsight.training.objects.recipe import ObjectRecipe
from clearsight.training.optimisers import Pace, optimiser, pace

WARM = 10  # the average forgets faster before so many steps


@dataclass(eq=False)
class ObjectRun:
    """A training run between two steps: everything that a later step depends on.

    average: timm's average over the weights of past steps; None where there is none.  shadow: the network that is
    judged and kept.  epoch, batch: the next ones; total: the summed loss of the epoch so far; spent, processor: its
    seconds; best: the weights of the epoch that is kept.
    """

    recipe: ObjectRecipe
    data: ObjectData
    start: ObjectNetwork
    device: torch.device
    opt: Any
    pace: Pace
    average: Any
    shadow: nn.Module
    per_epoch: int
    epoch: int = 0
    batch: int = 0
    total: float = 0.0
    spent: float = 0.0
    processor: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[ObjectEpoch] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        assert self.recipe.epochs is not None
        return self.recipe.epochs

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none was better than those before for long enough."""
        return self.epoch >= self.epochs or 0 < self.recipe.patience <= since_best(self.history)

    def model(self) -> Model:
        """The network that is judged, as a model."""
        return self.start.model(self.shadow, self.data.labels, self.recipe)

    def update_average(self) -> None:
        """After a step: the average moves toward the weights, in the first steps faster than it will."""
        if self.average is not None:
            step = self.epoch * self.per_epoch + self.batch + 1
            self.average.decay = min(self.recipe.ema, (1 + step) / (WARM + step))
            self.average.update(self.start.net)


def build_run(data: ObjectData, recipe: ObjectRecipe, start: ObjectNetwork, device: torch.device) -> ObjectRun:
    """A run from this network, with its optimiser, schedule and average, before the first step."""
    with without_compiler():
        from timm.utils import ModelEmaV3

    start.net.to(device)
    average = ModelEmaV3(start.net, decay=recipe.ema) if recipe.ema else None
    shadow: nn.Module = average.module if average is not None else copied(start.net)
    opt = optimiser(recipe.optimiser, start.groups(recipe), lr=float(recipe.lr), momentum=recipe.momentum)
    assert recipe.epochs is not None
    per_epoch = len(order(data.rows("train"), recipe.batch, 0))
    rhythm = pace(recipe.schedule, opt, steps=recipe.epochs * per_epoch, per_epoch=per_epoch, warmup=recipe.warmup)
    return ObjectRun(recipe, data, start, device, opt, rhythm, average, shadow, per_epoch)


def save_run(run: ObjectRun, folder: Path, spent: float, processor: float) -> None:
    """Save all that a later step depends on, as tensors, numbers and words."""
    save_state(
        folder,
        {
            **learning_state(run.start.net, run.opt, run.average),
            "best": run.best,
            "epoch": run.epoch,
            "batch": run.batch,
            "total": run.total,
            "spent": run.spent + spent,
            "processor": run.processor + processor,
            "history": [asdict(e) for e in run.history],
        },
    )


def restore(run: ObjectRun, state: dict[str, Any]) -> None:
    """Restore a run from its saved state."""
    restore_learning(state, run.start.net, run.opt, run.average)
    run.best, run.epoch, run.batch = (state[k] for k in ("best", "epoch", "batch"))
    run.total, run.spent, run.processor = (state[k] for k in ("total", "spent", "processor"))
    run.history = [ObjectEpoch(**e) for e in state["history"]]
