"""Every explainer on every network of the field: it works, or it is refused with a reason; never a wrong map.

The table in docs/method-by-network.md is written by ``pytest -m slow tests/test_networks.py -n 0``, in
about a quarter of an hour.
"""

import re
from pathlib import Path

import pytest

import networks
from clearsight.methods import catalogue

PAGE = Path(__file__).parent.parent / "docs" / "method-by-network.md"
HEAD = """# Which method runs on which network

Every explainer on networks of torchvision with random weights and five classes, with default options but few steps.
**✓** a map; a number: refused, for the reason below. Written by a test that runs all of it:
`pytest -m slow tests/test_networks.py -n 0`.
"""
QUICK = ("resnet18", "efficientnet_b0", "swin_t")  # also in the default run, but for what takes half a minute alone
LONG = {("score-cam", "swin_t")}


def cells() -> dict[tuple[str, str], str]:
    """What the committed page says: (method, network) -> its reason, or "works"."""
    text = PAGE.read_text()
    reasons = dict(re.findall(r"(?m)^(\d+)\. (.*)$", text))
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    head, rows = lines[0], lines[2:]
    found = {}
    for row in rows:
        for group, cell in zip(head[1:], row[1:], strict=True):
            for name in group.split("<br>"):
                found[row[0], name] = "works" if cell == "✓" else reasons[cell]
    return found


def page(outcomes: dict[tuple[str, str], str]) -> str:
    """The table, in which networks that take the same methods share a column."""
    methods = list(catalogue("explainers"))
    columns: dict[tuple[str, ...], list[str]] = {}
    for n in networks.NAMES:
        columns.setdefault(tuple(outcomes[m, n] for m in methods), []).append(n)
    reasons = list(dict.fromkeys(o for column in columns for o in column if o != "works"))
    cell = {"works": "✓"} | {r: str(i + 1) for i, r in enumerate(reasons)}
    lines = ["| method | " + " | ".join("<br>".join(names) for names in columns.values()) + " |"]
    lines += ["|---" * (len(columns) + 1) + "|"]
    lines += [f"| {m} | " + " | ".join(cell[c[i]] for c in columns) + " |" for i, m in enumerate(methods)]
    return "\n".join([HEAD, *lines, "", "## Refused, because", "", *(f"{cell[r]}. {r}" for r in reasons), ""])


def test_the_page_holds_every_method_and_network():
    assert set(cells()) == {(m, n) for m in catalogue("explainers") for n in networks.NAMES}


@pytest.mark.parametrize("name", QUICK)
def test_the_page_is_true_of(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model, folder, said = networks.network(name), networks.references(tmp_path / "refs"), cells()
    now = {m: networks.outcome(model, m, folder) for m in catalogue("explainers") if (m, name) not in LONG}
    assert now == {m: said[m, name] for m in now}


@pytest.mark.slow
def test_the_page_is_what_all_of_it_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = networks.references(tmp_path / "refs")
    outcomes = {}
    for name in networks.NAMES:
        model = networks.network(name)
        outcomes |= {(m, name): networks.outcome(model, m, folder) for m in catalogue("explainers")}
    was = PAGE.read_text() if PAGE.exists() else ""
    PAGE.write_text(page(outcomes))
    assert PAGE.read_text() == was, "the table changed: look at it and commit it"
    assert cells() == outcomes
