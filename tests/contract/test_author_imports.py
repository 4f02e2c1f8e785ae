"""The imports that CONTRIBUTING promises to authors of methods work, each by itself, and hold what the table names."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from thinning import with_slow

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("### What a method may import\n")[2]
LINES = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)
PROMISED = (
    "from clearsight import Classifier, Target, Goal, method, Refused",
    "from clearsight.core import batching, diagnostics, norms, rng",
    "from clearsight.internals import layers",
)
CORE = ("batching", "diagnostics", "norms", "rng")
HOMES = {"layers": "clearsight.internals"} | dict.fromkeys(CORE, "clearsight.core")
FUNCTIONS = re.findall(r"`(\w+)\.(\w+)`", SECTION.partition("\nTo try a method")[0].partition("\n|")[2])


def test_contributing_states_the_promised_lines():
    assert LINES is not None
    assert tuple(LINES[1].splitlines()) == PROMISED
    assert {module for module, _ in FUNCTIONS} == set(HOMES)  # the table names something of each module


@pytest.mark.parametrize("line", with_slow(PROMISED, *PROMISED[1:]))
def test_each_line_works_in_a_fresh_process(line):
    subprocess.run([sys.executable, "-W", "error", "-c", line], check=True, capture_output=True, text=True)


@pytest.mark.parametrize(("module", "function"), FUNCTIONS)
def test_each_function_of_the_table_is_there_and_documented(module, function):
    there = getattr(importlib.import_module(f"{HOMES[module]}.{module}"), function)
    assert callable(there)
    assert there.__doc__
