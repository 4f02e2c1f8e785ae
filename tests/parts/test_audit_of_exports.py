"""An exported file is audited whole, and one that is converted gets the findings of its network."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from test_engines import unconvertible
from typer.testing import CliRunner

import clearsight as cs
from clearsight.comparing.compare import compare
from clearsight.errors import Refused
from clearsight.inspecting.compare_models import compare_models
from exportednets import LABELS, PRE, onnx_bytes, our_onnx, small, write

CHECKS = "accuracy, faithfulness(pictures=6), robustness(pictures=8), sanity(pictures=4), map-stability(pictures=2)"


@pytest.fixture
def photos(tmp_path):
    """Pictures of soft colours, in folders of the classes that the network gives them."""
    generator = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.interpolate(torch.rand(12, 3, 4, 4, generator=generator), (16, 16), mode="bilinear")
    as_bytes = (soft * 255).round().byte()
    for k, label in enumerate(small()(as_bytes / 255).argmax(1).tolist()):
        folder = tmp_path / "photos" / LABELS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(as_bytes[k].permute(1, 2, 0).numpy()).save(folder / f"{k}.png")
    return tmp_path / "photos"


def test_a_converted_file_gets_the_findings_of_its_network(tmp_path, photos):
    file = write(tmp_path, onnx_bytes())
    model = cs.load(file, labels=LABELS, preprocess=PRE)
    before = replace(small(), source="before")
    method = "integrated-gradients(steps=8)"
    reports = [cs.audit(m, cs.folder(photos), only=CHECKS, method=method) for m in (before, model)]
    for one, other in zip(*(r.findings for r in reports), strict=True):
        assert (one.verdict, one.n) == (other.verdict, other.n)
        if one.name != "sanity":  # where layers are drawn at random, they are others
            assert one.value == pytest.approx(other.value, abs=1e-3)
    assert any("run by a torch graph converted from it" in note for note in reports[1].facts.data.notes)
    notes = [next(f.notes for f in r.findings if f.name == "sanity") for r in reports]
    assert [any("both are drawn as one layer" in note for note in of_one) for of_one in notes] == [False, True]
    changes = compare([*reports])
    assert {f.name for f in changes.findings} >= {"accuracy", "robustness"}


def test_models_and_files_of_ours_are_compared_with_their_maps(tmp_path, photos):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", our_onnx())
    report = compare([replace(small(), source="before"), str(tmp_path / "out")], str(photos), only="accuracy")
    likeness = next(f for f in report.findings if f.name == "likeness")
    assert likeness.value == pytest.approx(1, abs=1e-3)


def test_a_file_of_others_is_compared_by_what_is_stated_of_it(tmp_path, photos):
    (tmp_path / "out").mkdir()
    ours, theirs = write(tmp_path / "out", our_onnx()), write(tmp_path, onnx_bytes(), "theirs.onnx")
    report = compare([ours, theirs], str(photos), only="accuracy", labels=LABELS, preprocess=PRE)
    likeness = next(f for f in report.findings if f.name == "likeness")
    assert likeness.value == pytest.approx(1, abs=1e-3)
    with pytest.raises(Refused, match=r"theirs.onnx does not say .*: give preprocess=.* \(--preprocess FILE\)"):
        compare([ours, theirs], str(photos), only="accuracy", labels=LABELS)
    with pytest.raises(Refused, match="--labels is for exported files that do not say theirs"):
        compare([ours, replace(small(), source="before")], str(photos), only="accuracy", labels=LABELS)


def test_beside_others_an_exported_file_shows_only_what_is_known_of_it(tmp_path):
    (tmp_path / "out").mkdir()
    ours = write(tmp_path / "out", our_onnx())
    theirs = unconvertible(tmp_path)
    files = [cs.load(ours), cs.load(theirs, labels=LABELS, preprocess=PRE)]
    network, converted, closed = compare_models([small(), *files], None, seconds=0.01).models
    assert (converted.size, closed.size) == (ours.stat().st_size, theirs.stat().st_size)
    assert (closed.parameters, closed.macs, closed.kept) == (None, None, None)
    assert converted.macs == network.macs
    row = next(line for line in compare_models(files, None, seconds=0.01).lines() if "closed.onnx" in line)
    assert row.split()[1] == "-"  # parameters


def test_a_converted_graph_is_compared_with_its_engine_on_the_pictures(tmp_path, photos, monkeypatch):
    model = cs.load(write(tmp_path, onnx_bytes()), labels=LABELS, preprocess=PRE)
    notes = cs.audit(model, cs.folder(photos), only="accuracy").facts.data.notes
    assert any("on 4 of the pictures, too, the converted graph's scores are within" in note for note in notes)
    usual = type(model.net).forward
    monkeypatch.setattr(type(model.net), "forward", lambda net, z: 1.01 * usual(net, z))  # a converter that is wrong
    report = cs.audit(model, cs.folder(photos), only="accuracy, map-stability(pictures=2)")
    assert any("the graph converted from it gives other scores on 4 of the pic" in n for n in report.facts.data.notes)
    assert [f.verdict for f in report.findings if f.name == "map-stability"] == ["note"]  # it has no gradients now


def test_a_file_that_gives_scores_alone_is_audited_whole(tmp_path, photos):
    model = cs.load(unconvertible(tmp_path), labels=LABELS, preprocess=PRE)
    checks = f"explainer-ranking(pictures=7), {CHECKS}, gradient-masking"
    report = cs.audit(model, cs.folder(photos), only=checks)
    by_name = {f.name: f for f in report.findings}
    assert not [f.headline for f in report.findings if f.verdict == "error"]
    assert "kernel-shap" in str(by_name["explainer-ranking"].tables)
    assert "grad-cam" not in str(by_name["explainer-ranking"].tables)
    assert any("square(queries=100) attacks only what" in note for note in by_name["robustness"].notes)
    notes = [by_name[name].verdict for name in ("sanity", "map-stability", "gradient-masking")]
    assert notes == ["note"] * 3
    assert any("closed.onnx is run by ONNX Runtime" in note for note in report.facts.data.notes)


def test_a_file_that_gives_scores_alone_is_explained_by_what_asks_for_no_more(tmp_path, photos):
    from clearsight.explaining.explain_pictures import OF_SCORES, explain_pictures

    model = cs.load(unconvertible(tmp_path), labels=LABELS, preprocess=PRE)
    one = replace(cs.folder(photos), pictures=cs.folder(photos).pictures[:1])
    (tmp_path / "maps").mkdir()
    made = explain_pictures(model, [one], [], "top1", lambda: tmp_path / "maps", tests=False, progress=lambda *_: None)
    assert tuple(m.method.partition("(")[0] for m in made.pictures[0].maps) == OF_SCORES


def test_a_file_that_gives_scores_alone_is_attacked_by_squares_where_no_attack_is_named(tmp_path, photos):
    from clearsight.cli.app import app

    unconvertible(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    (tmp_path / "pre.json").write_text(json.dumps(PRE.as_dict()))
    stated = ["--labels", str(tmp_path / "names.txt"), "--preprocess", str(tmp_path / "pre.json")]
    words = ["attack", str(tmp_path / "closed.onnx"), str(photos), *stated, "--pictures", "3"]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")])
    assert done.exit_code in (0, 1), done.output  # whether enough stay right, as their floor asks
    assert "so square(queries=500) attacks it, not pgd" in done.stderr
    assert "Under square at eps 8/255" in done.stdout


def test_a_file_with_gradients_is_attacked_by_pgd_where_no_attack_is_named(tmp_path):
    from clearsight.attacking.report import usual_attack

    converted = cs.load(write(tmp_path, onnx_bytes()), labels=LABELS, preprocess=PRE)
    blind = cs.load(unconvertible(tmp_path), labels=LABELS, preprocess=PRE)
    found = [usual_attack(models) for models in ([small()], [converted], [converted, blind])]
    assert found == ["pgd", "pgd", "square(queries=500)"]
