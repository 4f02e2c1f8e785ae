"""What one part of the code tells another is in fields: no sentence has to be searched or taken apart for it."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from copy import copy
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from torch import nn

from clearsight.auditing.audit import audit, with_model_notes
from clearsight.auditing.diagnosis import inspect
from clearsight.auditing.gate import Bar
from clearsight.comparing.summary import summarise_check
from clearsight.core.catalogue import catalogue
from clearsight.core.check_kinds import checks_of
from clearsight.core.classifier import Classifier
from clearsight.core.outputs import pick
from clearsight.core.preprocess import Preprocess
from clearsight.data.class_words import truth
from clearsight.data.datasets import Picture, Pictures
from clearsight.errors import NoGradient, Refused
from clearsight.reporting.facts import BarResult, BrokenFile, DataFacts, ModelFacts, RunFacts
from clearsight.reporting.findings import Evidence, Figure, Finding, Verdict
from clearsight.reporting.html_report import has_maps, in_grey
from clearsight.reporting.opening import opening, sheet_order
from clearsight.reporting.report import Report, verdict
from reportbyhand import by_hand
from workshop import ColourNet, factory

PRE = Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3)
NONE = Pictures("photos", ())


def flat(**given: object) -> Classifier:
    """A network without feature maps."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    return replace(Classifier(net, PRE, ("cat", "dog", "hat"), "flat"), **given)  # type: ignore[arg-type]


# What was wrong, and what to do -------------------------------------------------------------------------------------


def test_what_was_wrong_and_what_to_do_stand_apart() -> None:
    one, two = Refused("a: b"), Refused("no layer 'a: b'", "there are: c, d")
    assert (one.what, one.fix, str(one)) == ("a: b", "", "a: b")
    assert (two.what, two.fix, str(two)) == ("no layer 'a: b'", "there are: c, d", "no layer 'a: b': there are: c, d")
    flows = NoGradient("no gradient", "it is cut", "let it flow")
    assert (flows.what, flows.fix) == ("no gradient", "it is cut; let it flow")
    assert str(flows) == "no gradient: it is cut; let it flow"
    for e in (one, two, flows):
        for again in (copy(e), pickle.loads(pickle.dumps(e))):
            assert (type(again), str(again), again.what, again.fix) == (type(e), str(e), e.what, e.fix)
    assert pickle.loads(pickle.dumps(flows)).cause == "it is cut"


def test_a_colon_in_a_name_does_not_part_a_problem() -> None:
    (found,) = inspect(flat(source="nets: flat"), apart=False).problems
    assert found.what == "nets: flat has no convolution with more than one place"
    assert found.mend.startswith("class-activation methods need feature maps; name a layer")
    assert found.code == "no-target-layer"


def test_an_output_that_cannot_be_picked_is_told_whole() -> None:
    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a: say b": x.mean((2, 3)), "rest": x}

    (found,) = inspect(Classifier(Named(), PRE, ("r", "g", "b"), "named"), apart=False).problems[:1]
    assert found.what.endswith("'rest': a tensor (3, 3, 8, 8), not a tensor")
    assert found.mend == "say where the scores are: output='a: say b' (--output a: say b)"
    assert found.code == "scores-not-found"
    with pytest.raises(Refused, match=r": say where the scores are, output='a: say b'$"):
        pick({"a: say b": torch.zeros(1, 2)}, None)


def test_two_spaces_in_a_word_do_not_part_a_problem() -> None:
    path = Path("photos/odd.jpg")
    pictures = Pictures("photos", (Picture(path, "odd.jpg", ("dgo.  Or so",)),))
    found = next(p for p in inspect(flat(), pictures, apart=False).problems if p.code == "unknown-classes")
    assert found.what.startswith("class words of the data that the model does not have (1): dgo.  Or so (")
    assert found.mend.startswith("Give their meaning with --classes FILE, a JSON such as ")
    with pytest.raises(Refused, match=r"\(1\): dgo\.  Or so \(.*\)\.  Give their meaning with --classes FILE"):
        truth(pictures, flat())


