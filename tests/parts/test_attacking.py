"""`clearsight attack`: what it counts, draws and writes, and that what it writes still fools."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.attacking import sweep
from clearsight.attacking.eight_bit import as_png, from_png, rounded
from clearsight.attacking.report import attack_pictures, attack_request
from clearsight.attacking.transfer_matrix import to_input_of, transfer_matrix
from clearsight.core.catalogue import number
from clearsight.data.datasets import Picture, Pictures, folder
from clearsight.errors import Refused
from clearsight.reporting.findings import Finding
from workshop import ColourNet, factory

EPS = 128 / 255


def rows(finding: Finding, caption: str) -> list[dict[str, Any]]:
    return [dict(r) for t in finding.tables if t.caption.startswith(caption) for r in t.rows]


@pytest.fixture
def photos(workshop: Path) -> Pictures:
    return folder(workshop / "photos")


def attacked(model: cs.Classifier, data: Pictures, where: Path, method: str, **how: Any) -> Finding:
    options = {k: how.pop(k) for k in ("eps", "curve", "target", "other", "access", "digits") if k in how}
    report = attack_pictures(
        model, data, attack_request(model, method, **{"eps": EPS, **options}), where, explainer="saliency", **how
    )
    assert report.status == 0
    assert report.verdict == report.findings[0].headline
    return report.findings[0]


# Eight bits -----------------------------------------------------------------------------------------------------------


def test_rounding_keeps_the_budget_where_the_grid_allows_it() -> None:
    random = torch.Generator().manual_seed(0)
    clean = torch.rand(50, 3, 6, 5, generator=random)
    for norm, eps in (("linf", 3 / 255), ("linf", 1.5 / 255), ("l2", 0.2)):
        move = torch.randn(clean.shape, generator=random)
        z = clean + (
            eps * move.sign() if norm == "linf" else eps * move / move.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        )
        z = z.clamp(0, 1)
        stored = rounded(z, clean, eps, norm)  # type: ignore[arg-type]
        assert ((stored * 255) - (stored * 255).round()).abs().max() < 1e-4
        flat = (stored - clean).flatten(1)
        far = flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)
        assert float(far.max()) <= eps + (1e-6 if norm == "linf" else 0.5 / 255)
        assert (stored - z).abs().max() <= 1.01 / 255


def test_a_png_holds_just_these_values(tmp_path: Path) -> None:
    for channels in (1, 3):
        x = torch.randint(0, 256, (channels, 5, 7)).float() / 255
        (tmp_path / "x.png").write_bytes(as_png(x))
        assert torch.equal(from_png(tmp_path / "x.png"), x)


# One model ------------------------------------------------------------------------------------------------------------


def test_what_is_counted_is_what_the_files_show(photos: Pictures, tmp_path: Path) -> None:
    model = factory()
    f = attacked(model, photos, tmp_path, "pgd(steps=5)")
    told = {r["picture"]: r for r in rows(f, "By picture")}
    labels = {p.name: set(p.labels) for p in photos.pictures}
    clean = {p.name: cs.pixels(model, p.path)[0] for p in photos.pictures}
    right = {n for n, x in clean.items() if model.labels[int(model(x[None]).argmax())] in labels[n]}
    assert {n for n, r in told.items() if r["state"] != "met before"} == right
    fooled = {n for n, r in told.items() if r["state"] == "fooled"}
    assert fooled
    for n in fooled:
        x = from_png(tmp_path / told[n]["file"])
        assert float((x - clean[n]).abs().max()) <= EPS + 1e-6
        says = model.labels[int(model(x[None]).argmax())]
        assert (says not in labels[n]) == (told[n]["as 8 bits"] == "fools")
        opened = cs.pixels(model, tmp_path / told[n]["file"])
        assert (model.labels[int(model(opened).argmax())] not in labels[n]) == (told[n]["opened as a file"] == "fools")
    assert f.value == pytest.approx(len(right - fooled) / len(clean))
    assert f.n == len(clean)
    by_class = rows(f, "By class")
    assert sum(r["n"] for r in by_class) == len(clean)
    assert sum(r["right under attack"] for r in by_class) == len(right - fooled)
    assert len(f.evidence) == min(len(fooled), 12)


def test_the_curve_falls_from_what_is_right_untouched_to_the_headline(photos: Pictures, tmp_path: Path) -> None:
    f = attacked(factory(), photos, tmp_path, "pgd(steps=5)", curve=[1 / 255, 20 / 255])
    budgets = rows(f, "By budget")
    assert [r["eps"] for r in budgets] == ["0", "1/255", "20/255", "128/255"]
    kept = [r["not fooled"] for r in budgets]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < kept[0]
    assert kept[-1] / f.n == f.value
    assert kept[0] == sum(r["right before"] for r in rows(f, "By class"))
    assert f.figures[0].data.startswith(b"<?xml") or b"<svg" in f.figures[0].data


def test_the_smallest_change_is_looked_for_once_and_counted_at_every_budget(photos: Pictures, tmp_path: Path) -> None:
    model = factory()
    f = attacked(model, photos, tmp_path, "deepfool(norm=linf)", curve=[k / 100 for k in range(14, 30)])
    told = [r for r in rows(f, "By picture") if r["state"] == "fooled"]
    assert told
    x = torch.cat([cs.pixels(model, p.path) for p in photos.pictures])
    y = torch.tensor([model.index(p.labels[0]) for p in photos.pictures])
    found = cs.attack(model, x, y, "deepfool(norm=linf)", eps=float("inf"))
    for r in rows(f, "By budget")[1:]:
        eps = number(r["eps"])
        left = ~found.already & ~(found.fooled & (found.distance <= eps * (1 + 1e-6)))
        assert r["not fooled"] == int(left.sum())


def test_each_budget_is_a_run_of_its_own_and_the_headline_is_that_of_eps(photos: Pictures, tmp_path: Path) -> None:
    model = factory()
    levels = [20 / 255, 60 / 255, EPS]
    f = attacked(model, photos, tmp_path, "fgsm", curve=levels)
    x = torch.cat([cs.pixels(model, p.path) for p in photos.pictures])
    y = torch.tensor([model.index(p.labels[0]) for p in photos.pictures])
    runs = [cs.attack(model, x, y, "fgsm", eps=eps) for eps in levels]
    kept = [int((~a.already & ~a.fooled).sum()) for a in runs]
    assert [r["not fooled"] for r in rows(f, "By budget")[1:]] == kept
    assert f.value * f.n == kept[-1]
    assert kept[-1] < kept[0]


def test_who_falls_at_a_smaller_budget_alone_is_told_apart(photos: Pictures, tmp_path: Path) -> None:
    """An attack of the user's own that only works below 0.3."""
    (tmp_path / "odd.py").write_text(
        "from clearsight.attacks.pgd import pgd\nfrom clearsight.core.catalogue import method\n\n\n"
        "@method(paper='none', claims='linf')\ndef odd(model, x, goal, *, eps):\n"
        "    return pgd(model, x, goal, eps=eps) if eps < 0.3 else x\n"
    )
    f = attacked(factory(), photos, tmp_path, f"{tmp_path}/odd.py:odd", curve=[0.29], eps=0.5)
    few, many = (r["not fooled"] for r in rows(f, "By budget")[1:])
    assert few < many == f.value * f.n
    assert f"{many - few} of these fall at a smaller budget." in f.headline
    assert {r["state"] for r in rows(f, "By picture")} == {"stands", "met before"}
    assert f.evidence == ()


