"""Long tables of tests in two parts: some of each row run by default, the rest with ``pytest -m slow``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def paired(rows: Sequence[Any], columns: Sequence[Any], each: int = 1) -> list[Any]:
    """Every pair of a row and a column; by default each row meets so many columns, and the columns take turns.

    >>> [p.values for p in paired("ab", [1, 2, 3]) if not p.marks]
    [('a', 1), ('b', 2)]
    """
    return [
        pytest.param(row, column, marks=() if (k - i * each) % len(columns) < each else pytest.mark.slow)
        for i, row in enumerate(rows)
        for k, column in enumerate(columns)
    ]


def with_slow(values: Sequence[Any], *slow: Any) -> list[Any]:
    """Every value; the named ones are slow."""
    assert set(slow) <= set(values), f"not among them: {set(slow) - set(values)}"
    return [pytest.param(v, marks=pytest.mark.slow if v in slow else ()) for v in values]