# Which problem it is ------------------------------------------------------------------------------------------------


def test_a_label_that_is_a_word_of_a_problem_stops_no_audit() -> None:
    twice = flat(labels=("probabilities", "probabilities", "logits"))
    (told,) = [n for n in with_model_notes(NONE, twice).notes if "name several classes" in n]
    assert "'probabilities' is 0 and 1" in told


def test_probabilities_taken_for_logits_stop_an_audit_and_the_other_way_round() -> None:
    soft = flat(net=nn.Sequential(*flat().net, nn.Softmax(1)))
    for model, code in ((soft, "probabilities-as-logits"), (flat(scores="probabilities"), "logits-as-probabilities")):
        (found,) = [p for p in inspect(model, apart=False).problems if p.code == code]
        with pytest.raises(Refused) as refused:
            with_model_notes(NONE, model)
        assert (refused.value.what, refused.value.fix) == (found.what, found.mend)


# The facts of a report ----------------------------------------------------------------------------------------------


def test_facts_are_what_report_json_holds() -> None:
    schema = json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    properties = schema["properties"]
    records = {
        RunFacts: set(properties) - {"schema", "verdict", "status", "findings"},
        ModelFacts: set(properties["model"]["properties"]),
        DataFacts: set(properties["data"]["properties"]),
        BrokenFile: set(properties["data"]["properties"]["broken"]["items"]["properties"]),
        BarResult: set(properties["gate"]["items"]["properties"]),
    }
    for record, names in records.items():
        assert {f.name for f in fields(record)} == names, record


def written(folder: Path, changed: Callable[[dict[str, Any]], object]) -> Path:
    """The report by hand, with report.json changed."""
    by_hand().save(folder, html=False)
    whole = json.loads((folder / "report.json").read_text())
    changed(whole)
    (folder / "report.json").write_text(json.dumps(whole))
    return folder


def test_a_report_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    newer = ("complete", "command", "case", "budget", "asked", "signed", "gate")
    read = Report.read(written(tmp_path, lambda whole: [whole.pop(name) for name in newer])).facts
    whole = by_hand().facts
    assert [getattr(read, name) for name in newer] == [True, "", "", None, "", False, None]
    assert replace(read, **{name: getattr(whole, name) for name in newer}) == whole


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (("seed",), "7", "seed is '7', not a whole number"),
        (("seed",), True, "seed is True, not a whole number"),
        (("complete",), 1, "complete is 1, not true or false"),
        (("budget",), [], r"budget is \[\], not a number or null"),
        (("model",), "demo", "model is 'demo', not an object"),
        (("model", "parameters"), 1.5, "model.parameters is 1.5, not a whole number"),
        (("model", "preprocess", "size"), 224, "model.preprocess.size is 224, not a list"),
        (("model", "preprocess", "mean"), ["0", 0, 0], r"model.preprocess.mean\[0\] is '0', not a number"),
        (("model", "preprocess", "interpolation"), "cubic", "interpolation 'cubic': give nearest"),
        (("data", "notes"), "none", "data.notes is 'none', not a list"),
        (("data", "broken"), [{"file": "a.jpg"}], r"data.broken\[0\].reason is missing"),
        (("gate",), [{"check": "a", "bar": "b", "value": {}, "held": True}], r"gate\[0\].value is {}, not a text or"),
        (("environment", "python"), None, "environment.python is None, not a text"),
    ],
)
def test_a_field_of_a_wrong_type_is_refused_by_its_name(
    tmp_path: Path, where: tuple[str, ...], value: object, told: str
) -> None:
    def changed(whole: dict[str, Any]) -> None:
        *parents, name = where
        for parent in parents:
            whole = whole[parent]
        whole[name] = value

    with pytest.raises(Refused, match=f"not as it was written: {told}.*: make the report again"):
        Report.read(written(tmp_path, changed))


# Maps in the evidence -----------------------------------------------------------------------------------------------


