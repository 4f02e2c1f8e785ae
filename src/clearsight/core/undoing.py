"""Steps back: each is run whatever becomes of the others, so that one that fails leaves nothing else undone."""

from __future__ import annotations

from collections.abc import Callable

Undo = list[Callable[[], object]]


def undone(steps: Undo) -> list[BaseException]:
    """Run the steps from the last to the first, and empty the list; what failed, in that order.

    >>> said = []
    >>> undone([lambda: said.append("first"), lambda: 1 / 0, lambda: said.append("last")])
    [ZeroDivisionError('division by zero')]
    >>> said
    ['last', 'first']
    """
    failed: list[BaseException] = []
    while steps:
        step = steps.pop()
        try:
            step()
        except BaseException as e:
            failed.append(e)
    return failed
