"""Every explainer on every network of the field: it works, or it is refused with a reason; never a wrong map.

The table in docs/method-by-network.md is written by ``pytest -m slow tests/contract/test_networks.py -n 0``, in
about a quarter of an hour.
"""

import pytest

import networks
from networkpage import PAGE, cells, write_methods

QUICK = ("resnet18", "efficientnet_b0", "swin_t")  # also in the default run, but for what takes half a minute alone
LONG = {("score-cam", "swin_t")}


def test_the_page_holds_every_method_and_network():
    assert set(cells()) == {(m, n) for m in networks.EXPLAINERS for n in networks.NAMES}


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.slow
def test_the_page_is_true_of(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, folder, said = networks.network(name), networks.references(tmp_path / "refs"), cells()
    now = {m: networks.outcome(model, m, folder) for m in networks.EXPLAINERS if (m, name) not in LONG}
    assert now == {m: said[m, name] for m in now}


@pytest.mark.slow
def test_the_page_is_what_all_of_it_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = networks.references(tmp_path / "refs")
    outcomes = {}
    for name in networks.NAMES:
        model = networks.network(name)
        outcomes |= {(m, name): networks.outcome(model, m, folder) for m in networks.EXPLAINERS}
    was = PAGE.read_text()
    write_methods(outcomes)
    assert PAGE.read_text() == was, "the table changed: look at it and commit it"
    assert cells() == outcomes
