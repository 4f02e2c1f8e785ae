"""Break every method on purpose and see the tests catch it: ``python tests/mutate.py [WORD]``.

The tables are in tests/mutations.  Each mutation is made in a copy of the tree, never in the tree itself.  The tests of
the default run are asked first, and the slow ones where those pass.  Exit code 1 where a mutation survives or is caught
by a slow test alone, or where a method of the catalogue is broken nowhere in the tables.
WORD: only the mutations whose file or text has it.
"""

import importlib
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

import pytest
import scipy.stats  # noqa: F401 (what the tests need is loaded once, before the forks; clearsight itself must not be)
import timm  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
# every test but those of the command line and of other libraries, of many minutes, and of the tables themselves
LEFT_OUT = {"test_networks", "test_sweep", "test_mutations"}
FOLDERS = ("values", "contract", "parts")
FILES = [f for folder in FOLDERS for f in sorted((ROOT / "tests" / folder).glob("test_*.py"))]
TESTS = [str(f.relative_to(ROOT)) for f in FILES if f.stem not in LEFT_OUT]
# whose every method must be in the tables
KINDS = (
    "explainers", "attacks", "metrics", "checks", "visualisations", "augmentations", "corruptions", "purifiers",
    "networks", "detectors", "segmenters", "rebalancing", "defences", "guides", "thieves", "answer_defences",
)  # fmt: skip
Files = dict[str, list[str]]  # of the default run, and slow ones
LIMIT = 180  # seconds; what takes longer hangs, and is caught


def tables(name: str) -> list[Any]:
    """What the files of tests/mutations say under this name."""
    files = sorted((ROOT / "tests" / "mutations").glob("*.py"))
    return [found[name] for f in files if name in (found := runpy.run_path(str(f)))]


METHODS = {file: changes for part in tables("METHODS") for file, changes in part.items()}
CORE = [change for part in tables("CORE") for change in part]


def table() -> list[tuple[str, str, str, str]]:
    found = []
    for file, changes in METHODS.items():
        name = Path(file).stem
        words = f"{name} or {name.replace('_', '-')}" if "_" in name else name
        words = f"test_checks or calibration or {words}" if file.startswith("checks/") else words
        found += [(file, old, new, words) for old, new in changes]
    return found + CORE


class Collected:
    """A plugin that notes of every test the file, whether it is slow, and the names by which -k knows it."""

    def __init__(self) -> None:
        self.tests: list[tuple[str, bool, str]] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            chain = [n.name for n in item.listchain() if not isinstance(n, pytest.Session | pytest.Directory)]
            names = [*chain, *item.listextrakeywords(), *(m.name for m in item.iter_markers())]
            slow = item.get_closest_marker("slow") is not None
            self.tests.append((str(item.path.relative_to(ROOT)), slow, "\n".join(names).lower()))


def collected() -> list[tuple[str, bool, str]]:
    """Every test: its file, whether it is slow, its names."""
    found = Collected()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        code = pytest.main(["--collect-only", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *TESTS], [found])
    if code != 0:
        raise RuntimeError("the tests cannot be collected: run pytest --collect-only")
    return found.tests


def files_of(words: str, tests: list[tuple[str, bool, str]]) -> Files:
    """The files with tests that words, an expression of -k, select: those of the default run, and the slow ones."""
    parts = re.findall(r"[()]|[^\s()]+", words)

    def chosen(names: str) -> bool:
        known = {"and", "or", "not", "(", ")"}
        return bool(eval(" ".join(p if p in known else str(p.lower() in names) for p in parts)))

    there = [(file, slow) for file, slow, names in tests if chosen(names)]
    return {kind: sorted({f for f, slow in there if slow == (kind == "slow")}) for kind in ("not slow", "slow")}


def run(words: str, files: Files, change: tuple[str, str, str] | None) -> tuple[str, float]:
    """What becomes of the tests that words select, in a copy with the change made; and the seconds taken."""
    began = time.perf_counter()
    multiprocessing.current_process()._config["daemon"] = False  # tests of workers start processes
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        for part in ("src", "tests", "benchmarks", "docs"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
            shutil.copy(ROOT / name, copy)
        if change:
            file, old, new = change
            path = copy / "src" / "clearsight" / file
            path.write_text(path.read_text().replace(old, new))
            signal.signal(signal.SIGALRM, too_long)
            signal.alarm(LIMIT)
        os.chdir(copy)
        sys.path.insert(0, str(copy / "src"))
        os.environ["PYTHONPATH"] = str(copy / "src")  # for processes that the tests start
        code = asked("not slow", words, files["not slow"])
        verdict = {0: "SURVIVED", 1: "caught", 5: "NO TESTS"}.get(code, f"pytest {code}")
        if change and code in (0, 5) and asked("slow", words, files["slow"]) == 1:
            verdict = "SLOW ALONE"
        signal.alarm(0)
        if code != 5 and not Path(importlib.import_module("clearsight").__file__).is_relative_to(copy):
            raise RuntimeError("the tests did not run the copy")
        os.chdir(ROOT)
    return verdict, time.perf_counter() - began


def asked(kind: str, words: str, files: list[str]) -> int:
    """The exit code of pytest for the tests of a kind in these files that words select; 5 where there are none."""
    if not files:
        return 5
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return int(pytest.main(["-xq", "-o", "addopts=", "-p", "no:cacheprovider", *files, "-k", words, "-m", kind]))


def too_long(*_: object) -> None:
    raise TimeoutError


def without_mutation() -> list[str]:
    """The files of the catalogue that the tables do not break."""
    from clearsight.core.catalogue import catalogue

    methods = [(kind, m.file) for kind in KINDS for m in catalogue(kind).values()]
    broken = {*METHODS, *(change[0] for change in CORE)}
    return [f"{kind}/{file}.py" for kind, file in methods if f"{kind}/{file}.py" not in broken]


def main() -> int:
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [m for m in table() if word in f"{m[0]} {m[1]} {m[2]}"]
    for file, old, _, _ in chosen:
        if (ROOT / "src" / "clearsight" / file).read_text().count(old) != 1:
            print(f"{file} does not hold {old!r} exactly once: mend the table")
            return 1
    if not chosen:
        print(f"no mutation has {word!r} in its file or text")
        return 1
    bad = 0
    every_test = " or ".join(dict.fromkeys(f"({m[3]})" for m in chosen))
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:  # torch is imported once, here
        tests = pool.apply(collected)
        whole = pool.apply_async(run, (every_test, files_of(every_test, tests), None))
        results = [pool.apply_async(run, (m[3], files_of(m[3], tests), m[:3])) for m in chosen]
        for (file, old, new, _), result in zip(chosen, results, strict=True):
            verdict, seconds = result.get()
            bad += verdict != "caught"
            print(f"{verdict:8}  {seconds:5.1f} s  {file}: {old}  ->  {new}", flush=True)
        if whole.get()[0] != "SURVIVED":
            print("the tests fail without any mutation: nothing above means anything")
            return 1
    missing = without_mutation()
    for file in missing:
        print(f"MISSING   {file}: add a mutation to the table")
    print(f"{len(chosen) - bad} of {len(chosen)} caught, {len(missing)} methods without a mutation")
    return 1 if bad or missing else 0


if __name__ == "__main__":
    sys.exit(main())
