"""What a recipe asks of each step beside its labels: resistance to an attack, and the right reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Norm
from clearsight.core.targets import Goal
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.training.losses import defended_loss, guided_loss, mean_of, training_loss, weighted_entropy
from clearsight.training.perturb import attacker, no_attack, training_attack
from clearsight.training.recipe import Recipe, flag, marks_file, non_default
from clearsight.training.run import Run

DEFAULT = "adversarial-training"


@dataclass(frozen=True)
class Objective:
    """The defence of a recipe with its attack and its budget, and its guide; each None where there is none."""

    defence: Call | None
    attack: Call | None
    eps: float
    norm: Norm
    guide: Call | None

    @property
    def plain(self) -> bool:
        return self.defence is None and self.guide is None

    @property
    def replays(self) -> int:
        """How often each batch is passed in turn: the option ``replays`` of a defence that has one."""
        if self.defence is None or "replays" not in self.defence.method.options:
            return 1
        return int(self.defence.options.get("replays", self.defence.method.options["replays"].default))


def objective(recipe: Recipe) -> Objective:
    """What a recipe asks for beside the labels.  Refused: names and options that do not exist or do not fit."""
    if recipe.defence and not recipe.perturb:
        raise Refused(
            f"defence {recipe.defence!r} without an attack",
            'name one with --perturb, such as "pgd(eps=8/255, steps=7)"',
        )
    guide: Call | None = parse(recipe.guide_by, "guides")
    if marks_file(recipe) is None:
        if given := [name for name in ("guide_by", "guide_share") if name in non_default(recipe)]:
            raise Refused(f"{flag(given[0])} without annotations", "name them with --guide FILE or --avoid FILE")
        guide = None
    if not recipe.perturb:
        return Objective(None, None, 0.0, "linf", guide)
    attack, eps, norm = training_attack(recipe.perturb)
    return Objective(parse(recipe.defence or DEFAULT, "defences"), attack, eps, norm, guide)


def step_loss(
    run: Run, asked: Objective, x: Tensor, y: Tensor, inside: Tensor | None, weights: Tensor, seed: int, replay: int
) -> Tensor:
    """The mean loss of one step.

    x (B, C, *S) in [0, 1], y (B, K); inside (B, 1, *S): 1 where a right answer may look, NaN in pictures that no
    annotation speaks of.
    """
    r, start = run.recipe, run.start
    if asked.plain:
        return training_loss(run.net, start, x, y, weights, r.smoothing)
    model = _classifier(run.net, run)
    entropy = weighted_entropy(weights, r.smoothing)

    attack: Callable[[Tensor, Goal], Tensor] = no_attack
    if asked.attack is not None:
        attack = attacker(_classifier(start.net, run), asked.attack, asked.eps, asked.norm, seed)
    if asked.guide is not None and inside is not None:
        x = x.detach().requires_grad_()
    step = TrainingStep(model, entropy, attack, asked.eps, asked.norm, replay, run.memory)
    penalty = guided_loss(asked.guide, step, x, y, inside) if asked.guide is not None and inside is not None else 0.0
    if asked.defence is not None:
        return defended_loss(asked.defence, step, x.detach(), y) + penalty
    return entropy(step.forward(x), y).mean() + penalty


def rebalanced_loss(run: Run, call: Call, x: Tensor, y: Tensor, group: Tensor, groups: int, weights: Tensor) -> Tensor:
    """The mean loss of one step in which a rebalancing is used.

    x (B, C, *S) in [0, 1], y (B, K), group (B,): of each picture, from 0 to groups - 1.
    """
    entropy = weighted_entropy(weights, run.recipe.smoothing)
    step = TrainingStep(_classifier(run.net, run), entropy, no_attack, memory=run.memory)
    losses = call.method(step, x, y, group, groups, **call.options)
    return mean_of(losses, call, len(x))


def _classifier(net: nn.Module, run: Run) -> Classifier:
    """A network of a run as a Classifier; one with auxiliary outputs gives its main one in training."""
    pre, labels = run.start.preprocess, run.data.labels
    output = 0 if net.training and getattr(run.start.net, "aux_logits", False) else None
    return Classifier(net, pre, labels, output=output, channels_last=run.start.channels_last)
