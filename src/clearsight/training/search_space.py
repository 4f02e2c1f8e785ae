"""The settings that a search tries, and how they are spelled: "lr=log(1e-4, 1e-1); batch=16|32|64"."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from clearsight.core.catalogue import number
from clearsight.errors import Refused, nearest
from clearsight.training.recipe import Recipe, options
from clearsight.training.validate_recipe import validate

Value = str | float | int | bool | None
Kind = Literal["choice", "uniform", "log", "int"]

DEFAULT = "lr=log(3e-4, 1e-2); body=0.03|0.1|0.3; augment=auto|none|'crop, flip, colour-jitter'; smoothing=0|0.1"
POINTS = 3  # of a range in a grid
DIGITS = 3  # of a number that is drawn
ENOUGH = 100  # draws for each trial, after which hardly any settings remain that were not drawn
FIXED = ("shares", "seed", "split_seed", "random_labels")
_RANGE = re.compile(r"(uniform|log|int)\s*\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Dimension:
    """One setting of a Recipe and its possible values: those of a choice, or the range from the first to the second."""

    name: str
    kind: Kind
    values: tuple[Value, ...]

    def __str__(self) -> str:
        if self.kind == "choice":
            return f"{self.name}={'|'.join(map(_write, self.values))}"
        return f"{self.name}={self.kind}({', '.join(map(str, self.values))})"

    def at(self, u: float) -> Value:
        """The value at the share u, from 0 to 1, of the range; a number that is not whole is rounded to three digits.

        >>> Dimension("lr", "log", (1e-4, 1e-2)).at(0.5), Dimension("batch", "choice", (16, 32, 64)).at(0.5)
        ('0.001', 32)
        """
        if self.kind == "choice":
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        low, high = (float(v) for v in self.values if v is not None)
        if self.kind == "int":
            return min(int(low) + int(u * (high - low + 1)), int(high))
        exact = low * (high / low) ** u if self.kind == "log" else low + u * (high - low)
        value = min(max(float(f"{exact:.{DIGITS}g}"), low), high)
        return f"{value:g}" if self.name == "lr" else value

    def points(self) -> list[Value]:
        """The values that a grid tries: every choice; of a range both ends and the middle."""
        if self.kind == "choice":
            return list(self.values)
        return list(dict.fromkeys(self.at(i / (POINTS - 1)) for i in range(POINTS)))


@dataclass(frozen=True)
class Space:
    """All settings that a search may try; ``str`` gives the spelling that ``read_space`` reads back."""

    dimensions: tuple[Dimension, ...]

    def __str__(self) -> str:
        return "; ".join(map(str, self.dimensions))

    @property
    def size(self) -> float:
        """How many different settings there are; infinite with a range of numbers that are not whole."""
        return math.prod(_count(d) for d in self.dimensions)


Settings = dict[str, Value]


def read_space(words: str | Space) -> Space:
    """name=a|b|c, name=uniform(low, high), name=log(low, high), name=int(low, high), with ; between them.

    A name is a field of Recipe, and a value is one that Recipe takes; a value with | or ; in it is quoted.

    Refused: other spellings and values, and the fields that decide what is in val, as trials could not be compared.

    >>> str(read_space("lr=log(1e-4, 1e-1); augment='crop, flip'|none; batch = 16 | 32"))
    'lr=log(0.0001, 0.1); augment=crop, flip|none; batch=16|32'
    """
    if isinstance(words, Space):
        return words
    dimensions: dict[str, Dimension] = {}
    for part in _split(words, ";"):
        name, equals, text = part.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not text.strip():
            raise Refused(f"{part!r} in the space: write name=a|b, or name=log(low, high), with ; between them")
        if name not in options():
            raise Refused(f"the space has {name!r}, which is no field of a recipe: {nearest(name, options())}")
        if name in FIXED:
            raise Refused(
                f"{name} cannot be searched: it decides the pictures or labels of val, so trials could not be compared"
            )
        if name in dimensions:
            raise Refused(f"the space has {name} twice: name its values together, {name}=a|b")
        dimensions[name] = _read_dimension(name, text.strip())
    if not dimensions:
        raise Refused(f"the space is empty: name what to try, such as {DEFAULT!r}")
    return Space(tuple(dimensions.values()))


def drawn(space: Space, trials: int, seed: int) -> list[Settings]:
    """Settings for so many trials, no two the same; fewer where the space has no more.

    The number behind a value is a hash of the seed, of the draw and of the name of the setting.  So the first trials
    are the same however many follow, on every machine, and the order of the names does not matter.
    """
    distinct: dict[str, Settings] = {}
    for draw in range(ENOUGH * trials):
        if len(distinct) >= min(trials, space.size):
            break
        settings = {d.name: d.at(_share(seed, draw, d.name)) for d in space.dimensions}
        distinct.setdefault(repr(sorted(settings.items())), settings)
    return list(distinct.values())


def grid(space: Space) -> list[Settings]:
    """Every combination of the points of the dimensions, the last of them changing fastest."""
    names = [d.name for d in space.dimensions]
    return [
        dict(zip(names, values, strict=True)) for values in itertools.product(*(d.points() for d in space.dimensions))
    ]


def _share(seed: int, draw: int, name: str) -> float:
    key = hashlib.blake2b(repr((seed, draw, name)).encode(), digest_size=6).digest()
    return int.from_bytes(key, "big") / 2**48


def _count(d: Dimension) -> float:
    if d.kind == "choice":
        return len(set(map(repr, d.values)))
    if d.kind == "int":
        return float(d.values[1] or 0) - float(d.values[0] or 0) + 1
    return 1 if d.values[0] == d.values[1] else math.inf


def _read_dimension(name: str, text: str) -> Dimension:
    kinds = _kinds(name)
    allowed: tuple[str, ...] = ()
    if int in kinds:
        allowed = ("int",)
    elif float in kinds or name == "lr":
        allowed = ("uniform", "log")
    instead = " or ".join(f"{name}={k}(low, high)" for k in allowed) or f"name its values, {name}=a|b"
    if allowed and "(" in text and not _RANGE.fullmatch(text):
        raise Refused(f"{name}={text} in the space is neither a value nor a range: {instead}")
    if not (m := _RANGE.fullmatch(text)):
        return Dimension(name, "choice", tuple(_read_value(name, word, kinds) for word in _split(text, "|")))
    kind: Kind = next(k for k in get_args(Kind) if k == m[1])
    if kind not in allowed:
        raise Refused(f"{name}={text} in the space: {name} is {_type_words(kinds)}: {instead}")
    ends = [_read_value(name, word, kinds) for word in _split(m[2], ",")]
    try:
        low, high = (float(str(v)) for v in ends)
    except ValueError:
        raise Refused(f"{name}={text} in the space: a range has two numbers, {name}={kind}(low, high)") from None
    if low > high or (kind == "log" and low <= 0):
        raise Refused(
            f"{name}={text} in the space: the first number must be the lower one{', and above 0' * (kind == 'log')}"
        )
    return Dimension(name, kind, (int(low), int(high)) if kind == "int" else (low, high))


def _kinds(name: str) -> tuple[type, ...]:
    kind = options()[name][0]
    return get_args(kind) or (kind,)


def _type_words(kinds: tuple[type, ...]) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return next((words for kind, words in names.items() if kind in kinds), "a word")


def _read_value(name: str, word: str, kinds: tuple[type, ...]) -> Value:
    """The value that a word spells.  Refused: one that Recipe does not take."""
    text = word[1:-1] if len(word) > 1 and word[0] in "'\"" and word[-1] == word[0] else word
    value: Value = text
    try:
        if bool in kinds:
            value = {"true": True, "false": False}[text.lower()]
        elif type(None) in kinds and str not in kinds and text.lower() == "none":
            value = None
        elif int in kinds:
            value = int(text)
        elif float in kinds:
            value = number(text)
    except (ValueError, KeyError, ZeroDivisionError):
        raise Refused(f"{name} in the space cannot be {text!r}: it is {_type_words(kinds)}") from None
    settings: dict[str, object] = {name: value}
    try:
        validate(Recipe(**settings), device="cpu")  # type: ignore[arg-type]
    except Refused as e:
        raise Refused(f"{name} in the space: {e}") from e
    return value


def _write(value: Value) -> str:
    """The spelling of a choice: as it is, or in quotes where it would be read as something else."""
    text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    try:
        bare = _split(text, "|") == [text] == _split(text, ";") and text[0] not in "'\"" and not _RANGE.fullmatch(text)
    except Refused:
        bare = False
    if bare:
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def _split(text: str, mark: str) -> list[str]:
    """Split at a mark that stands outside all brackets and quotes; refused where one of these is not closed."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        else:
            depth += (c in "([") - (c in ")]")
        if c == mark and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    if depth or quote:
        raise Refused(f"{text!r} in the space: a bracket or a quote is not closed")
    return [p.strip() for p in parts if p.strip()]
