"""Checks on texts, by networks small enough that the right number can be written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clearsight as cs
from clearsight.auditing.audit import parse_checks, run_checks
from clearsight.auditing.case import Case
from clearsight.auditing.text_map_stability import replaced_at_random
from clearsight.core import rng
from clearsight.core.classifier import Classifier
from clearsight.core.places import occupied
from clearsight.data.text_encoding import one_hot, text_preprocess
from clearsight.reporting.findings import Cell, Finding
from clearsight.testing import linear_text

A_TO_E = "abcde"


def weigh(*of_places: float, length: int = 10) -> Classifier:
    """Scores of yes and no: for yes each place weighs what is given, 0 behind, whatever its letter; for no 0."""
    row = [*of_places, *[0.0] * (length - len(of_places))]
    rows = [row] * (len(A_TO_E) + 1)
    model = linear_text([rows, [[0.0] * length] * len(rows)], alphabet=A_TO_E)
    return Classifier(model.net, model.preprocess, ("yes", "no"))


def audit(model: Classifier, folder: Path, rows: list[dict[str, Any]], check: str, method: str) -> Finding:
    table = folder / "t.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    (finding,) = run_checks(Case(model, cs.folder(table), method=method), parse_checks(check))
    return finding


def rows_of(finding: Finding, caption: str) -> list[dict[str, Cell]]:
    return next(list(t.rows) for t in finding.tables if t.caption.startswith(caption))


def test_localisation_measures_the_marked_characters_against_all_of_the_text(tmp_path: Path) -> None:
    """Of 1, 1, 3 and 3 the marked last two have 6 of 8; they are half of the text, and a fifth of what fits."""
    rows = [{"text": "abcd", "label": "yes", "marks": [[2, 4]]}, {"text": "ab", "label": "yes", "marks": [[0, 2]]}]
    f = audit(weigh(1, 1, 3, 3), tmp_path, rows, "localisation", "gradient-x-input")
    assert (f.value, f.chance, f.n) == (0.75, 0.5, 1)
    assert "75.0 % of what speaks for the answer lies on the marked characters" in f.headline
    assert "line 2 is left out: are marked: all of its characters." in f.notes
    assert [r["text"] for r in rows_of(f, "By text")] == ["line 1"]
    unmarked = audit(weigh(1), tmp_path, [{"text": "ab", "label": "yes"}], "localisation", "gradient-x-input")
    assert unmarked.headline == "None of the 1 text says where its marked characters are: give a column marks, or " + (
        "--marks-column NAME."
    )


def test_faithfulness_takes_characters_away(tmp_path: Path) -> None:
    """Of 3 and 1, without the 3, then without both: the areas are those of the sigmoid of 4, 1, 0."""
    f = audit(weigh(3, 1), tmp_path, [{"text": "ab", "label": "yes"}], "faithfulness(steps=2)", "gradient-x-input")
    four, one, none = torch.tensor([4.0, 1.0, 0.0]).sigmoid().tolist()
    three = torch.tensor(3.0).sigmoid().item()
    areas = {str(r["area"]): r["mean"] for r in rows_of(f, "Areas")}
    assert areas["deletion, the map's order (low is good)"] == pytest.approx((four + 2 * one + none) / 4)
    assert areas["insertion, the map's order (high is good)"] == pytest.approx((none + 2 * three + four) / 4)
    assert "Deleted characters leave their places empty" in " ".join(f.notes)
    assert "characters taken away" in f.figures[0].data.decode()


def test_sanity_compares_the_characters_alone(tmp_path: Path) -> None:
    """A control does not change with the network; two texts of other lengths are compared where both have places."""
    rows = [{"text": t, "label": "yes"} for t in ("abcde", "edc", "aabbccd", "dd")]
    f = audit(weigh(1, 2, 3, 1, 2, 3, 1), tmp_path, rows, "sanity(stages=1)", "centre")
    assert (f.value, f.verdict) == (pytest.approx(1), "warn")  # four texts are too few for an interval
    assert f.n == 3  # of two characters both are as far from the middle
    assert f.chance is not None
    sane = audit(weigh(1, 2, 3, 1, 2, 3, 1), tmp_path, rows, "sanity(stages=1)", "gradient-x-input")
    assert sane.value is not None
    assert sane.value < 0.95


def test_explainer_ranking_ranks_explainers_of_texts(tmp_path: Path) -> None:
    """A linear network's own terms win every comparison; marks are asked about; nothing moves pixels."""
    weights = (1, 2, 3, 1, 2, 30, 1, 0.5, 4, 7)
    words = ("abcdeabc", "edcbae", "aabbccdda", "ddecbabbc", "abedaacc", "becdacda", "daebcde")
    rows = [{"text": t, "label": "yes", "marks": [[4, 6]]} for t in words]
    model, metrics = weigh(*[w / 5 for w in weights]), "deletion, insertion, relevance-mass, max-sensitivity"
    f = audit(model, tmp_path, rows, f"explainer-ranking(methods=gradient-x-input, metrics='{metrics}')", "auto")
    assert f.value is not None
    assert f.value > 0.9
    assert f.notes[-1] == "Left out: max-sensitivity: it changes pixels a little, which characters cannot."
    means = rows_of(f, "Means by metric")
    assert [k for k in means[0] if "(" not in k] == [
        "explainer",
        "mean place",
        "n",
        "deletion",
        "insertion",
        "relevance-mass",
    ]
    shares = [sum(weights[4 : min(6, len(t))]) / sum(weights[: len(t)]) for t in words]
    assert means[0]["relevance-mass"] == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    assert f.evidence[0].figure.data[:4] == b"\x89PNG"


