"""The layers of the package: every import points down, no files import in a circle, and what is private stays private.

Imports inside functions and those for type checkers count like all others.  There are no exceptions.  Tests, benchmarks
and the code in the documentation use public names alone.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

import clearsight as cs

SRC = Path(cs.__file__).parent
ROOT = Path(__file__).parents[2]
# from the lowest to the highest; what stands on one line does not import each other
LEVELS = (
    "errors _version",
    "core",
    "kinds",
    "sharding",
    "backbones",
    "networks detectors segmenters augmentations corruptions purifiers perturbation internals drawing engines",
    "models reporting",
    "data attacks metrics evaluation defences guides rebalancing thieves answer_defences",
    "runner explainers",
    "auditing",
    "stealing",
    "explaining attacking training inspecting feature_report exporting checks",
    "curation comparing visualisations serving",
    "demos",
    "cli",
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names.split()}
ABOVE_ALL = ("", "__main__", "testing")  # "" is clearsight/__init__.py itself


class Import(NamedTuple):
    """One name that one file imports; both modules are named without ``clearsight.``."""

    by: str
    module: str
    name: str  # what is taken out of the module; "" where the module itself is imported

    def __str__(self) -> str:
        return f"{self.by} imports {self.module or 'clearsight'}{self.name and ': ' + self.name}"


def modules(src: Path) -> dict[str, Path]:
    """Every module of the package, ``core.norms``, and its file; a package is named like its folder."""
    found = {}
    for file in sorted(src.rglob("*.py")):
        parts = file.relative_to(src).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@functools.cache
def _nodes(code: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(code)))


def imports(src: Path) -> list[Import]:
    """Every import of the package by itself, wherever in a file it stands."""
    known = modules(src)
    found = []
    for by, file in known.items():
        home = by if file.name == "__init__.py" else by.rpartition(".")[0]
        for node in _nodes(file.read_text(encoding="utf-8")):
            for module, name in _imported(node, home):
                inner = f"{module}.{name}".strip(".")
                found.append(Import(by, inner, "") if name and inner in known else Import(by, module, name))
    return found


def _imported(node: ast.AST, home: str) -> list[tuple[str, str]]:
    """What one statement imports from the package: (module, name).  home: the package that ``.`` stands for."""
    if isinstance(node, ast.Import):
        return [(_below(alias.name), "") for alias in node.names if _is_ours(alias.name)]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        parts = f"clearsight.{home}".strip(".").split(".")
        module = ".".join([*parts[: len(parts) - node.level + 1], *([module] if module else [])])
    if not _is_ours(module):
        return []
    return [(_below(module), alias.name) for alias in node.names]


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == "clearsight"


def _below(module: str) -> str:
    """``clearsight.core.norms`` -> ``core.norms``."""
    return module.partition(".")[2]


def top(module: str) -> str:
    """The package, or the module directly below clearsight, that a module belongs to."""
    return module.partition(".")[0]


def without_a_level(src: Path) -> list[str]:
    """Packages and modules directly below clearsight that LEVELS does not place, and those that it alone knows."""
    return sorted({top(module) for module in modules(src)} ^ {*LEVEL, *ABOVE_ALL})


def pointing_up(src: Path) -> list[str]:
    """Imports from a higher level, or from another package on the same one."""
    highest = len(LEVELS)
    found = []
    for one in imports(src):
        by, module = top(one.by), top(one.module)
        higher = LEVEL.get(module, highest) >= LEVEL.get(by, highest)
        if by not in ABOVE_ALL and by != module and higher:
            found.append(str(one))
    return found


def circle(src: Path) -> list[str]:
    """The files of one circle of imports, in their order; nothing where there is none."""
    graph: dict[str, set[str]] = {module: set() for module in modules(src)}
    for one in imports(src):
        if one.by != one.module:
            graph[one.by].add(one.module)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def with_a_public_name(src: Path, public: list[str]) -> list[str]:
    """Packages and modules directly below clearsight that are named like something public."""
    return sorted({top(module) for module in modules(src)} & set(public))


def private_and_elsewhere(src: Path) -> list[str]:
    """Imports of a private name, or of anything in a private module, from another package than one's own.

    What lies directly below clearsight, as ``_version``, belongs to clearsight, and so to all of them.
    """
    found = []
    for one in imports(src):
        path = f"{one.module}.{one.name}".strip(".").split(".")
        if any(is_private(part) for part in path[1:]) and top(one.by) != path[0]:
            found.append(str(one))
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def private_names(code: str) -> set[str]:
    """The private names of clearsight that code outside of it uses: modules, functions, classes, constants and methods.

    They are found in imports, in attributes of what was imported, and in strings that say what ``setattr`` and the like
    are to change.
    """
    nodes = list(ast.walk(ast.parse(code)))
    ours: dict[str, str] = {}  # a name in this code -> what it stands for
    used = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_ours(alias.name):
                    used.add(alias.name)
                    ours[alias.asname or "clearsight"] = alias.name if alias.asname else "clearsight"
        elif isinstance(node, ast.ImportFrom) and not node.level and _is_ours(node.module or ""):
            whole = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            used.update(whole.values())
            ours |= whole
    for node in nodes:
        if isinstance(node, ast.Attribute):
            used.add(_dotted(node, ours))
        elif isinstance(node, ast.Call) and _last(node.func) in ("setattr", "delattr", "getattr", "hasattr"):
            used.update(_named_in_words(node.args, ours))
    return {path for path in used if any(is_private(part) for part in path.split("."))}


def _dotted(node: ast.AST, ours: dict[str, str]) -> str:
    """``guard.put_back`` -> "clearsight.core.guard.put_back"; "" for what does not begin with a name of ours."""
    if isinstance(node, ast.Name):
        return ours.get(node.id, "")
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, ours)
        return owner and f"{owner}.{node.attr}"
    return ""


def _last(node: ast.AST) -> str:
    """``monkeypatch.setattr`` and ``setattr`` -> "setattr"."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _named_in_words(args: list[ast.expr], ours: dict[str, str]) -> Iterator[str]:
    """What ``setattr(guard, "put_back", ...)`` and ``setattr("clearsight.core.guard.put_back", ...)`` change."""
    words = [arg.value for arg in args[:2] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    for word in words:
        owner = _dotted(args[0], ours)
        if owner:
            yield f"{owner}.{word}"
        elif _is_ours(word):
            yield word


def code_of_a_page(text: str) -> Iterator[str]:
    """The Python in a page of documentation: what stands between ```python and ```."""
    yield from re.findall(r"^ *```python\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)


def test_every_package_has_a_level() -> None:
    assert not without_a_level(SRC)


def test_every_import_points_down() -> None:
    assert not pointing_up(SRC)


def test_no_files_import_in_a_circle() -> None:
    assert not circle(SRC)


def test_no_package_or_module_has_a_public_name() -> None:
    """Importing it would put it in the place of the function."""
    assert not with_a_public_name(SRC, cs.__all__)


def test_nothing_private_is_imported_by_another_package() -> None:
    assert not private_and_elsewhere(SRC)


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_code_outside_uses_public_names_alone(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    private = {str(file.relative_to(ROOT)): private_names(file.read_text(encoding="utf-8")) for file in files}
    assert not {file: names for file, names in private.items() if names}


def test_documentation_uses_public_names_alone() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [(page.name, code) for page in pages for code in code_of_a_page(page.read_text(encoding="utf-8"))]
    assert {"README.md", "CONTRIBUTING.md"} <= {page for page, _ in blocks}
    assert not [(page, names) for page, code in blocks if (names := private_names(dedent(code)))]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from clearsight.core.guard import _f", "clearsight.core.guard._f"),
        ("from clearsight.core._guard import f", "clearsight.core._guard.f"),
        ("from clearsight.core import _guard", "clearsight.core._guard"),
        ("import clearsight.core._guard", "clearsight.core._guard"),
        ("def f():\n    from clearsight.core import guard as g\n    return g._f(1)", "clearsight.core.guard._f"),
        ("import clearsight\nclearsight.core.guard._f", "clearsight.core.guard._f"),
        ("import clearsight.core.guard\nclearsight.core.guard._f", "clearsight.core.guard._f"),
        ("import clearsight as cs\ncs.Map._f", "clearsight.Map._f"),
        ("from clearsight.core import guard\npatch.setattr(guard, '_f', 1)", "clearsight.core.guard._f"),
        ("from clearsight.core.guard import Map\ngetattr(Map, '_f')", "clearsight.core.guard.Map._f"),
        ("patch.setattr('clearsight.core.guard._f', 1)", "clearsight.core.guard._f"),
    ],
)
def test_a_private_name_outside_is_seen(code: str, name: str) -> None:
    assert private_names(code) == {name}


@pytest.mark.parametrize(
    "code",
    [
        "from clearsight.core import guard\nguard.f.__name__",
        "from clearsight import __version__",
        "import torch\ntorch._C",
        "net._modules",
        "setattr(net, '_f', 1)",
    ],
)
def test_a_public_name_and_what_is_not_ours_may_be_used(code: str) -> None:
    assert not private_names(code)


def test_the_imports_are_seen() -> None:
    """All of them: at the top of a file, in a function, for type checkers; and no module is left out."""
    assert len(modules(SRC)) == len(list(SRC.rglob("*.py")))
    assert Import("core.norms", "core.rng", "") in imports(SRC)
    assert not [one for one in imports(SRC) if one.by == ""], "import clearsight costs nothing: see __init__.pyi"


@pytest.mark.parametrize(
    ("file", "line", "rule", "told"),
    [
        ("core/low.py", "from clearsight.data.rows import row", pointing_up, "core.low imports data.rows: row"),
        ("core/low.py", "import clearsight.data.rows", pointing_up, "core.low imports data.rows"),
        ("core/low.py", "import clearsight", pointing_up, "core.low imports clearsight"),
        ("core/low.py", "from ..data import rows", pointing_up, "core.low imports data.rows"),
        ("core/low.py", "def f():\n    from clearsight.data import rows", pointing_up, "core.low imports data.rows"),
        ("core/low.py", "if TYPE_CHECKING:\n    import clearsight.cli", pointing_up, "core.low imports cli"),
        ("metrics/one.py", "from clearsight.data import rows", pointing_up, "metrics.one imports data.rows"),
        ("errors.py", "from clearsight._version import v", pointing_up, "errors imports _version: v"),
        ("data/rows.py", "from clearsight.data.lists import f", circle, "data.lists"),
        ("data/rows.py", "def f():\n    from . import lists", circle, "data.lists"),
        ("cli/app.py", "from clearsight.data.rows import _f", private_and_elsewhere, "cli.app imports data.rows: _f"),
        ("cli/app.py", "from clearsight.data._own import f", private_and_elsewhere, "cli.app imports data._own: f"),
        ("cli/app.py", "from clearsight.data import _own", private_and_elsewhere, "cli.app imports data._own"),
        ("studio/app.py", "", without_a_level, "studio"),
    ],
)  # fmt: skip
def test_a_breach_is_seen(tmp_path: Path, file: str, line: str, rule, told: str) -> None:
    """Each rule on a package of few files, first as it may be and then with one line too much."""
    may_be = {
        "__init__.py": "from clearsight.data.rows import row",
        "_version.py": "",
        "data/__init__.py": "",
        "data/rows.py": "from clearsight._version import v",
        "data/_own.py": "from clearsight.data.rows import _row",
        "data/lists.py": "from clearsight.data import rows",
    }
    for name, text in may_be.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = rule(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    with (tmp_path / file).open("a") as written:
        written.write(f"\n{line}\n")
    new = [one for one in rule(tmp_path) if one not in before]
    assert any(one.startswith(told) for one in new)


def test_a_public_name_is_seen(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "__init__.py").touch()
    (tmp_path / "train.py").touch()
    assert with_a_public_name(tmp_path, cs.__all__) == ["audit", "train"]
