"""clearsight steal on the command line: what it writes, and what it refuses before any work."""

from __future__ import annotations

import json

import pytest

STEAL = ("steal", "net.py:factory", "--pool", "photos", "--budget", "4", "--rounds", "2")
QUICK = ("--arch", "clearsight:perceptron", "--steps", "20", "-a", "fgsm")


def test_steal_writes_a_report(workshop, run):
    ran = run(*STEAL, *QUICK, "--defend", "top-1", "--defend", "ensemble", "--member", "net.py:factory", "-o", "out")
    assert ran.status == 0, ran.err
    assert "After 4 answers (probs), the clone of a knockoff thief agrees" in " ".join(ran.out.split())
    assert "By answers" in ran.out
    assert ran.out.splitlines()[-1] == "out/report.html"
    report = json.loads((workshop / "out" / "report.json").read_text())
    assert [f["check"] for f in report["findings"]] == ["theft", "defences", "transfer"]
    assert [row["defence"] for row in report["findings"][1]["tables"][0]["rows"]] == ["none", "top-1", "ensemble"]
    assert "Clearsight theft" in (workshop / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--thief", "knockof"), "did you mean knockoff"),
        (("--defend", "rounding, top-2"), "no method 'top-2'"),
        (("--access", "logits"), "give what a service tells"),
        (("--maps", "rise"), "no gradient in the network's weights"),
        (("--time", "soon"), "not a time"),
    ],
)
def test_steal_refuses(workshop, run, words, told):
    ran = run(*STEAL, *QUICK, *words)
    assert ran.status == 2
    assert told in ran.err
    assert not (workshop / "clearsight-runs").exists()


def test_steal_asks_this_machine_alone(workshop, run):
    ran = run("steal", "http://example.com/v2/models/x", "--pool", "photos")
    assert ran.status == 2
    assert "example.com is not this machine" in ran.err
    assert run("steal", "http://127.0.0.1:9/v2/models/x", "--pool", "photos").err.count("does not answer") == 1
