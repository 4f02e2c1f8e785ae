"""Read what a method's file says of it without importing it, and so without torch.

Options and their types are written as plain expressions: literals, constants of this package, types.  A file that says
more than can be read is imported.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import math
import typing
from pathlib import Path
from typing import Any

from clearsight.core.methods import FiledMethod, Method, Parameters

PACKAGE = Path(__file__).resolve().parent.parent
READABLE = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Tuple, ast.List, ast.Dict, ast.Subscript, ast.Attribute,
    ast.UnaryOp, ast.USub, ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.BitOr, ast.JoinedStr,
    ast.FormattedValue,
)  # fmt: skip
_MODULES = {"math": math, "typing": typing}  # others are not looked into


class _UnreadableError(Exception):
    """Raised where a text means something only when it is run."""


class _Module:
    """The text of a module: what its names stand for."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = PACKAGE.joinpath(*name.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.tree = ast.parse(file.read_text(encoding="utf-8"))
        self.values: dict[str, ast.expr] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        for node in self.tree.body:
            self._note(node)

    def _note(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self.values[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            self.values[node.target.id] = node.value
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            self.imports |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        elif isinstance(node, ast.Import):
            self.imports |= {a.asname or a.name: (a.name, "") for a in node.names}

    def method(self) -> tuple[ast.FunctionDef, ast.Call] | None:
        """The one function that `method` marks, and its decorator; None where there is not just one."""
        found = [
            (node, mark)
            for node in self.tree.body
            if isinstance(node, ast.FunctionDef)
            for mark in node.decorator_list
            if isinstance(mark, ast.Call) and isinstance(mark.func, ast.Name) and mark.func.id == "method"
        ]
        return found[0] if len(found) == 1 else None

    def evaluate(self, expression: ast.expr) -> Any:
        """The value of a plain expression in this module."""
        nodes = list(ast.walk(expression))
        if not all(isinstance(n, READABLE) for n in nodes):
            raise _UnreadableError
        names = {n.id: self._value(n.id) for n in nodes if isinstance(n, ast.Name)}
        text = compile(ast.Expression(expression), f"<{self.name}>", "eval")
        return eval(text, {"__builtins__": {}}, names)

    def _value(self, name: str) -> Any:
        if name in self.values:
            return self.evaluate(self.values[name])
        module, inside = self.imports.get(name, ("", ""))
        if module.startswith("clearsight.") and inside:
            return _module(module)._value(inside)
        if module in _MODULES:
            return getattr(_MODULES[module], inside) if inside else _MODULES[module]
        if not module and hasattr(builtins, name):
            return getattr(builtins, name)
        raise _UnreadableError

    def parameters(self, function: ast.FunctionDef) -> Parameters:
        """The parameters of a function; only those that a caller may set are annotated."""
        given = function.args
        positional = [*given.posonlyargs, *given.args]
        defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
        keywords = zip(given.kwonlyargs, given.kw_defaults, strict=True)
        return {
            **{a.arg: self._parameter(a, d, keyword=False) for a, d in zip(positional, defaults, strict=True)},
            **{a.arg: self._parameter(a, d, keyword=True) for a, d in keywords},
        }

    def _parameter(self, given: ast.arg, default: ast.expr | None, *, keyword: bool) -> inspect.Parameter:
        empty = inspect.Parameter.empty
        spelled = keyword and (default is not None or given.arg == "eps")
        return inspect.Parameter(
            given.arg,
            inspect.Parameter.KEYWORD_ONLY if keyword else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=empty if default is None else self.evaluate(default),
            annotation=self.evaluate(_unquoted(given.annotation))
            if spelled and given.annotation is not None
            else empty,
        )


def _unquoted(annotation: ast.expr) -> ast.expr:
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return ast.parse(ast.literal_eval(annotation), mode="eval").body if quoted else annotation


def _first_type(function: ast.FunctionDef) -> str:
    """The annotation of the first parameter, as a name; "" where it has none."""
    first = next(iter([*function.args.posonlyargs, *function.args.args]), None)
    return "" if first is None or first.annotation is None else ast.unparse(_unquoted(first.annotation))


_module = functools.cache(_Module)


def read_method(module: str) -> Method:
    """The one method of a module of this package."""
    source = _Module(module)
    marked = source.method()
    try:
        if marked is not None:
            function, mark = marked
            return FiledMethod(
                module,
                ast.get_docstring(source.tree) or "",
                function.name,
                ast.get_docstring(function) or "",
                source.parameters(function),
                {str(k.arg): source.evaluate(k.value) for k in mark.keywords if k.arg != "validate"},
                _first_type(function),
            )
    except _UnreadableError:
        pass
    return _imported(module)


def _imported(name: str) -> Method:
    module = importlib.import_module(name)
    in_module = [v for v in vars(module).values() if isinstance(v, Method) and v.module == name]
    if len(in_module) != 1:
        raise TypeError(f"{name} must hold exactly one method, has {len(in_module)}")
    return in_module[0]
