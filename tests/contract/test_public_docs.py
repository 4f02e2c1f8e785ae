"""What the documentation of the library's public functions and classes must hold."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import clearsight

FUNCTIONS = [n for n in clearsight.__all__ if inspect.isfunction(getattr(clearsight, n))]


def entries(doc: str) -> dict[str, str]:
    """The parameters that an ``Args:`` block names, in its order, with what it says of each."""
    block = re.search(r"(?m)^Args:\n((?: {4}.*\n?)+)", doc)
    found = re.split(r"(?m)^ {4}(\w+): ", block[1] if block else "")
    return {name: text.strip() for name, text in zip(found[1::2], found[2::2], strict=True)}


def faults(called: Callable[..., Any]) -> list[str]:
    """What the docstring of a function or class lacks."""
    doc = inspect.getdoc(called) or ""
    told, wanted = entries(doc), list(inspect.signature(called).parameters)
    wrong = [] if list(told) == wanted else [f"Args names {', '.join(told)} and not {', '.join(wanted)}"]
    wrong += [f"{name} does not end in a full stop" for name, text in told.items() if not text.endswith(".")]
    return wrong + ([] if re.match(r"[A-Z].*\.(\n\n|$)", doc) else ["the first line is no sentence by itself"])


PROTOCOLS = ("Goal", "Target")  # which are implemented, and never called
CALLED = [n for n in clearsight.__all__ if callable(getattr(clearsight, n)) and n not in PROTOCOLS]


@pytest.mark.parametrize("name", CALLED)
def test_names_each_of_its_parameters_in_order(name: str) -> None:
    assert not faults(getattr(clearsight, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_says_what_is_refused(name: str) -> None:
    """All but the decorator, which looks at nothing."""
    assert name == "method" or re.search(r"(?m)^Refused: \w", inspect.getdoc(getattr(clearsight, name)) or "")


def whole(x: int, *more: int, y: int = 0) -> None:
    """Something is done.

    Args:
        x: a number: with a colon
            on two lines.
        more: numbers.
        y: another number.

    Refused: nothing.
    """


def turned(x: int, y: int) -> None:
    """Something is done.

    Args:
        y: a number.
        x: a number.
    """


def forgotten(x: int, y: int) -> None:
    """Something is done.

    Args:
        x: a number.

    y: another number, outside of the block.
    """


def cut_off(x: int) -> None:
    """Something is done
    on two lines.

    Args:
        x: a number
    """


def bare(x: int) -> None:
    pass


@pytest.mark.parametrize(("called", "n"), [(whole, 0), (turned, 1), (forgotten, 1), (cut_off, 2), (bare, 2)])
def test_finds_what_is_missing(called: Callable[..., None], n: int) -> None:
    assert len(faults(called)) == n
