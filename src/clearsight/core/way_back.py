"""The operations of autograd behind a tensor, and whose they are."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

_IN_CPP = "CppNode"  # what autograd calls functions that others wrote in C++


def operations_behind(out: Tensor) -> list[Any]:
    """Every operation that autograd wrote down on the way to out, branch by branch; none where no gradient comes.

    One operation more in a branch leaves the others in their order.
    """
    todo: list[Any] = [out.grad_fn]
    found: dict[Any, None] = {}
    while todo:
        operation = todo.pop()
        if operation is not None and operation not in found:
            found[operation] = None
            todo += [before for before, _ in operation.next_functions]
    return [*found]


def is_of_others(operation: Any) -> bool:
    """Whether neither torch nor this package wrote an operation."""
    if isinstance(operation, BackwardCFunction):
        return not is_ours(operation._forward_cls)  # type: ignore[attr-defined]
    return _IN_CPP in str(operation.name())


def is_ours(function: Any) -> bool:
    """Whether this package wrote a function or a class."""
    return str(getattr(function, "__module__", "")).startswith("clearsight.")
