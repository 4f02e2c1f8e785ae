"""What a method is: a function, and what is known of it without running it."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

Parameters = dict[str, inspect.Parameter]


class Method:
    """A function, with what the command line, the docs, the audit and the tests need to know of it.

    paper, claims, name, order, validate, advice, mend: see `method`.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        paper: str = "",
        claims: frozenset[str] = frozenset(),
        name: str = "",
        order: int = 100,
        validate: Callable[..., None] | None = None,
        advice: str = "",
        mend: str = "",
    ) -> None:
        self._fn, self._validate = fn, validate
        self.paper, self.claims, self.order, self.advice, self.mend = paper, claims, order, advice, mend
        self.name = name or self.file.replace("_", "-")

    def __repr__(self) -> str:
        return f"<Method {self.name} of {self.module}>"

    @property
    def fn(self) -> Callable[..., Any]:
        return self._fn

    @property
    def validate(self) -> Callable[..., None] | None:
        return self._validate

    @property
    def module(self) -> str:
        """The name of the module that holds the function."""
        return self.fn.__module__

    @property
    def module_doc(self) -> str:
        """The docstring of that module."""
        return inspect.cleandoc(getattr(sys.modules.get(self.module), "__doc__", "") or "")

    @property
    def file(self) -> str:
        """The name of its file, without the suffix."""
        return self.module.rpartition(".")[2]

    @property
    def doc(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.fn) or ""

    @functools.cached_property
    def parameters(self) -> Parameters:
        """Of the function, in their order; annotated by types where a caller may set them."""
        return dict(inspect.signature(self.fn, eval_str=True).parameters)

    @functools.cached_property
    def takes(self) -> str:
        """The name of the type of model that it takes, as its first parameter is annotated: "Model" is every kind.

        "Detector | Segmenter" is two of them, "" where that is not annotated.
        """
        first = next(iter(inspect.signature(self.fn).parameters.values()), None)
        given = "" if first is None or first.annotation is first.empty else first.annotation
        return given if isinstance(given, str) else getattr(given, "__name__", "") or str(given)

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]

    @property
    def prose(self) -> str:
        """The docstring without its ``Args:`` block."""
        return split_args(self.doc)[0]

    @property
    def option_help(self) -> dict[str, str]:
        """The text of each option in the ``Args:`` block of the docstring, on one line; empty where it has none."""
        entries = dict(split_args(self.doc)[1])
        return {name: entries.get(name, "") for name in self.options}

    @functools.cached_property
    def options(self) -> Parameters:
        """What a caller may set: the keyword-only parameters with a default, all of them typed."""
        return {n: p for n, p in self.parameters.items() if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}

    @functools.cached_property
    def injected(self) -> frozenset[str]:
        """What the runner gives: the keyword-only parameters without a default (eps, regions)."""
        only = {n: p for n, p in self.parameters.items() if p.kind is p.KEYWORD_ONLY}
        return frozenset(n for n, p in only.items() if p.default is p.empty)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.fn(*args, **options)


class FiledMethod(Method):
    """A method that was read as text, see `method_files`; its module is imported when the function is needed."""

    def __init__(
        self,
        module: str,
        module_doc: str,
        function: str,
        doc: str,
        parameters: Parameters,
        about: dict[str, Any],
        takes: str = "",
    ) -> None:
        self._module, self._module_doc, self._function, self._doc = module, module_doc, function, doc
        self.__dict__.update(parameters=parameters, takes=takes)
        self.paper, self.claims = about.get("paper", ""), frozenset(about.get("claims", "").split())
        self.order, self.advice, self.mend = about.get("order", 100), about.get("advice", ""), about.get("mend", "")
        self.name = about.get("name", "") or self.file.replace("_", "-")

    @functools.cached_property
    def imported(self) -> Method:
        """The method that the module holds."""
        found: Method = getattr(importlib.import_module(self._module), self._function)
        return found

    @property
    def fn(self) -> Callable[..., Any]:
        return self.imported.fn

    @property
    def validate(self) -> Callable[..., None] | None:
        return self.imported.validate

    @property
    def module(self) -> str:
        return self._module

    @property
    def module_doc(self) -> str:
        return self._module_doc

    @property
    def doc(self) -> str:
        return self._doc


def method(
    *,
    paper: str,
    claims: str = "",
    order: int = 100,
    name: str = "",
    validate: Callable[..., None] | None = None,
    advice: str = "",
    mend: str = "",
) -> Callable[[Callable[..., Any]], Method]:
    """Mark the one function of a file as its method.

    Args:
        paper: where the method comes from, "arXiv:1610.02391" or "doi:10.1145/3065386".
        claims: words with blanks between them, each of which the contract tests, such as "signed few-passes".  A check
            that claims "by-name" costs too much to run unless it is named.
        order: place among the methods of its kind, before the alphabet.
        name: spelling of the method, if that cannot be the name of its file (grad-cam++).
        validate: of a check, a function that refuses impossible values of its options.  It gets the case and all
            options before anything is read.
        advice: of a check, what to do first if it fails, as it ends a sentence ("look at the wrong pictures").
        mend: of a check, the options of ``clearsight train`` that mend what it fails for, as they are typed.  {eps}
            stands for the check's own option eps, {marks} for the annotations of the pictures.
    """
    return lambda fn: Method(fn, paper, frozenset(claims.split()), name, order, validate, advice, mend)


def split_args(doc: str) -> tuple[str, list[tuple[str, str]]]:
    r"""A docstring without its ``Args:`` block, and the entries of the block: (name, text on one line).

    The block begins at the line ``Args:`` and ends at the first blank line.  An entry is ``name: text``, indented by
    four spaces; lines that are indented by more belong to the entry above them.

    >>> split_args("A mean.\n\nArgs:\n    k: number of\n        samples.\n\nRefused: k of 0.")
    ('A mean.\n\nRefused: k of 0.', [('k', 'number of samples.')])
    """
    lines = doc.split("\n")
    if "Args:" not in lines:
        return doc, []
    start = lines.index("Args:")
    end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
    entries: list[str] = []
    for line in lines[start + 1 : end]:
        if entries and line.startswith(" " * 5):
            entries[-1] += f" {line}"
        else:
            entries.append(line)
    halves = [entry.partition(":") for entry in entries]
    prose = "\n".join([*lines[:start], *lines[end + 1 :]]).strip()
    return prose, [(name.strip(), " ".join(text.split())) for name, _, text in halves]
