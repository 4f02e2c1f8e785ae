"""A training run between two steps, how it begins, and what of it is saved."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.copying import copied
from clearsight.models.loading import device_of
from clearsight.training.batches import order
from clearsight.training.checkpoints import learning_state, restore_learning, save_state
from clearsight.training.fine_tuning import TrainableNetwork, groups
from clearsight.training.history import Epoch, since_best
from clearsight.training.optimisers import Pace, optimiser, pace
from clearsight.training.rebalance import stage
from clearsight.training.recipe import Recipe
from clearsight.training.run_folder import first
from clearsight.training.training_data import TrainingData


@dataclass(eq=False)
class Run:
    """A training run between two steps: everything that a later step depends on.

    shadow: the network that is evaluated and kept, the average over steps where there is one.  epoch, batch: the next
    ones; total: the summed loss of the epoch so far; spent: its seconds; best: the weights of the epoch that is kept.
    memory: what a defence or a rebalancing keeps from one step to the next.
    """

    recipe: Recipe
    data: TrainingData
    start: TrainableNetwork
    accelerator: Any
    net: nn.Module
    opt: Any
    pace: Pace
    shadow: nn.Module
    average: Any
    epoch: int = 0
    batch: int = 0
    total: float = 0.0
    spent: float = 0.0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, none was better than those before for long enough, or the last one collapsed."""
        patience = self.recipe.patience or 0
        if self.recipe.overfitting_guard and self.history and self.history[-1].collapsed:
            return True
        if stage(self.recipe) == "features":
            return bool(self.history)
        return self.epoch >= epochs_of(self.recipe) or 0 < patience <= since_best(self.history)

    def classifier(self) -> Classifier:
        """The network that is evaluated, as a Classifier."""
        return Classifier(self.shadow, self.start.preprocess, self.data.labels, channels_last=self.start.channels_last)


def build_run(data: TrainingData, recipe: Recipe, start: TrainableNetwork, device: str) -> Run:
    """A run from this network, with its optimiser, schedule and average, before the first step."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from timm.utils import ModelEmaV3

    r = recipe
    where = device_of(device)
    if where.type == "cuda" and where.index:
        torch.cuda.set_device(where)
    AcceleratorState._reset_state(reset_partial_state=os.environ.get("WORLD_SIZE", "1") == "1")  # of a run before it
    acc: Any = Accelerator(cpu=where.type == "cpu", mixed_precision="bf16" if r.precision == "bf16" else "no")
    start.net.to(acc.device)
    average = ModelEmaV3(start.net, decay=r.ema) if r.ema else None
    shadow: nn.Module = average.module if average is not None else copied(start.net)
    opt = optimiser_of(r, start, start.net, float(r.lr))
    per_epoch = len(order(data.epoch_rows(0), r.batch, 0))
    rhythm = pace(r.schedule, opt, steps=epochs_of(r) * per_epoch, per_epoch=per_epoch, warmup=r.warmup)
    return Run(r, data, start, acc, acc.prepare_model(start.net), opt, rhythm, shadow, average)


def optimiser_of(r: Recipe, start: TrainableNetwork, net: nn.Module, lr: float) -> torch.optim.Optimizer:
    parameter_groups = groups(net, start.head, lr=lr, body=r.body, decay=r.decay, pretrained=bool(start.pretrained))
    return optimiser(r.optimiser, parameter_groups, lr=lr, momentum=r.momentum)


def save_run(run: Run, folder: Path, spent: float) -> None:
    """Save the state of the run, in the first process only."""
    if first():
        save_state(folder, _state(run, spent))


def _state(run: Run, spent: float) -> dict[str, Any]:
    """All that a later step depends on, as tensors, numbers and words."""
    return {
        **learning_state(run.start.net, run.opt, run.average),
        "plateau": run.pace.plateau.state_dict() if run.pace.plateau else None,
        "best": run.best,
        "epoch": run.epoch,
        "batch": run.batch,
        "total": run.total,
        "spent": run.spent + spent,
        "history": [asdict(e) for e in run.history],
        "memory": run.memory,
    }


def restore(run: Run, state: dict[str, Any]) -> None:
    """Restore a run from its saved state."""
    restore_learning(state, run.start.net, run.opt, run.average)
    if run.pace.plateau:
        run.pace.plateau.load_state_dict(state["plateau"])
    run.best, run.epoch, run.batch, run.total, run.spent = (
        state[k] for k in ("best", "epoch", "batch", "total", "spent")
    )
    run.history = [Epoch(**e) for e in state["history"]]
    run.memory = dict(state.get("memory", {}))


def epochs_of(recipe: Recipe) -> int:
    assert recipe.epochs is not None
    return recipe.epochs
