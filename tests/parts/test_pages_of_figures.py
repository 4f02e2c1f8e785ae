"""Figures are written anew in place: a section changes, and the prose beside it stays."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PAGE = """# Figures

Before.

<!-- begin one -->
| old |
<!-- end one -->

Between, with <!-- begin -->.

<!-- begin two -->
<!-- end two -->

After.
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    def imported(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)

    return imported


def test_a_section_changes_and_nothing_else(script, tmp_path):
    file = tmp_path / "page.md"
    file.write_text(PAGE, encoding="utf-8")
    sections = script("sections")
    sections.write(file, "one", "| new |\n\nBuild x.\n")
    sections.write(file, "two", "| 2 |")
    expected = PAGE.replace("| old |", "| new |\n\nBuild x.").replace("<!-- begin two -->", "<!-- begin two -->\n| 2 |")
    assert file.read_text(encoding="utf-8") == expected
    assert sections.names(expected) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("three", PAGE),
        ("one", PAGE.replace("<!-- end one -->", "")),
        ("one", PAGE + PAGE),
        ("one", "<!-- end one -->\n<!-- begin one -->\n"),
    ],
    ids=["none", "no end", "twice", "end first"],
)
def test_a_section_that_is_not_there_once_is_refused(script, name, page):
    with pytest.raises(ValueError, match="write the two lines"):
        script("sections").replaced(page, name, "x")


def test_a_table_says_which_columns_hold_numbers_and_is_never_empty(script):
    table = script("sections").table("| call | s: |", ["| x | 1 |"])
    assert table == "| call | s |\n|---|---:|\n| x | 1 |"
    with pytest.raises(SystemExit, match="no row"):
        script("sections").table("| call | s: |", [])


def test_every_section_of_the_command_has_its_place(script):
    wanted = {"speed.md": {*script("speed").SECTIONS} - {"explainers"}, "large.md": {"report"}}
    wanted["explainer_peers.md"] = {"demo", "torchvision:resnet50"}  # what explainer_peers.py measures without words
    for page, names in wanted.items():
        text = (BENCHMARKS / page).read_text(encoding="utf-8")
        assert {*script("sections").names(text)} == names
        for name in names:
            assert script("sections").replaced(text, name, "x") != text
