"""The attack that a network is trained against."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.evaluation_mode import evaluating
from clearsight.core.norms import Measure, norm_of, project
from clearsight.core.settled import settled
from clearsight.core.targets import Goal
from clearsight.core.validation import check_result
from clearsight.errors import Refused
from clearsight.internals.input_convolution import folded_back
from clearsight.runner.run import budgeted
from clearsight.training.recipe import Recipe


def training_attack(spelling: str) -> tuple[Call, float, Measure]:
    """The attack that words name, as training uses it, with its budget and its norm.

    It does not leave a picture alone once that is fooled (``early_stop=false``), and one run of pgd gives its last
    iterate (``keep=last``), as the papers that train against it do, unless the words say so.

    Refused: attacks that need more than the network and a budget, and those that look for the smallest change, which
    keep no budget; a budget of 0, and no steps.

    >>> str(training_attack("pgd(eps=8/255, steps=7)")[0])
    'pgd(steps=7, early_stop=false, keep=last)'
    """
    call, eps = budgeted(parse(spelling, "attacks"), None)
    if more := call.method.injected - {"eps"}:
        raise Refused(
            f"training against {call.method.name}: it needs {', '.join(sorted(more))} beside the network",
            "name an attack by gradients, such as pgd(eps=8/255, steps=7)",
        )
    if call.method.claims & {"black-box", "minimal", "unbounded"}:
        raise Refused(
            f"training against {call.method.name}: it asks a finished network, or keeps no budget",
            "name an attack by gradients within a budget, such as pgd(eps=8/255, steps=7)",
        )
    if eps == 0 or (call.options.get("steps") == 0 and not call.options.get("random_start")):
        raise Refused(
            f"training against {spelling}: it changes nothing", "give a budget above 0, and at least one step"
        )
    if "early_stop" in call.method.options and "early_stop" not in call.options:
        call = call.with_options(early_stop=False)
    if "keep" in call.method.options and "keep" not in call.options and call.options.get("restarts", 1) == 1:
        call = call.with_options(keep="last")
    return call, eps, norm_of(call)


def refuse_other_inputs(recipe: Recipe, texts: bool) -> None:
    """Refuse attacks and defences that change pixels in training on texts, and characters in training on pictures."""
    defence = parse(recipe.defence, "defences") if recipe.defence else None
    if texts and defence is not None and "adds-to-pixels" in defence.method.claims:
        raise Refused(f"{defence.method.name} adds to pixels, and these are texts", "leave --defence out")
    if not recipe.perturb:
        return
    call, _, norm = training_attack(recipe.perturb)
    if texts != (norm == "characters"):
        changes, inputs, fitting = (
            ("pixels", "texts", "character-substitution(eps=4)")
            if texts
            else ("characters", "pictures", "pgd(eps=8/255, steps=7)")
        )
        raise Refused(f"{call.method.name} changes {changes}, and these are {inputs}", f"name {fitting}, say")


def no_attack(x: Tensor, goal: Goal) -> Tensor:
    """The pictures themselves."""
    return x.detach()


def attacker(model: Classifier, call: Call, eps: float, norm: Measure, seed: int) -> Callable[[Tensor, Goal], Tensor]:
    """A function from pictures (B, C, *S) in [0, 1] and a goal to the pictures as the attack changes them.

    They lie within eps of those given, and in [0, 1].  model: a Classifier of the network that is trained.
    """

    def attack(x: Tensor, goal: Goal) -> Tensor:
        x = x.detach()
        drawn = rng.seeded(seed, x, call.method.name, in_step=True)
        with settled(model.net), evaluating(model.net), folded_back(model.net), drawn:
            options = {"eps": eps} if "eps" in call.method.injected else {}
            raw = call.method(model, x.clone(), goal, **options, **call.options)
            raw = check_result(raw, tuple(x.shape), call, keep=True)
        return project(raw.detach(), x, eps, norm)

    return attack
