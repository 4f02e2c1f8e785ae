"""The tables of mutations speak of the code as it is: what they would break is there, just once."""

import runpy
from pathlib import Path

import pytest

TABLES = sorted((Path(__file__).parents[1] / "mutations").glob("*.py"))
SRC = Path(__file__).parents[2] / "src" / "clearsight"


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_what_a_mutation_would_break_is_there(table):
    found = runpy.run_path(str(table))
    changes = [(file, old, new) for file, pairs in found.get("METHODS", {}).items() for old, new in pairs]
    changes += [(file, old, new) for file, old, new, _ in found.get("CORE", [])]
    assert changes
    gone = [(file, old) for file, old, _ in changes if (SRC / file).read_text().count(old) != 1]
    assert not gone
    assert not [(file, old) for file, old, new in changes if old == new]
