"""The layers of the package: every import points down, no files import in a circle, and what is private stays private.

Imports inside functions and those for type checkers count like all others.  There are no exceptions.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import clearsight as cs

SRC = Path(cs.__file__).parent
# from the lowest to the highest; what stands on one line does not import each other
LEVELS = (
    "errors _version",
    "core",
    "networks augmentations corruptions perturbation internals drawing",
    "models reporting",
    "data attacks metrics",
    "runner explainers",
    "auditing",
    "explaining attacking training inspecting feature_report checks",
    "curation demos comparing visualisations",
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


def imports(src: Path) -> list[Import]:
    """Every import of the package by itself, wherever in a file it stands."""
    known = modules(src)
    found = []
    for by, file in known.items():
        home = by if file.name == "__init__.py" else by.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
        private = [part for part in path[1:] if part.startswith("_") and not part.endswith("__")]
        if private and top(one.by) != path[0]:
            found.append(str(one))
    return found


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
