"""What is read of a method's file without importing it is what the import gives."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from clearsight.core import method_files
from clearsight.core.catalogue import FOLDERS, catalogue
from clearsight.core.method_files import read_method
from clearsight.core.methods import FiledMethod, Method

METHODS = [(folder, m.module) for folder in FOLDERS for m in catalogue(folder).values()]
READ = ("name", "paper", "claims", "order", "advice", "mend", "doc", "module", "module_doc", "options", "injected")


@pytest.mark.parametrize(("folder", "module"), METHODS)
def test_what_is_read_is_what_is_imported(folder, module):
    read = read_method(module)
    assert type(read) is FiledMethod, "the file says more than can be read, so listing methods imports torch"
    imported = read.imported
    assert type(imported) is Method
    assert {k: getattr(read, k) for k in READ} == {k: getattr(imported, k) for k in READ}
    assert list(read.parameters) == list(imported.parameters)
    assert {n: p.default for n, p in read.parameters.items()} == {n: p.default for n, p in imported.parameters.items()}
    assert read.fn is imported.fn
    assert read.validate is imported.validate


def test_the_whole_catalogue_is_listed_without_torch():
    code = """if True:
        import json, sys
        from clearsight.core.catalogue import parse
        from clearsight.reporting.method_pages import listing
        parse("pgd(eps=8/255, steps=3)", "attacks")
        heavy = {"torch", "numpy", "scipy", "torchvision", "PIL"}
        print(json.dumps([sum(map(len, listing().values())), sorted(heavy & {*sys.modules})]))
    """
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(out) == [len(METHODS), []]


def test_a_file_that_says_more_than_can_be_read_is_imported(monkeypatch):
    monkeypatch.setattr(method_files, "READABLE", ())
    found = read_method("clearsight.attacks.pgd")
    assert type(found) is Method
    assert found.name == "pgd"
    assert found.options["steps"].annotation is int


def test_a_file_without_a_method_is_an_error():
    with pytest.raises(TypeError, match=r"attacks\.common\.apgd must hold exactly one method, has 0"):
        read_method("clearsight.attacks.common.apgd")