@pytest.mark.parametrize("method", ["hop-skip-jump(queries=120, norm=linf)", "boundary(queries=120)"])
def test_what_is_found_beyond_the_budget_counts_nowhere(method: str, photos: Pictures, tmp_path: Path) -> None:
    f = attacked(factory(), photos, tmp_path, method, eps=0.2 if "linf" in method else 7.4)
    fooled = [r for r in rows(f, "By picture") if r["state"] == "fooled"]
    right = sum(r["state"] != "met before" for r in rows(f, "By picture"))
    assert 0 < len(fooled) < right
    assert f.value * f.n == right - len(fooled)
    assert rows(f, "Success by queries")[-1]["fooled"] == len(fooled)
    assert len(f.evidence) == len(fooled)
    assert len(list((tmp_path / "attacked").iterdir())) == len(fooled)


@pytest.mark.parametrize("method", ["deepfool(norm=l2)", "deepfool(norm=linf)", "fab(norm=linf, steps=20)"])
def test_the_smallest_change_outlives_a_file_a_little_longer(method: str, photos: Pictures, tmp_path: Path) -> None:
    eps = 0.5 if "linf" in method else 20.0
    f = attacked(factory(), photos, tmp_path, method, eps=eps)
    told = [r for r in rows(f, "By picture") if r["state"] == "fooled"]
    assert len(told) > 5
    assert all(r["as 8 bits"] == "fools" for r in told)
    assert all(float(r["moved by"]) < 1.3 * float(number(r["falls at eps"])) for r in told)


