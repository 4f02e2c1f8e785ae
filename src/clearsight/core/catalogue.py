"""The catalogue: what methods exist, found by looking in a folder, and how a call of one is spelled.

A method is one function in one file.  The decorator only wraps it; nothing is registered anywhere, so the order of
imports cannot matter.  A call has one spelling everywhere: ``pgd(eps=8/255, steps=20)``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import math
import pkgutil
import sys
import types
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from clearsight.core.method_files import PACKAGE, read_method
from clearsight.core.methods import Method as Method
from clearsight.core.methods import method as method
from clearsight.errors import Refused, nearest

FOLDERS = (
    "explainers", "attacks", "metrics", "checks", "visualisations", "augmentations", "corruptions", "purifiers",
    "networks", "detectors", "segmenters", "defences", "guides", "rebalancing", "thieves", "answer_defences",
)  # fmt: skip


@functools.cache
def catalogue(folder: str) -> dict[str, Method]:
    """All methods of one kind, by name.  Each file of the kind's folder holds exactly one; subpackages hold none.

    The files are read as text; a method's module is imported when its function is needed.

    Args:
        folder: the kind: "explainers", "attacks", "metrics", "checks", "visualisations", "augmentations",
            "corruptions", "purifiers", "networks", "detectors", "segmenters", "defences", "guides", "rebalancing",
            "thieves" or "answer_defences".

    Refused: another kind.
    """
    if folder not in FOLDERS:
        raise Refused(f"no catalogue {folder!r}: {nearest(folder, FOLDERS)}")
    methods = {}
    for info in pkgutil.iter_modules([str(PACKAGE / folder)]):
        if not info.ispkg:  # common/ is what several methods of the kind share
            found = read_method(f"clearsight.{folder}.{info.name}")
            methods[found.name] = found
    return dict(sorted(methods.items(), key=lambda item: (item[1].order, item[0])))


@dataclass(frozen=True)
class Call:
    """A method and the options it is called with; ``str`` gives the spelling that ``parse`` reads back."""

    method: Method
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = ", ".join(f"{k}={write_value(v)}" for k, v in self.options.items())
        return f"{self.method.name}({words})" if words else self.method.name

    def with_options(self, **options: Any) -> Call:
        return Call(self.method, {**self.options, **options})


def method_name(spelling: str) -> str:
    """The name of the method in its spelling.

    >>> method_name("integrated-gradients(steps=50)")
    'integrated-gradients'
    """
    return spelling.partition("(")[0].strip()


def parse(spelling: str | Call, folder: str) -> Call:
    """``integrated-gradients(steps=50)`` -> the method and its options, typed by the function's own signature.

    A method of the user's own file is spelled ``./mine.py:my_cam(k=3)``.  Unknown names and options are refused with
    the nearest real ones.

    >>> parse("integrated-gradients(steps=9)", "explainers").options
    {'steps': 9}
    """
    if isinstance(spelling, Call):
        return spelling
    name, bracket, arguments = spelling.strip().partition("(")
    name = name.strip()
    if bracket and not arguments.rstrip().endswith(")"):
        raise Refused(f"{spelling!r}: a bracket is not closed; a call is spelled name(option=value, ...)")
    chosen = _from_file(name) if ".py:" in name else catalogue(folder).get(name.lower().replace("_", "-"))
    if chosen is None:
        raise Refused(f"no method {name!r} among the {folder}: {nearest(name.replace('_', '-'), catalogue(folder))}")
    options: dict[str, Any] = {}
    allowed = {n: p for n, p in chosen.parameters.items() if n in chosen.options or n in _SPELLED & chosen.injected}
    for part in split_calls(arguments.rstrip()[:-1]):
        key, equals, text = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise Refused(f"{part.strip()!r} in {spelling!r}: options are written option=value")
        if key not in allowed:
            raise Refused(f"{chosen.name} has no option {key!r}: {_instead(chosen, key, allowed)}")
        if key in options:
            raise Refused(f"{chosen.name} is given {key!r} twice")
        options[key] = _read(text.strip(), allowed[key].annotation, f"{chosen.name}({key}=...)")
    return Call(chosen, options)


def _instead(found: Method, key: str, allowed: Collection[str]) -> str:
    """What to do about an option that is not there."""
    if key in found.parameters and found.parameters[key].default is not inspect.Parameter.empty:
        return f"options stand behind a * in the function's signature, as in (..., *, {key}=...)"
    return nearest(key, allowed) if allowed else "it has none"


_SPELLED = frozenset({"eps"})  # what the runner gives, but a spelling may state


def split_calls(text: str) -> list[str]:
    """Split at the commas that stand outside all brackets and quotes; empty parts are dropped.

    >>> split_calls("grad-cam, smooth-grad(inner=saliency, samples=4)")
    ['grad-cam', 'smooth-grad(inner=saliency, samples=4)']
    """
    parts, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
            if depth < 0:
                raise Refused(f"{text!r}: a bracket is closed that was not opened")
        elif c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if depth or quote:
        raise Refused(f"{text!r}: a bracket or a quote is not closed")
    return [p.strip() for p in [*parts, text[start:]] if p.strip()]


def number(text: str) -> float:
    """A number, also as a fraction.

    >>> number("8/255") == 8 / 255
    True
    """
    top, slash, bottom = text.partition("/")
    value = float(top) / float(bottom) if slash else float(top)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _read(text: str, kind: Any, where: str) -> Any:
    quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    if quoted:
        text = text[1:-1]
    if get_origin(kind) in (Union, types.UnionType):
        if text.lower() == "none" and not quoted and type(None) in get_args(kind):
            return None
        kind = next(k for k in get_args(kind) if k is not type(None))
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if str(choice) == text:
                return choice
        raise Refused(f"{where} cannot be {text!r}: {nearest(text, map(str, get_args(kind)))}")
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if kind is int:
            return int(text)
        if kind is float:
            return number(text)
    except (ValueError, KeyError, ZeroDivisionError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number such as 0.5 or 8/255"}
        raise Refused(f"{where} cannot be {text!r}: it is {kinds[kind]}") from None
    if kind is str:
        return text
    raise TypeError(f"{where}: options of type {kind} cannot be spelled")


def write_value(value: Any) -> str:
    """A value as it is spelled in a call: 8/255, true, mean."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        whole = value * 255
        if len(repr(value)) > 6 and round(whole) and value == round(whole) / 255:
            return f"{round(whole)}/255"
        return repr(value)
    text = str(value)
    if isinstance(value, str) and _is_a_call(text):
        return text
    if isinstance(value, str) and (text.strip().lower() in ("", "none") or set(text) & set(" ()[],'\"")):
        return f"'{text}'" if '"' in text else f'"{text}"'
    return text