def test_maps_of_a_linear_network_stay_where_other_characters_are_replaced(tmp_path: Path) -> None:
    rows = [{"text": t, "label": "yes"} for t in ("abcde", "edcba", "aabbccd", "ddecb")]
    model = weigh(5, 2, 3, 1, 2, 3)
    weight: Tensor = model.net[1].weight.data  # type: ignore[index,union-attr,assignment]
    weight[0] += torch.rand(60, generator=torch.Generator().manual_seed(0)) * 9  # letters differ, and all say yes
    f = audit(model, tmp_path, rows, "map-stability(characters=2)", "gradient-x-input")
    assert (f.value, f.n) == (pytest.approx(1), 4)
    assert "With 2 characters replaced at random and the answer kept" in f.headline
    assert [r["tries with the same answer"] for r in rows_of(f, "By text")] == [10] * 4
    assert f.evidence[0].figure.data[:4] == b"\x89PNG"


def test_maps_that_know_nothing_of_the_text_before_do_not_stay(tmp_path: Path) -> None:
    rows = [{"text": t, "label": "yes"} for t in ("abcde", "edcba", "aabbccd", "ddecb", "abeda", "becda", "daebc")]
    f = audit(weigh(5, 2, 3, 1, 2, 3), tmp_path, rows, "map-stability", "random")
    assert f.verdict == "fail"
    worst, mean = (r["mean"] for r in rows_of(f, "How alike")[::-1])
    assert f.value == worst
    assert isinstance(worst, float)
    assert isinstance(mean, float)
    assert worst < -0.3 < mean < 0.4


def test_texts_whose_answer_changes_in_every_try_are_counted(tmp_path: Path) -> None:
    """Only a at the first place says yes, so that replacing all characters says no."""
    model = weigh()
    weight: Tensor = model.net[1].weight.data  # type: ignore[index,union-attr,assignment]
    weight.view(2, 6, 10)[0] = torch.arange(10.0) / 20
    weight.view(2, 6, 10)[0, :, 0] = torch.tensor([5.0, -5.0, -5.0, -5.0, -5.0, 0.0])
    weight.view(2, 6, 10)[1] = torch.arange(10.0) / 10  # so that no map is constant
    rows = [{"text": "ab", "label": "yes"}, {"text": "bcde", "label": "no"}]
    f = audit(model, tmp_path, rows, "map-stability(characters=2)", "gradient-x-input")
    assert (f.value, f.n) == (pytest.approx(1), 1)
    assert "1 text is left out: every try changed the answer, or what can be compared." in f.notes
    some = audit(
        model, tmp_path, [{"text": "abcde", "label": "yes"}], "map-stability(characters=2)", "gradient-x-input"
    )
    assert 0 < float(rows_of(some, "By text")[0]["tries with the same answer"] or 0) < 10
    none = audit(model, tmp_path, rows[:1], "map-stability(characters=2)", "gradient-x-input")
    assert none.headline.startswith("No answer stays the same, or no character does (1 text)")


def test_replaced_characters_are_others_of_the_alphabet() -> None:
    model = Classifier(torch.nn.Flatten(), text_preprocess(8, "abc"), ("a", "b"))
    x = one_hot(model, "abcabc", "a?", "?")
    inside = occupied(model, x)
    assert inside is not None
    with rng.seeded(0, x):
        versions = replaced_at_random(x, inside, 2, 400)
    changed = (versions != x[:, None]).any(2)
    assert changed.sum(2)[0].unique().tolist() == [2]
    assert changed.sum(2)[1].unique().tolist() == [2]  # all that there are
    assert changed.sum(2)[2].unique().tolist() == [1]
    assert torch.equal(versions.sum(2), x.sum(1)[:, None].expand(3, 400, 8))
    assert not (versions[:, :, -1] * changed).any()
    new = versions[0, :, :3, 0][changed[0, :, 0]].mean(0)  # the first place was a
    assert new[0] == 0
    assert new[1].item() == pytest.approx(0.5, abs=0.15)
    unknown = versions[2, :, :3, 0].mean(0)
    assert unknown.tolist() == pytest.approx([1 / 3] * 3, abs=0.1)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("shortcuts", "trustworthiness then erases them"),
        ("corruptions", "robustness replaces characters instead"),
        ("gradient-masking", "a character has no small change"),
        ("certified-robustness", "it works on pictures"),
        ("purification", "it works on pictures"),
    ],
)
def test_checks_of_pixels_say_why_they_are_not_run(tmp_path: Path, check: str, words: str) -> None:
    f = audit(weigh(1), tmp_path, [{"text": "ab", "label": "yes"}], check, "auto")
    assert f.verdict == "note"
    assert f.headline.startswith(f"{check} was not run, because these are texts: ")
    assert words in f.headline
