"""What a defence or a guide may use of one step of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.evaluation_mode import evaluating
from clearsight.core.norms import Measure
from clearsight.core.running_statistics import statistics_held
from clearsight.core.targets import Goal


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """One step of training, as a defence or a guide sees it.

    model: the network that is trained, in training mode: called with pixels (B, C, *S) in [0, 1] it returns logits
    (B, K), differentiable in the weights and in the pixels.
    cross_entropy: logits (B, K) and shares of the classes (B, K) -> (B,), with the recipe's label smoothing and class
    weights.
    attack: pictures (B, C, *S) and a Goal -> the pictures as the recipe's attack changes them, inside its budget and
    [0, 1].  The network is in evaluation mode meanwhile, its weights have no gradient, and nothing of it is
    differentiable afterwards.
    eps, norm: the budget of that attack.
    replay: which pass over the same pictures this is, from 0, for a defence that has replays.
    memory: what a defence keeps from one step to the next: tensors by name, saved with the run.
    seed: of the random numbers of this step.
    """

    model: Classifier
    cross_entropy: Callable[[Tensor, Tensor], Tensor]
    attack: Callable[[Tensor, Goal], Tensor]
    eps: float = 0.0
    norm: Measure = "linf"
    replay: int = 0
    memory: dict[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    _last: list[Tensor] = field(default_factory=list, init=False)

    def forward(self, x: Tensor) -> Tensor:
        """The logits (B, K) of pictures x (B, C, *S), which run through the network once for the same tensor.

        So a guide that looks into this pass and the loss of the labels share it.
        """
        if not self._last or self._last[0] is not x:
            self._last[:] = [x, self.model(x)]
        return self._last[1]

    def evaluated(self, x: Tensor) -> Tensor:
        """The logits (B, K) of pictures x (B, C, *S) by the network in evaluation mode, which have no gradient."""
        with evaluating(self.model.net), torch.no_grad():
            return replace(self.model, output=None)(x)  # auxiliary outputs are there in training alone

    def sharing(self, x: Tensor) -> Classifier:
        """The network as a Classifier whose pass over the pictures x is that of `forward`, not one of its own.

        A pass that was made before is made again, for nobody could look into it any more.
        """
        if self._last and self._last[0] is x:
            self._last.clear()
        of = {f.name: getattr(self.model, f.name) for f in fields(Classifier)}
        return _OnePass(**of, step=self, x=x)


@dataclass(frozen=True, eq=False)
class _OnePass(Classifier):
    """The network of a step; its pass over x, that very tensor, is the step's own where gradients are enabled."""

    step: TrainingStep | None = None
    x: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.step is not None and x is self.x and self.net is self.step.model.net and torch.is_grad_enabled():
            return self.step.forward(x)
        with statistics_held(self.net):
            return super().__call__(x)
