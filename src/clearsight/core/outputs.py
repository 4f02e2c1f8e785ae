"""What a network returns, and which part of it holds the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from clearsight.errors import Refused

_DEEP = 4  # levels of nested parts that are searched and listed


def pick(out: Any, output: str | int | None) -> Tensor:
    """The scores in whatever a network returned, or a refusal that names what there is.

    output: the number or the name of a part (of a tuple, a list, a dict, a named tuple, a dataclass or another object),
    or a path of them with dots between, "out.logits" or "heads.1".  A name that holds dots itself comes before a path.

    >>> import torch
    >>> pick({"out": [torch.zeros(1, 2), torch.ones(1, 2)]}, "out.1")
    tensor([[1., 1.]])
    """
    if output is not None:
        if isinstance(out, Tensor):
            raise Refused(f"the network's output is {shape_of(out)}, without parts: leave output={output!r} out")
        parts = _parts_at(out, output)
        if not parts:
            raise Refused(f"the network's output has no part {output!r}: it is {shape_of(out)}", _advice(out))
        if len({id(part) for part in parts}) > 1:
            raise Refused(
                f"output={output!r} means several parts of what the network returns, {shape_of(out)}",
                "let forward use names without dots",
            )
        if not isinstance(parts[0], Tensor):
            what = shape_of(parts[0])
            raise Refused(f"part {output!r} of the network's output is {what}, not a tensor", _advice(out))
        return parts[0]
    if not isinstance(out, Tensor):
        raise Refused(f"the network returns {shape_of(out)}, not a tensor", _advice(out))
    return out


def paths(out: Any) -> list[tuple[str | int, Tensor]]:
    """What output= can be, each with the tensor that it picks; parts that no word picks alone are left out."""
    if isinstance(out, Tensor):
        return []
    choices: list[tuple[str | int, Tensor]] = []
    for words, t in _tensors(out, ()):
        path = words[0] if len(words) == 1 and isinstance(words[0], int) else ".".join(map(str, words))
        parts = _parts_at(out, path)
        if parts and all(part is t for part in parts):
            choices.append((path, t))
    return choices


def reports_boxes(out: Any) -> bool:
    """Whether a network returned a dict with boxes, scores and labels for each picture, as torchvision's detectors."""
    return (
        isinstance(out, list)
        and bool(out)
        and all(isinstance(o, Mapping) and {"boxes", "scores"} <= o.keys() for o in out)
    )


def _advice(out: Any) -> str:
    """What to do about a refusal: the line that picks the scores, rows of them before anything else."""
    if reports_boxes(out):
        return (
            "these boxes are those left after suppression, as many as there happen to be: give the candidates before "
            'it; cs.load("torchvision:fasterrcnn_resnet50_fpn", weights=FILE, labels=[...]) does, and so do the others '
            "of torchvision's and clearsight methods detectors"
        )
    choices = paths(out)
    if not choices:
        return "let forward return one tensor (B, K), a row of scores for each picture"
    rows = [path for path, t in choices if t.dim() == 2]
    return f"say where the scores are, output={rows[0] if rows else choices[0][0]!r}"


def _tensors(out: Any, words: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    if isinstance(out, Tensor):
        yield words, out
    elif len(words) < _DEEP:
        for word, part in _parts(out).items():
            yield from _tensors(part, (*words, word))


def _parts(out: Any) -> dict[Any, Any]:
    """The parts of a dict, a tuple, a list or an object, by their names or numbers."""
    if isinstance(out, Mapping):
        return dict(out.items())
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return {name: getattr(out, name) for name in out._fields}
    if isinstance(out, tuple | list):
        return dict(enumerate(out))
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        return {f.name: getattr(out, f.name, None) for f in dataclasses.fields(out)}
    if isinstance(out, Tensor) or not hasattr(out, "__dict__"):
        return {}
    return {name: part for name, part in vars(out).items() if not name.startswith("_")}


def _parts_at(out: Any, output: str | int) -> list[Any]:
    """What a name or a path may mean: what has that very name, or else all that the path leads to."""
    exact = _part(out, output)
    if exact or isinstance(output, int):
        return exact
    parts = []
    for i, letter in enumerate(output):
        if letter == ".":
            for part in _part(out, output[:i]):
                parts += _parts_at(part, output[i + 1 :])
    return parts


def _part(out: Any, word: str | int) -> list[Any]:
    """The one part of that name or number, or none."""
    if isinstance(out, Tensor):
        return []
    number = _number(word)
    parts = _parts(out)
    for key in (word, str(word), number):
        if key is not None and key in parts:
            return [parts[key]]
    if number is not None and isinstance(out, tuple | list):  # -1 is the last, and named tuples have numbers too
        return [out[number]] if -len(out) <= number < len(out) else []
    if number is not None and isinstance(out, Mapping) and hasattr(out, "to_tuple"):  # transformers' ModelOutput
        whole = out.to_tuple()
        return [whole[number]] if -len(whole) <= number < len(whole) else []
    if isinstance(word, str) and word.isidentifier() and not isinstance(out, Mapping | list | tuple):
        part = getattr(out, word, None)  # a property
        return [] if part is None or callable(part) else [part]
    return []


def _number(word: str | int) -> int | None:
    if isinstance(word, int):
        return word
    return int(word) if word.removeprefix("-").isdecimal() else None


def shape_of(out: Any, deep: int = 0) -> str:
    """What a network returned, in words."""
    if isinstance(out, Tensor):
        return f"a tensor {tuple(out.shape)}"
    kind = "dict" if isinstance(out, Mapping) else type(out).__name__
    parts = _parts(out)
    if not parts or deep == _DEEP:
        return f"a {kind}"
    joint = "with" if isinstance(out, Mapping) else "of"
    entries = ", ".join(f"{k!r}: {shape_of(v, deep + 1)}" for k, v in list(parts.items())[:12])
    return f"a {kind} {joint} {entries}{', ...' if len(parts) > 12 else ''}"
