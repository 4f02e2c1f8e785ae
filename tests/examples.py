"""The examples in the docstring of a method are run, and hold."""

from __future__ import annotations

import doctest
import importlib

import torch

from clearsight.core.methods import Method


def check_examples(m: Method) -> None:
    """Run them with the names of the method's file, and torch; what they draw moves no other test's numbers."""
    space = vars(importlib.import_module(m.module)) | {m.fn.__name__: m, "torch": torch}
    runner = doctest.DocTestRunner()
    with torch.random.fork_rng():
        for test in doctest.DocTestFinder(recurse=False).find(m.fn, m.name, globs=space):
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries
