"""Models of texts: trained, loaded, resumed, audited; one small model for all of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import clearsight as cs
from clearsight.auditing.case import Case
from clearsight.auditing.evidence import draw_input, draw_map
from clearsight.comparing.map_agreement import ranks_inside
from clearsight.data.duplicates import likenesses
from clearsight.data.text_encoding import PRINTABLE, decode
from clearsight.drawing.text import runs
from clearsight.drawing.text_picture import text_picture
from clearsight.training.run_record import training_command
from textshop import lay_out_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """requests.jsonl and a model m trained on them (see textshop.py)."""
    return lay_out_shop(tmp_path_factory.mktemp("shop"))


def test_training_says_what_it_chose_and_left_out(shop: Path) -> None:
    job = json.loads((shop / "m" / "recipe.json").read_text())
    assert job["recipe"]["arch"] == "clearsight:character-cnn(embedding=16, width=64, pool=max)"
    assert job["recipe"]["augment"] == "none"
    metrics = json.loads((shop / "m" / "metrics.json").read_text())
    assert metrics["accuracy"]["value"] > 0.9
    card = (shop / "m" / "card.md").read_text()
    for note in ("line 122", "line 123", "60 characters, more than 48", "not in the alphabet", "another one"):
        assert note in card, note


def test_a_run_of_texts_is_loaded_and_its_split_is_opened(shop: Path) -> None:
    model = cs.load(str(shop / "m"))
    assert model.preprocess.size == (48,)
    assert len(model.preprocess.alphabet) == 95
    test = cs.texts(shop / "m" / "split.csv", split="test")
    x = cs.one_hot(model, test)
    with model.undisturbed():
        answers = [model.labels[k] for k in model(x).argmax(1).tolist()]
    right = sum(a == t.labels[0] for a, t in zip(answers, test.texts, strict=True))
    assert right / len(answers) == json.loads((shop / "m" / "metrics.json").read_text())["accuracy"]["value"]
    whole = {t.text: t for t in cs.texts(shop / "requests.jsonl", split="all").texts}
    assert all(whole[t.text].marks == t.marks for t in test.texts)


def test_training_on_texts_resumes_to_the_same_weights(shop: Path, tmp_path: Path) -> None:
    """A run that is stopped after an epoch; the size is that of the run, though nobody states it again."""
    recipe = cs.Recipe(size=48, epochs=2, batch=16, lr="0.01")
    whole = cs.train(str(shop / "requests.jsonl"), recipe, tmp_path / "whole")
    assert [e.number for e in whole] == [1, 2]
    stopped = cs.train(str(shop / "requests.jsonl"), recipe, tmp_path / "stopped")
    next(iter(stopped))
    stopped.close()  # type: ignore[attr-defined]
    rest = cs.train(str(shop / "requests.jsonl"), None, tmp_path / "stopped", resume=True)
    assert [e.number for e in rest] == [2]
    fingerprints = {cs.load(str(tmp_path / name)).fingerprint() for name in ("whole", "stopped")}
    assert len(fingerprints) == 1


def test_an_audit_judges_texts_by_what_applies_to_them(shop: Path) -> None:
    few = (
        "explainer-ranking(methods='gradient-x-input, saliency'), accuracy, calibration, localisation(pictures=30), "
        "trustworthiness(pictures=30), shortcuts, faithfulness(pictures=20), sanity(pictures=10, stages=2), "
        "robustness(pictures=40), corruptions, gradient-masking, map-stability(pictures=5, steps=4)"
    )
    report = cs.audit(cs.load(str(shop / "m")), cs.folder(shop / "requests.jsonl"), only=few)
    by_name = {f.name: f for f in report.findings}
    assert by_name["accuracy"].value is not None
    assert by_name["accuracy"].value > 0.9
    assert by_name["calibration"].n == 122
    robustness = by_name["robustness"]
    assert "characters replaced" in robustness.headline
    kept = {row["characters"]: row["share"] for row in robustness.tables[0].rows}
    assert list(kept) == [0, 1, 2, 4, 8]
    assert list(kept.values()) == sorted(kept.values(), reverse=True)
    assert robustness.value == kept[4] < kept[0]
    trust = by_name["trustworthiness"]
    assert trust.value is not None
    assert trust.value > 0.5  # the quote is the only difference, and it is marked
    for name in ("corruptions", "shortcuts", "gradient-masking"):
        assert by_name[name].verdict == "note"
        assert "these are texts" in by_name[name].headline
    ranking = by_name["explainer-ranking"]
    assert (ranking.verdict, ranking.chosen_explainer) == ("pass", by_name["localisation"].command.split(" -m ")[1])
    assert "max-sensitivity(samples=2): it changes pixels a little, which characters cannot." in " ".join(ranking.notes)
    assert by_name["localisation"].value == pytest.approx(0.84, abs=0.15)  # beside 15 % by chance
    for name in ("faithfulness", "sanity", "map-stability"):
        assert by_name[name].verdict in ("pass", "warn")
    words = [w for f in report.findings for w in (f.headline, *f.notes, *(t.caption for t in f.tables))]
    asked = [w for w in words if "picture" in w.replace("(option pictures)", "") and "these are texts" not in w]
    assert not asked
    assert not [f.name for f in report.findings if f.verdict == "error"]
    notes = " ".join(report.facts.data.notes)
    assert "was trained on" in notes
    assert "2 characters of" in notes
    assert report.facts.data.annotated == 60


def test_the_marked_characters_are_the_region_that_should_decide(shop: Path) -> None:
    case = Case(cs.load(str(shop / "m")), cs.folder(shop / "requests.jsonl"))
    row = case.annotated[0]
    ((start, end),) = case.pictures[row].marks or ()
    region = case.regions([row])[0]
    assert region.shape == (48,)
    assert region.nonzero()[:, 0].tolist() == list(range(start, end))
    x = case.pixels([row])[0]
    assert torch.equal(x, cs.one_hot(case.model, case.pictures[row].text or "")[0])
    assert str(case.method).startswith("integrated-gradients")


def test_evidence_shows_the_characters_that_the_model_cannot_tell(shop: Path) -> None:
    """The picture of a text is that of its own characters, though the model reads two of them as the same."""
    case = Case(cs.load(str(shop / "m")), cs.folder(shop / "requests.jsonl"))
    (row,) = [i for i, p in enumerate(case.pictures) if (p.text or "").startswith("é")]
    text, x, nothing = case.pictures[row].text or "", case.pixels([row])[0], torch.zeros(48)
    drawn = draw_map(case, x, nothing)
    assert drawn.tobytes() == text_picture(runs(text, nothing, signed=True)).tobytes()
    assert drawn.tobytes() != text_picture(runs(decode(x, PRINTABLE), nothing, signed=True)).tobytes()
    assert draw_input(case, x).tobytes() == drawn.tobytes()


def test_inspect_says_that_it_reads_texts(shop: Path) -> None:
    lines = cs.inspect(cs.load(str(shop / "m"))).lines()
    assert any("texts of at most 48 characters; one channel for each of 95 letters" in line for line in lines)


def test_the_command_of_a_training_names_its_columns(shop: Path) -> None:
    data = cs.folder(shop / "requests.jsonl", text_column="text", marks_column="marks")
    command = training_command(data, cs.Recipe(epochs=3), Path("out"))
    named = "--text-column text --marks-column marks"
    assert command == f"clearsight train {shop / 'requests.jsonl'} {named} --epochs 3 -o out"


def test_equal_texts_stay_together(shop: Path) -> None:
    pictures = cs.folder(shop / "requests.jsonl").pictures
    alike = likenesses(pictures)
    groups = {}
    for picture, group in zip(pictures, alike.groups, strict=True):
        assert groups.setdefault(picture.text, group) == group
    assert len(set(alike.groups)) == len({p.text for p in pictures}) < len(pictures)
    parts = {}
    for t in cs.texts(shop / "m" / "split.csv", split="all").texts:
        assert parts.setdefault(t.text, t.split) == t.split


def test_training_goes_on_from_a_run_that_left_a_text_out(shop: Path, tmp_path: Path) -> None:
    """The table of the run has a text that is longer than its network reads, which is named once more."""
    recipe = cs.Recipe(from_run=str(shop / "m"), epochs=1, batch=16)
    assert len(list(cs.train(str(shop / "requests.jsonl"), recipe, tmp_path / "on"))) == 1
    assert "60 characters, more than 48" in (tmp_path / "on" / "card.md").read_text()
    written = json.loads((tmp_path / "on" / "recipe.json").read_text())["recipe"]
    assert (written["size"], written["alphabet"]) == (48, PRINTABLE)


def test_the_alphabet_may_be_the_characters_of_train(tmp_path: Path) -> None:
    rows = [{"text": t, "label": t[0], "split": s} for s in ("train", "val", "test") for t in ("\uac00b", "cb\ud55c")]
    rows[2]["text"] = "\uac00z"  # of val
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for _ in cs.train(str(tmp_path / "t.jsonl"), cs.Recipe(alphabet="data", epochs=1), tmp_path / "m"):
        pass
    assert cs.load(str(tmp_path / "m")).preprocess.alphabet == "bc\uac00\ud55c"
    card = (tmp_path / "m" / "card.md").read_text()
    assert "alphabet: the 4 characters of the training texts" in card
    assert "in 1 text, is not in the alphabet and reads as unknown: 'z' 1" in card
    assert "characters, each one of an alphabet of 4 or unknown" in card


def test_runs_of_texts_are_compared_text_by_text(shop: Path, tmp_path: Path) -> None:
    """Before: a run of one short epoch, which says one class; after: that of the shop, on the texts of its test."""
    recipe = cs.Recipe(size=48, epochs=1, batch=16, lr="0.0003")
    for _ in cs.train(str(shop / "requests.jsonl"), recipe, tmp_path / "before"):
        pass
    runs = (tmp_path / "before", shop / "m")
    found = cs.compare(runs, method="gradient-x-input")
    repair = found.findings[0]
    assert "mended 9, broke 0 of 18 texts" in repair.headline
    assert "Relevance on the marked characters:" in repair.headline
    mended = next(t for t in repair.tables if t.caption.startswith("Mended"))
    assert all(str(row["text"]).startswith("row ") for row in mended.rows)
    assert len(repair.evidence) == 6
    assert f":{str(mended.rows[0]['text'])[4:]} -m" in repair.evidence[0].command
    assert found.findings[-1].n == 9
    named = cs.compare(runs, shop / "requests.jsonl", text_column="text", marks_column="marks", only="accuracy")
    assert named.findings[0].n == 122
    audits = [cs.audit(cs.load(str(run)), cs.folder(runs[0] / "split.csv"), only="accuracy") for run in runs]
    assert "mended 9, broke 0 of 18 texts" in cs.compare(audits).findings[0].headline


def test_maps_of_texts_are_alike_by_their_characters_alone() -> None:
    heat, inside = torch.tensor([3.0, 1.0, 2.0, 9.0, -9.0]), torch.tensor([True, True, True, False, False])
    same = ranks_inside(heat, inside)
    assert same[3:].tolist() == [0, 0]
    assert float(same @ ranks_inside(torch.tensor([3.0, 1.0, 2.0, -9.0, 9.0]), inside)) == pytest.approx(1)
    assert float(same @ ranks_inside(torch.tensor([1.0, 3.0, 2.0, 9.0, -9.0]), inside)) == pytest.approx(-1)