def _is_a_call(text: str) -> bool:
    """Whether text reads as name(...), which needs no quotes inside another call, however deep."""
    name, bracket, arguments = text.partition("(")
    if not bracket or not arguments.endswith(")") or set(name) & set(" )[],'\"="):
        return False
    try:
        split_calls(arguments[:-1])
    except Refused:
        return False
    return True


def module_of(file: Path) -> types.ModuleType:
    """Run a Python file of the user's and return it as a module; whatever it raises is raised."""
    place = hashlib.sha256(str(file.resolve()).encode(errors="backslashreplace")).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"clearsight_user_{file.stem}_{place}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickling inside the file look it up
    spec.loader.exec_module(module)
    return module


def _from_file(spelling: str) -> Method:
    """``./mine.py:my_cam`` -> the function of the user's own file, decorated or not."""
    path, _, name = spelling.rpartition(":")
    file = Path(path)
    if not file.is_file():
        raise Refused(f"no file {path!r} for the method {spelling!r}")
    try:
        module = module_of(file)
    except Exception as e:
        raise Refused(f"{path} cannot be imported: {type(e).__name__}: {e}") from e
    value = getattr(module, name, None)
    if isinstance(value, Method):
        return Method(value.fn, value.paper, value.claims, spelling, advice=value.advice, mend=value.mend)
    if callable(value):
        return Method(value, name=spelling)
    functions = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
    raise Refused(f"{path} has no function {name!r}: {nearest(name, functions)}")