def evidence(**given: object) -> Evidence:
    """Words of maps wherever words can be, and no map."""
    caption = "drawn in grey and its map"
    shown = Evidence("a.jpg", Figure("a.png", b"", caption, caption), {}, "clearsight explain demo a.jpg")
    return replace(shown, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("maps", "has", "grey"), [("none", False, False), ("colour", True, False), ("grey", True, True)]
)
def test_whether_there_are_maps_is_told_by_no_caption(maps: str, has: bool, grey: bool) -> None:
    wordy = Finding("note", "", evidence=(evidence(maps=maps),))
    plain = Finding("note", "", evidence=(evidence(maps=maps, command="", figure=Figure("a.png", b"", "", "")),))
    assert [(has_maps(f), in_grey(f)) for f in (wordy, plain)] == [(has, grey)] * 2


def test_an_audit_says_which_evidence_holds_maps(workshop: Path, run) -> None:
    only = "accuracy(floor=0), faithfulness(pictures=3), robustness(eps=0.5, steps=2, pictures=3)"
    assert run("audit", "net.py:factory", "photos", "--quiet", "--only", only, "-o", "told").status == 0
    accuracy, faithfulness, robustness = Report.read("told").findings
    assert {e.maps for e in (*accuracy.evidence, *faithfulness.evidence)} == {"colour"}
    assert {e.maps for e in robustness.evidence} == {"none"}
    # a report of before has no such fields; what it says otherwise is read as it was
    whole = json.loads(Path("told/report.json").read_text())
    for f in whole["findings"]:
        assert f.pop("has_bar")
        assert f.pop("advice")
        for e in f["evidence"]:
            del e["maps"]
    schema = json.loads((resources.files("clearsight.reporting") / "report.schema.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    check.validate(whole)
    assert schema["$defs"]["finding"]["properties"]["evidence"]["items"]["properties"]["maps"]["default"] == "none"
    Path("told/report.json").write_text(json.dumps(whole))
    before = Report.read("told").findings
    assert not any(f.has_bar for f in before)
    assert {e.maps for f in before for e in f.evidence} == {"none"}
    assert [f.headline for f in before] == [f.headline for f in (accuracy, faithfulness, robustness)]
    whole["findings"][0]["evidence"][0]["maps"] = "mauve"
    assert not check.is_valid(whole)
    Path("told/report.json").write_text(json.dumps(whole))
    with pytest.raises(Refused, match=r"not as it was written: .*mauve"):
        Report.read("told")


def test_pictures_without_a_map_are_no_maps(workshop: Path) -> None:
    class Cut(ColourNet):
        """No gradient comes back to the pixels."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).detach()

    (found,) = audit(replace(factory(), net=Cut()), "photos", only="accuracy", method="saliency").findings
    assert "without a map" in found.notes[-1]
    assert {e.maps for e in found.evidence} == {"none"}


# Findings, bars and labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bar", [True, False])
def test_what_a_check_asks_for_is_told_of_all_runs_by_a_field(bar: bool) -> None:
    first = "Asked for: much." if not bar else "At least 0.5 is wanted."
    f = Finding("pass", "", "top-1", 0.75, (0.5, 0.9), 20, notes=(first, "Another."), has_bar=bar, check="accuracy")
    notes = summarise_check("accuracy", [("run-1", f), ("run-2", f)]).notes
    assert (first in notes) is bar
    assert "Another." not in notes


def test_the_bars_of_a_gate_in_words() -> None:
    f = Finding("warn", "", "top-1", 0.75, (0.5, 0.9), 20)
    bar = Bar("accuracy", at_least=0.4, at_most=0.8, not_worse_than="warn", interval=True)
    of = " (its interval)"
    assert [(r.bar, r.held) for r in bar.hold(f)] == [
        (f"at least 40.0 %{of}", True),
        (f"at most 80.0 %{of}", False),
        ("not worse than warn", True),
    ]


def test_the_verdict_counts_findings_and_reads_no_sentence() -> None:
    fails = Finding("fail", "", "{top} 1", 0.5, None, 4, check="a")
    holds = Finding("pass", "", check="b")
    assert verdict([fails]) == "The one check fails: {top} 1 50.0 % (n = 4)."
    assert verdict([fails, holds, holds]) == "Of 3 checks 1 fails: {top} 1 50.0 % (n = 4), and 2 hold: b; b."


def test_the_first_lines_say_what_fails_and_what_to_do_first() -> None:
    few = Finding("warn", "", "top-1", 0.5, (0.2, 0.8), 10, has_bar=True, check="accuracy", advice="no")
    bad = Finding("fail", "", check="robustness(eps=8/255)", advice="train on attacked pictures")
    own = Finding("fail", "", check="./mine.py:odd")
    dead = Finding("error", "RuntimeError: no layer.", check="sanity")
    flags = Finding("warn", "", n=9, interval=(0.0, 0.3), check="gradient-masking", advice="try a black box")
    assert opening([bad]) == (
        "The one check that was asked fails: robustness(eps=8/255).",
        "Start with robustness: train on attacked pictures.",
    )
    assert opening([own, few, dead, bad]) == (
        "2 of 4 checks fail: robustness(eps=8/255), ./mine.py:odd; 1 could not be done: sanity; 1 is undecided.",
        "Start with robustness: train on attacked pictures.",
    )
    assert opening([own, few])[1] == "Start with ./mine.py:odd: look at its evidence."
    assert opening([few, dead, flags]) == (
        "None of 3 checks fails; 1 could not be done: sanity; 2 are undecided: accuracy, gradient-masking.",
        "Start with sanity: RuntimeError: no layer.",
    )
    assert (
        opening([flags, few])[1]
        == "Start with more pictures: accuracy rests on 10 pictures (95 % interval 20.0 to 80.0 %)."
    )
    assert opening([replace(few, interval=None, n=1)])[1] == "Start with more pictures: accuracy rests on 1 picture."
    assert opening([flags])[1] == "Start with gradient-masking: try a black box."


def test_where_all_checks_hold_the_first_lines_say_what_was_not_asked() -> None:
    every = [Finding("pass", "", check=name) for name in checks_of("classifier")]
    assert opening(every) == (f"All {len(every)} checks hold.", "Every check of the catalogue was asked.")
    rest = ", ".join(f.name for f in every[2:])
    assert opening(every[:2]) == ("All 2 checks hold.", f"Not asked: {rest}.")
    blank = [replace(f, verdict="note") for f in every[-2:]]
    assert opening([*every[:-2], *blank]) == (
        f"{len(every) - 2} checks hold, and none fails.",
        f"Every check of the catalogue was asked; nothing to judge for {blank[0].name}, {blank[1].name}.",
    )
    assert opening(blank)[0] == "None of 2 checks had anything to judge."
    assert opening([])[0] == "No check was asked."


def test_the_sheet_begins_with_accuracy_and_ends_with_notes() -> None:
    verdicts: tuple[Verdict, ...] = ("note", "pass", "warn", "error", "fail")
    names = ("./mine.py:odd", "robustness", "explainer-ranking")
    found = [Finding(v, "", check=name) for v in verdicts for name in names] + [Finding("note", "", check="accuracy")]
    order = [(f.verdict, f.name) for f in sheet_order(found)]
    assert order[0] == ("note", "accuracy")
    ranked = ("explainer-ranking", "robustness", "./mine.py:odd")
    assert order[1:] == [(v, name) for v in ("fail", "error", "warn", "pass", "note") for name in ranked]


def test_every_check_says_what_to_do_first() -> None:
    for m in catalogue("checks").values():
        assert re.fullmatch(r"[a-z].*[^.]", m.advice), m.name


def test_a_class_is_called_by_the_first_of_its_names() -> None:
    model = flat(labels=("tench, Tinca tinca", "dog", ", odd"))
    assert [model.name(k) for k in range(3)] == ["tench", "dog", ""]