def test_a_file_holds_what_its_row_tells(photos: Pictures, tmp_path: Path) -> None:
    model = factory()
    f = attacked(model, photos, tmp_path, "pgd(steps=3)", curve=[k / 255 for k in range(40, 128, 8)])
    clean = {p.name: cs.pixels(model, p.path)[0] for p in photos.pictures}
    told = [r for r in rows(f, "By picture") if r["state"] == "fooled"]
    assert len({r["falls at eps"] for r in told}) > 1
    for r in told:
        moved = float((from_png(tmp_path / r["file"]) - clean[r["picture"]]).abs().max())
        assert moved == pytest.approx(r["moved by"], abs=1e-6)
        assert moved <= number(r["shown at eps"]) + 1e-6


def hardly_red(pictures: Pictures, by: float) -> cs.Classifier:
    """A model whose least sure red picture is red by so little."""
    model = factory()
    reds = torch.cat([cs.pixels(model, p.path) for p in pictures.pictures if p.labels == ("red",)])
    with torch.no_grad():
        model.net.head.bias[0] -= cs.Margin(torch.zeros(len(reds), dtype=torch.long))(model(reds)).min() - by
    return model


def test_what_outlives_no_file_is_shown_at_the_first_budget_that_fooled(photos: Pictures, tmp_path: Path) -> None:
    """Of less than half a step of 8 bits nothing is left in a file."""
    levels = [0.3 / 255, 0.4 / 255, 0.45 / 255]
    f = attacked(hardly_red(photos, 0.001), photos, tmp_path, "fgsm", curve=levels, eps=levels[-1])
    told = [r for r in rows(f, "By picture") if r["state"] == "fooled"]
    assert {r["as 8 bits"] for r in told} == {"does not"}
    assert all(r["shown at eps"] == r["falls at eps"] for r in told)
    assert any(r["falls at eps"] == "0.3/255" for r in told)


def test_the_smallest_change_is_told_beyond_the_budget_too_and_counts_only_within(
    photos: Pictures, tmp_path: Path
) -> None:
    model = factory()
    x = torch.cat([cs.pixels(model, p.path) for p in photos.pictures])
    y = torch.tensor([model.index(p.labels[0]) for p in photos.pictures])
    free = cs.attack(model, x, y, "deepfool(norm=linf)", eps=float("inf"))
    far = free.distance[free.fooled].sort().values
    k = int(far.diff().argmax()) + 1
    eps = float(far[k - 1] + far[k]) / 2
    f = attacked(model, photos, tmp_path, "deepfool(norm=linf)", eps=eps)
    told = rows(f, "By picture")
    assert sum(r["state"] == "fooled" for r in told) == len(f.evidence) == k
    assert sum(r["falls at eps"] is not None for r in told) == len(far)
    assert len(list((tmp_path / "attacked").iterdir())) == sum(r["file"] is not None for r in told) == k
    (note,) = [n for n in f.notes if "median" in n]
    assert f"({len(far)} pictures)" in note


