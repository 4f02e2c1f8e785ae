"""Give the answers of a model as its defences let them out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clearsight.core.answering import Account, Request
from clearsight.core.catalogue import Call, parse
from clearsight.errors import Refused

CUT = 1e-6  # beyond 0 and 1, by rounding alone


def answer_defences(spellings: Sequence[str | Call]) -> tuple[Call, ...]:
    """The defences of these spellings, with their options checked.  Refused: what they refuse, and one given twice."""
    calls = tuple(parse(spelling, "answer_defences") for spelling in spellings)
    names = [call.method.name for call in calls]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refused(f"the defence {twice} is given twice", "give it once")
    for call in calls:
        if call.method.validate is not None:
            call.method.validate(**{n: p.default for n, p in call.method.options.items()} | call.options)
    return calls


def answer(defences: Sequence[Call], account: Account, x: Tensor, p: Tensor, others: Sequence[Tensor] = ()) -> Tensor:
    """What an account is told of pictures: (B, K), each defence after the one before it.

    Args:
        defences: calls of answer defences, as `answer_defences` checks them.  Those that remember the account see the
            model's own probabilities p, whatever is told; the others change what is told, in their order.
        account: what they remember of who asks.
        x: the pictures (B, C, *S) in [0, 1].
        p: the model's probabilities (B, K) of them.
        others: probabilities (B, K) of other networks, for the defence ensemble.

    Refused: a defence whose answer is misshapen or not finite; Withheld where a defence gives none.
    """
    told = p
    with account.lock:
        for call in defences:
            request = Request(x.clone(), tuple(others), account.of(str(call)))
            watches = "remembers" in call.method.claims
            given = call.method(request, (p if watches else told).clone(), **call.options)
            told = told if watches else _checked(call, given, p)
    return told


def _checked(call: Call, given: object, p: Tensor) -> Tensor:
    """An answer as it may be told: of the shape of p (B, K), finite, in [0, 1]."""
    if not isinstance(given, Tensor) or given.shape != p.shape:
        shape = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise Refused(f"{call} gave {shape}, not probabilities {tuple(p.shape)}")
    if not bool(torch.isfinite(given).all()):
        raise Refused(f"{call} gave probabilities that are not finite")
    if float(given.min()) < -CUT or float(given.max()) > 1 + CUT:
        raise Refused(f"{call} gave probabilities outside [0, 1]")
    return given.detach().to(p).clamp(0, 1)
