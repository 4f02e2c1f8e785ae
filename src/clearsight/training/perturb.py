"""The attack that a network is trained against."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from clearsight.core import rng
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.evaluation_mode import evaluating
from clearsight.core.norms import Measure, norm_of, project
from clearsight.core.targets import Goal
from clearsight.core.validation import check_result
from clearsight.errors import Refused
from clearsight.internals.input_convolution import folded_back
from clearsight.runner.run import budgeted


def training_attack(spelling: str) -> tuple[Call, float, Measure]:
    """The attack that words name, as training uses it, with its budget and its norm.

    It does not leave a picture alone once that is fooled (``early_stop=false``), unless the words say so.

    Refused: attacks that need more than the network and a budget, and those that look for the smallest change, which
    keep no budget.

    >>> str(training_attack("pgd(eps=8/255, steps=7)")[0])
    'pgd(steps=7, early_stop=false)'
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
    if "early_stop" in call.method.options and "early_stop" not in call.options:
        call = call.with_options(early_stop=False)
    return call, eps, norm_of(call)


def no_attack(x: Tensor, goal: Goal) -> Tensor:
    """The pictures themselves."""
    return x.detach()


def attacker(model: Classifier, call: Call, eps: float, norm: Measure, seed: int) -> Callable[[Tensor, Goal], Tensor]:
    """A function from pictures (B, C, *S) in [0, 1] and a goal to the pictures as the attack changes them.

    They lie within eps of those given, and in [0, 1].  model: a Classifier of the network that is trained.
    """

    def attack(x: Tensor, goal: Goal) -> Tensor:
        x = x.detach()
        with evaluating(model.net), folded_back(model.net), rng.seeded(seed, x, call.method.name):
            options = {"eps": eps} if "eps" in call.method.injected else {}
            raw = check_result(call.method(model, x.clone(), goal, **options, **call.options), tuple(x.shape), call)
        return project(raw.detach(), x, eps, norm)

    return attack