def test_where_nothing_is_right_there_is_nothing_to_attack(photos: Pictures, tmp_path: Path) -> None:
    reds = [replace(p, labels=("blue",)) for p in photos.pictures if "red" in p.name]
    wrong = replace(photos, pictures=tuple(reds))
    f = attacked(factory(), wrong, tmp_path, "pgd")
    assert f.verdict == "note"
    assert "nothing to attack" in f.headline


def test_a_class_of_the_attackers_choice(photos: Pictures, tmp_path: Path) -> None:
    f = attacked(factory(), photos, tmp_path, "square(queries=200)", eps=1.0, target="blue")
    assert f.headline.startswith("Under square at eps 1.0, the model classifies ")
    assert f.value > 0
    assert all(r["says now"] == "blue" for r in rows(f, "By picture") if r["state"] == "fooled")
    before = sum(r["state"] == "met before" for r in rows(f, "By picture"))
    assert f.n == len(photos.pictures) - before


def test_a_black_box_shows_success_against_queries(photos: Pictures, tmp_path: Path) -> None:
    f = attacked(factory(), photos, tmp_path, "square(queries=60)", access="probs", digits=3, eps=70 / 255)
    told = rows(f, "Success by queries")
    assert 0 < told[-1]["fooled"] < told[-1]["n"]
    assert [r["fooled"] for r in told] == sorted(r["fooled"] for r in told)
    assert told[-1]["queries"] <= 60
    assert told[-1]["fooled"] == sum(r["state"] == "fooled" for r in rows(f, "By picture"))
    assert any("that answers with probs of 3 digits" in n for n in f.notes)
    assert any(g.name == "attack-queries.svg" for g in f.figures)
    with pytest.raises(Refused, match="hop-skip-jump"):
        attacked(factory(), photos, tmp_path, "square", access="label")


def test_an_attack_by_labels_alone_begins_at_pictures_of_the_class_to_become(photos: Pictures, tmp_path: Path) -> None:
    f = attacked(factory(), photos, tmp_path, "boundary(queries=60)", eps=30.0, target="blue", command="the whole")
    said = {p.name: factory()(cs.pixels(factory(), p.path)).argmax(1) for p in photos.pictures}
    blue = sum(int(k) == 2 for k in said.values())
    assert any(f"begin at {blue} pictures" in n for n in f.notes)
    assert all(r["queries"] == 1 for r in rows(f, "By picture") if r["state"] == "fooled")
    assert {e.command for e in f.evidence} == {"the whole"}  # one picture alone has no other to begin at


def test_a_picture_is_shown_again_by_the_words_that_it_was_attacked_with(photos: Pictures, tmp_path: Path) -> None:
    f = attacked(
        factory(), photos, tmp_path, "square(queries=200)", access="probs", digits=3, eps=200 / 255, target="blue"
    )
    assert f.evidence
    assert all("--eps 200/255 --target blue --access probs --digits 3" in e.command for e in f.evidence)
    f = attacked(factory(), photos, tmp_path, "transfer", other=replace(factory(), source="second"))
    assert f.evidence
    assert all("-a transfer --eps 128/255 --other second" in e.command for e in f.evidence)


