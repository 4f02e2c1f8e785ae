"""What a recipe asks of each step beside its labels: resistance to an attack, and the right reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.norms import Measure
from clearsight.core.targets import Goal
from clearsight.core.training_step import TrainingStep
from clearsight.errors import Refused
from clearsight.training.losses import defended_losses, guided_loss, one_each, training_loss, weighted_entropy
from clearsight.training.perturb import attacker, no_attack, training_attack
from clearsight.training.recipe import Recipe, marks_file
from clearsight.training.recipe_fields import flag, non_default
from clearsight.training.run import Run

DEFAULT = "adversarial-training"


@dataclass(frozen=True)
class Objective:
    """The defence of a recipe with its attack and its budget, and its guide; each None where there is none."""

    defence: Call | None
    attack: Call | None
    eps: float
    norm: Measure
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
    defence = parse(recipe.defence, "defences") if recipe.defence else None
    if defence is not None and not recipe.perturb and "attack-free" not in defence.method.claims:
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
        return Objective(defence, None, 0.0, "linf", guide)
    attack, eps, norm = training_attack(recipe.perturb)
    if norm == "characters" and defence is not None and "adds-to-pixels" in defence.method.claims:
        raise Refused(
            f"{defence.method.name} against {attack.method.name}: it adds to pixels, and characters are replaced",
            "train against it by adversarial-training or mart",
        )
    return Objective(defence or parse(DEFAULT, "defences"), attack, eps, norm, guide)


def step_loss(
    run: Run, asked: Objective, x: Tensor, y: Tensor, inside: Tensor | None, weights: Tensor, seed: int, replay: int
) -> Tensor:
    """The mean loss of one step.

    x (B, C, *S) in [0, 1], y (B, K); inside (B, 1, *S): 1 where a right answer may look, NaN in pictures that no
    annotation speaks of.
    """
    if asked.plain:
        return training_loss(run.net, run.start, x, y, weights, run.recipe.smoothing)
    if asked.guide is not None and inside is not None:
        x = x.detach().requires_grad_()
    step = training_step(run, asked, weights, seed, replay)
    penalty = guided_loss(asked.guide, step, x, y, inside) if asked.guide is not None and inside is not None else 0.0
    if asked.defence is not None:
        return defended_losses(asked.defence, step, x.detach(), y).mean() + penalty
    return step.cross_entropy(step.forward(x), y).mean() + penalty


def training_step(run: Run, asked: Objective, weights: Tensor, seed: int, replay: int = 0) -> TrainingStep:
    """A step of the run as its defence and its guide see it; weights (K,): of the classes."""
    attack: Callable[[Tensor, Goal], Tensor] = no_attack
    if asked.attack is not None:
        attack = attacker(_evaluated(run), asked.attack, asked.eps, asked.norm, seed)
    entropy = weighted_entropy(weights, run.recipe.smoothing)
    model = _trained(run)
    return TrainingStep(model, entropy, attack, asked.eps, asked.norm, replay, run.memory, seed)


def rebalanced_loss(run: Run, call: Call, x: Tensor, y: Tensor, group: Tensor, groups: int, weights: Tensor) -> Tensor:
    """The mean loss of one step in which a rebalancing is used.

    x (B, C, *S) in [0, 1], y (B, K), group (B,): of each picture, from 0 to groups - 1.
    """
    entropy = weighted_entropy(weights, run.recipe.smoothing)
    step = TrainingStep(_trained(run), entropy, no_attack, memory=run.memory)
    losses = call.method(step, x, y, group, groups, **call.options)
    return one_each(losses, call, len(x)).mean()


def _trained(run: Run) -> Classifier:
    """The network of a run as a Classifier; one with auxiliary outputs gives its main one in training."""
    own = run.start.net
    auxiliary = getattr(own, "aux_logits", False) or getattr(own, "aux1", None) is not None  # torchvision's, and ours
    output = 0 if run.net.training and auxiliary else None
    return Classifier(
        run.net, run.start.preprocess, run.data.labels, output=output, channels_last=run.start.channels_last
    )


def _evaluated(run: Run) -> Classifier:
    """The network of a run itself, as it is in evaluation mode: it has one output."""
    return Classifier(run.start.net, run.start.preprocess, run.data.labels, channels_last=run.start.channels_last)
