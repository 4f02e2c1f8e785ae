"""What the recipes of classifiers and of detectors and segmenters have in common: their checks, and their words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from clearsight.errors import Refused, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    R = TypeVar("R", bound=DataclassInstance)

Ranges = Mapping[str, tuple[float, float]]
FLAGS = {"from_run": "--from"}  # where the option has another name than the field

# of the fields that both have
RANGES: Ranges = {
    "epochs": (1, 1e6), "batch": (1, 1e6), "body": (0, 1e3), "momentum": (0, 0.9999), "decay": (0, 10),
    "warmup": (0, 0.9), "clip": (0, math.inf), "ema": (0, 0.999999), "patience": (0, math.inf),
    "seed": (0, 2**63 - 1), "split_seed": (0, 2**63 - 1),
}  # fmt: skip


def check_words(recipe: DataclassInstance, choices: Mapping[str, Any]) -> None:
    """Refuse a field whose word is none of its Literal type."""
    for name, allowed in choices.items():
        if (value := getattr(recipe, name)) not in get_args(allowed):
            raise Refused(f"{name} {value!r}: {nearest(str(value), get_args(allowed))}")


def check_ranges(recipe: DataclassInstance, ranges: Ranges) -> None:
    """Refuse a number outside of (low, high); None is no number yet."""
    for name, (low, high) in ranges.items():
        value = getattr(recipe, name)
        if value is not None and not low <= value <= high:
            most = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise Refused(f"{name} {value}: a number {most}")


def is_rate(text: str) -> bool:
    """Whether the text is a learning rate.

    >>> is_rate("0.001"), is_rate("0"), is_rate("auto")
    (True, False, False)
    """
    try:
        return 0 < float(text) <= 1e30  # beyond it optimisers overflow
    except ValueError:
        return False


def parts_of(shares: str) -> tuple[float, float, float]:
    """The shares of train, val and test.

    >>> parts_of("0.7,0.15,0.15")
    (0.7, 0.15, 0.15)
    """
    try:
        train, val, test = (float(v) for v in shares.split(","))
    except ValueError:
        raise Refused(f"shares {shares!r}: three numbers, of train, val and test: 0.7,0.15,0.15") from None
    if min(train, val, test) < 0 or train <= 0 or val <= 0 or abs(train + val + test - 1) > 1e-6:
        raise Refused(f"shares {shares!r}: train and val above 0, none below 0, and 1 in all")
    return train, val, test


def non_default(recipe: DataclassInstance) -> dict[str, Any]:
    """The fields of a recipe that are not what they are by default."""
    default = type(recipe)()
    return {k: v for k, v in asdict(recipe).items() if v != getattr(default, k)}


def differs(given: Mapping[str, Any], asked: DataclassInstance, settled: DataclassInstance) -> list[str]:
    """Which of these settings are neither what a run was asked for nor what that was settled to.

    >>> from clearsight.training.recipe import Recipe
    >>> differs({"lr": "find", "batch": 16}, Recipe(lr="find"), Recipe(lr="0.002"))
    ['batch']
    """
    return [name for name, value in given.items() if value not in (getattr(asked, name), getattr(settled, name))]


def flag(name: str) -> str:
    """The option of the command line for a field.

    >>> flag("split_seed"), flag("from_run")
    ('--split-seed', '--from')
    """
    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def read_fields(
    path: Path, kind: type[R], completed: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> tuple[R, list[str], R]:
    """The recipe that a run folder was made by, why its automatic values are what they are, and what was asked for.

    completed: the fields as they were written -> with those that earlier versions did not know.

    Refused: a file that is no such recipe.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settled, asked = completed(record["recipe"]), completed(record["asked"])
        known = {f.name for f in fields(kind)}
        if wrong := (settled.keys() ^ known) | (asked.keys() ^ known):
            raise Refused(f"{path} is of another version: it differs in {', '.join(sorted(wrong))}")
        return kind(**settled), list(record["why"]), kind(**asked)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as e:
        raise Refused(f"{path} is no recipe of a training run: {type(e).__name__}: {e}") from e