class Blind(ColourNet):
    """No gradient reaches its pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(x)


def test_without_gradients_a_black_box_is_shown_without_maps(photos: Pictures, tmp_path: Path) -> None:
    model = cs.Classifier(Blind(), factory().preprocess, factory().labels, "blind")
    f = attacked(model, photos, tmp_path, "square(queries=60)", eps=200 / 255)
    assert f.evidence
    assert any(n.startswith("No maps before and after") and "no gradient" in n for n in f.notes)
    assert "its map" not in f.evidence[0].figure.caption
    with pytest.raises(Refused, match="by square or hop-skip-jump"):
        attacked(model, photos, tmp_path, "pgd", eps=200 / 255)


def test_a_universal_attack_learns_from_others_than_those_it_attacks(photos: Pictures, tmp_path: Path) -> None:
    f = attacked(factory(), photos, tmp_path, "universal(steps=4)")
    assert f.n == len(photos.pictures) - len(photos.pictures) // 2
    assert any("others than the attacked ones" in n for n in f.notes)


def test_a_universal_attack_learns_once_for_each_budget(photos: Pictures, tmp_path: Path, monkeypatch: Any) -> None:
    many = replace(photos, pictures=tuple(replace(p, name=f"{k}-{p.name}") for k in range(6) for p in photos.pictures))
    asked_of = []
    real = sweep.attack
    monkeypatch.setattr(sweep, "attack", lambda *a, **k: asked_of.append(len(a[1])) or real(*a, **k))
    f = attacked(factory(), many, tmp_path, "universal(steps=2)", curve=[0.1])
    assert asked_of[0] == f.n == 36
    assert len(asked_of) == 2


def test_a_patch_is_written_to_be_printed_just_as_it_was_learned(photos: Pictures, tmp_path: Path) -> None:
    call = "patch(steps=10, share=0.6, shape=square, rotation=0, scale=0)"
    f = attacked(factory(), photos, tmp_path, call, eps=1.0)
    assert any("patch.png" in n for n in f.notes)
    with Image.open(tmp_path / "patch.png") as image:
        assert image.size == (1181, 1181)
        printed = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).movedim(-1, 0).float() / 255
    told = next(r for r in rows(f, "By picture") if r["state"] == "fooled")
    z = from_png(tmp_path / told["file"])
    clean = cs.pixels(factory(), next(p.path for p in photos.pictures if p.name == told["picture"]))[0]
    moved = (z - clean).abs().amax(0) > 0.5 / 255
    down, along = moved.any(1).nonzero()[:, 0], moved.any(0).nonzero()[:, 0]
    part = z[:, int(down.min()) : int(down.max()) + 1, int(along.min()) : int(along.max()) + 1]
    small = torch.nn.functional.interpolate(printed[None], part.shape[1:], mode="area")[0]
    assert (small - part).abs().mean() < 0.1


def test_pictures_without_labels_stand_for_the_models_own_answer(workshop: Path, tmp_path: Path) -> None:
    loose = Pictures("loose", tuple(Picture(p, p.name) for p in sorted((workshop / "photos" / "red").glob("*.png"))))
    f = attacked(factory(), loose, tmp_path, "pgd(steps=5)")
    assert not any(r["state"] == "met before" for r in rows(f, "By picture"))
    assert any("no label" in n for n in f.notes)


def test_pictures_of_one_name_are_kept_apart(workshop: Path, tmp_path: Path) -> None:
    files = [workshop / "photos" / c / f"{c}1.png" for c in ("red", "blue")]
    both = Pictures("two", tuple(Picture(p, "same.png", (p.parent.name,)) for p in files))
    f = attacked(factory(), both, tmp_path, "pgd(steps=5)")
    assert {r["picture"] for r in rows(f, "By picture")} == {str(p) for p in files}
    assert len({r["file"] for r in rows(f, "By picture") if r["file"]}) == sum(
        r["state"] == "fooled" for r in rows(f, "By picture")
    )


@pytest.mark.parametrize(
    ("method", "how", "why"),
    [
        ("pgd", {"eps": 2.0}, "a budget"),
        ("deepfool", {"eps": float("inf")}, "give one"),
        ("spatial", {"curve": [0.1]}, "leave curve out"),
        ("boundary", {"eps": 1.0, "curve": [2.0]}, "of curve as eps"),
        ("pgd", {"eps": 0.0}, "above 0"),
        ("deepfool", {"eps": 0.0}, "above 0"),
        ("pgd", {"access": "label"}, "is not a black-box attack"),
        ("pgd", {"target": "purple"}, "purple"),
        ("pgd", {"curve": [-0.1]}, "a budget"),
        ("transfer", {}, "second model"),
    ],
)
def test_what_cannot_be_is_refused(
    photos: Pictures, tmp_path: Path, method: str, how: dict[str, Any], why: str
) -> None:
    with pytest.raises(Refused, match=why):
        attacked(factory(), photos, tmp_path, method, **how)


# Several models -------------------------------------------------------------------------------------------------------


def other(side: int = 32, bias: float = 0.2) -> cs.Classifier:
    net = ColourNet()
    with torch.no_grad():
        net.features[0].bias.fill_(bias)
    return cs.wrap(net, cs.Preprocess(side, (0.0,) * 3, (1.0,) * 3), labels=["red", "green", "blue"])


def confused() -> cs.Classifier:
    """It takes green for blue and blue for green."""
    model = other()
    with torch.no_grad():
        model.net.head.weight.copy_(model.net.head.weight[[0, 2, 1]].clone())
    return model


def test_the_transfer_matrix_counts_who_is_fooled_by_whose_pictures(photos: Pictures, tmp_path: Path) -> None:
    models = [other(), confused()]
    want = attack_request(models[0], "pgd(steps=5)", eps=EPS)
    f = transfer_matrix(models, photos, want, tmp_path).findings[0]
    assert f.check == "pgd(steps=5, early_stop=false)"  # what stops at one model's border seldom crosses another's
    x = torch.cat([cs.pixels(models[0], p.path) for p in photos.pictures])
    y = torch.tensor([models[0].index(p.labels[0]) for p in photos.pictures])
    told = {(r["attacked on"], r["shown to"]): r for r in rows(f, "From model to model")}
    assert len(told) == 4
    for i, source in enumerate(models, 1):
        files = {p.stem: p for p in (tmp_path / f"model-{i}" / "attacked").glob("*.png")}
        made = cs.attack(source, x, y, "pgd(steps=5, early_stop=false)", eps=EPS)
        z = torch.stack(
            [
                from_png(files[p.path.stem]) if p.path.stem in files else v
                for p, v in zip(photos.pictures, made.x, strict=True)  # who withstood it is shown attacked all the same
            ]
        )
        for j, target in enumerate(models, 1):
            with torch.no_grad():
                right = (source(x).argmax(1) == y) & (target(x).argmax(1) == y)
                wrong = right & (target(z).argmax(1) != y)
            r = told[f"model-{i}", f"model-{j}"]
            assert (r["n"], r["fooled"]) == (int(right.sum()), int(wrong.sum()))
    assert told["model-1", "model-1"]["share"] > 0.5
    matrix = rows(f, "Fooled")
    assert [r["attacked on"] for r in matrix] == ["model-1", "model-2"]
    assert matrix[0]["model-2"].startswith(
        f"{told['model-1', 'model-2']['fooled']} of {told['model-1', 'model-2']['n']},"
    )
    assert [g.name for g in f.figures] == ["transfer-matrix.svg"]


def test_who_withstands_on_one_model_can_fool_another(photos: Pictures, tmp_path: Path) -> None:
    """The second model is the first, but hardly sure of red: the step that the first withstands is too much for it."""
    weak = hardly_red(photos, 0.1)
    f = transfer_matrix([other(), weak], photos, attack_request(weak, "fgsm", eps=20 / 255), tmp_path).findings[0]
    told = {(r["attacked on"], r["shown to"]): r for r in rows(f, "From model to model")}
    assert told["model-1", "model-1"]["fooled"] == 0
    assert told["model-1", "model-2"]["fooled"] > 0


def test_a_matrix_counts_no_change_beyond_its_budget(photos: Pictures, tmp_path: Path) -> None:
    f = transfer_matrix(
        [other(), confused()],
        photos,
        attack_request(other(), "deepfool(norm=linf, overshoot=0.3, back=0)", eps=1 / 255),
        tmp_path,
    ).findings[0]
    assert sum(r["n"] for r in rows(f, "From model to model")) > 0
    assert all(r["fooled"] == 0 for r in rows(f, "From model to model"))


def test_pictures_are_carried_to_another_size_and_classes_must_be_the_same(photos: Pictures, tmp_path: Path) -> None:
    small = other(side=24)
    x = torch.rand(2, 3, 32, 32)
    moved = to_input_of(x, small)
    assert moved.shape == (2, 3, 24, 24)
    assert ((moved * 255) - (moved * 255).round()).abs().max() < 1e-4
    assert to_input_of(x, other()) is x
    want = attack_request(small, "fgsm", eps=EPS)
    f = transfer_matrix([other(), small], photos, want, tmp_path / "a").findings[0]
    assert len(rows(f, "From model to model")) == 4
    strange = cs.wrap(ColourNet(), cs.Preprocess(32, (0.0,) * 3, (1.0,) * 3), labels=["a", "b", "c"])
    with pytest.raises(Refused, match="same classes"):
        transfer_matrix([other(), strange], photos, want, tmp_path / "b")
    with pytest.raises(Refused, match="untargeted"):
        transfer_matrix([other(), small], photos, attack_request(small, "fgsm", target="red"), tmp_path / "c")


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_writes_a_report_and_pictures(workshop: Path, run: Any) -> None:
    ran = run(
        "attack",
        "net.py:factory",
        "photos",
        "-a",
        "pgd(steps=5)",
        "--eps",
        "128/255",
        "-o",
        "out",
        "-m",
        "saliency",
        "--json",
    )
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    assert told["findings"][0]["check"] == "pgd(steps=5)"
    page = Path("out/report.html").read_text()
    assert "Clearsight attack" in page
    assert "http" not in page.split("<body")[1].replace("https://arxiv.org", "").replace("https://doi.org", "")
    assert len(list(Path("out/attacked").glob("*.png"))) == sum(
        r["state"] == "fooled"
        for t in told["findings"][0]["tables"]
        if t["caption"].startswith("By picture")
        for r in t["rows"]
    )
    several = run(
        "attack", "net.py:factory", "net.py:factory", "photos", "-a", "fgsm", "--eps", "128/255", "-o", "two", "--quiet"
    )
    assert several.status == 0, several.err
    assert "transfer-matrix" in "".join(p.name for p in Path("two/figures").iterdir())


def test_the_terminal_shows_the_curve_or_the_matrix(workshop: Path, run: Any) -> None:
    ran = run("attack", "net.py:factory", "photos", "-a", "fgsm", "--eps", "128/255", "-m", "saliency", "-o", "one")
    assert ran.status == 0, ran.err
    assert re.search(r"By budget\n  eps +not fooled +n .*\n  0 .*\n", ran.out)
    assert len(re.findall("stay right", ran.out)) == 1  # said once
    ran = run("attack", "net.py:factory", "net.py:factory", "photos", "-a", "fgsm", "--eps", "128/255", "-o", "two")
    assert ran.status == 0, ran.err
    assert re.search(r"attacked on \(down\).*\n  attacked on .*\n  .* \d+ of \d+, .* %\n", ran.out)


def test_what_a_black_box_tells_is_looked_at_before_any_picture_is() -> None:
    for how in ({"access": "top-x"}, {"access": "probs", "digits": 0}, {"digits": 2}):
        with pytest.raises(Refused, match="access"):
            attack_request(factory(), "square", **how)  # type: ignore[arg-type]


def test_wrong_words_of_the_command_are_one_line(workshop: Path, run: Any) -> None:
    for words, why in (
        (("--eps", "much"), "8/255"),
        (("--curve", "1/255,x"), "--curve"),
        (("-a", "square", "--access", "top-x"), "top-5"),
        (("-a", "transfer"), "second model"),
    ):
        ran = run("attack", "net.py:factory", "photos", *words)
        assert ran.status == 2
        assert why in ran.err
        assert ran.err.count("\n") <= 2
    two = run("attack", "net.py:factory", "net.py:factory", "photos", "--curve", "1/255", "--budget", "5s")
    assert two.status == 2
    assert "--curve, --budget" in two.err
    assert not list(Path().glob("clearsight-runs/attack-*"))
