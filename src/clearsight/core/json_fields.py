"""The fields of the JSON that a model carries beside its numbers: which there are, and what each may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearsight.errors import Refused, nearest

PREPROCESS = {  # the fields of Preprocess.as_dict(), each with an example of its line
    "size": '"size": [224, 224]',
    "mean": '"mean": [0.5, 0.5, 0.5]',
    "std": '"std": [0.5, 0.5, 0.5]',
    "interpolation": '"interpolation": "bilinear"',
    "resize": '"resize": 256',
    "alphabet": '"alphabet": "abc"',
}


def check_fields(
    record: Any, lines: Mapping[str, str], where: object, within: str = "", optional: set[str] | None = None
) -> None:
    """Refuse a record that lacks a field of lines, or has another one.

    lines: an example of each field's line, by its name; where: the file, for the message; within: "preprocess." for a
    record inside another; optional: fields that may be left out.
    """
    if not isinstance(record, dict):
        raise Refused(f"{where}: {within.rstrip('.') or 'the file'} is not an object {{...}}")
    for name, line in lines.items():
        if name not in record and name not in (optional or ()):
            raise Refused(f"{where} does not say {within}{name}: add {line}")
    for name in record:
        if name not in lines:
            raise Refused(f"{where} has an unknown field {within}{name}: {nearest(name, lines)}")


def preprocess_fields(record: Any, where: object) -> dict[str, bool]:
    """Whether each field of Preprocess.as_dict() holds what it may; refused where one lacks or is unknown."""
    check_fields(record, PREPROCESS, where, "preprocess.", optional={"alphabet"})
    return {
        "preprocess.size": isinstance(record["size"], list)
        and bool(record["size"])
        and all(map(whole, record["size"])),
        "preprocess.mean": numbers(record["mean"]),
        "preprocess.std": numbers(record["std"]),
        "preprocess.interpolation": isinstance(record["interpolation"], str),
        "preprocess.resize": record["resize"] is None or whole(record["resize"]),
        "preprocess.alphabet": isinstance(record.get("alphabet", ""), str),
    }


def refuse_wrong(right: Mapping[str, bool], lines: Mapping[str, str], where: object) -> None:
    """Refuse the first field that does not hold what it may, with an example of its line."""
    for name, fine in right.items():
        if not fine:
            _, dot, inner = name.partition(".")
            raise Refused(f"{where}: {name} is not valid: write it like {PREPROCESS[inner] if dot else lines[name]}")


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def numbers(value: Any) -> bool:
    """Whether it is a list of finite numbers, which float32 can hold."""
    if not isinstance(value, list) or not value or not all(whole(v) or isinstance(v, float) for v in value):
        return False
    return all(abs(v) < 1e38 for v in value)
