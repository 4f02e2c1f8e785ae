"""Lines that the cards of all kinds of model have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearsight.auditing.evidence import share

_CLASSES = 30  # that a card names
_ROWS = 200  # classes of a table


def class_line(labels: Sequence[str]) -> str:
    """The classes by name, the first of them where there are many.

    >>> class_line(["cat", "dog"])
    '- Classes: cat, dog'
    """
    return f"- Classes: {', '.join(labels[:_CLASSES])}{', ...' if len(labels) > _CLASSES else ''}"


def measure_row(title: str, measure: Mapping[str, Any]) -> str:
    """A row of a Markdown table: the measure's value, its interval, and over how many.

    >>> measure_row("accuracy", {"value": 0.5, "interval": None, "n": 4})
    '| accuracy | 50.0 % | – | 4 |'
    """
    interval = measure["interval"]
    words = "–" if interval is None else f"{share(interval[0])} to {share(interval[1])}"
    return f"| {title} | {share(measure['value'])} | {words} | {measure['n']} |"


def count_rows(labels: Sequence[str], counts: Sequence[Mapping[str, int]]) -> list[str]:
    """Rows of a Markdown table: how often each class stands in each part.

    >>> count_rows(["cat"], [{"cat": 3}, {"cat": 1}])
    ['| cat | 3 | 1 |']
    """
    rows = [f"| {label} | {' | '.join(str(c[label]) for c in counts)} |" for label in labels[:_ROWS]]
    more = [f"| and {len(labels) - _ROWS} more classes |{' |' * len(counts)}"] if len(labels) > _ROWS else []
    return [*rows, *more]


def licence_line(things: str) -> str:
    """Whose licences apply; things: what the data are, "pictures"."""
    return f"The licences of the {things} and of the initial weights are not known here; they apply to the model too."
