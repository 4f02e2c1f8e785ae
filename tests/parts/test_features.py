"""Seeing inside: each feature on nets whose inside is known, the manners of all of them, the command and its pages."""

from __future__ import annotations

import inspect
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clearsight as cs
from argsblock import check_args_block
from clearsight.core.catalogue import catalogue, parse
from clearsight.data.annotations import Region
from clearsight.data.datasets import Picture, Pictures, folder
from clearsight.errors import Refused
from clearsight.feature_report.html import render
from clearsight.feature_report.report import FeatureContext, FeatureReport, features, prepare, run_visualisations
from clearsight.internals.capture import capture, receptive_fields
from clearsight.reporting.pages import layer_page, unit_page
from clearsight.visualisations import dissection, embedding, factors, neighbours, patches, visualise
from workshop import ColourNet, factory

EVERY = list(catalogue("visualisations"))

SMALL = {"steps": 6, "pictures": 6, "top": 3}
SHARED = Path(__file__).parents[3] / "shared" / "data" / "coco_masks"
every = pytest.mark.parametrize("name", EVERY)


def htmls(found: FeatureReport) -> dict[str, str]:
    return render(found.pages, found.facts, found.left_out)


def spelled(name: str, **options: object) -> str:
    has = catalogue("visualisations")[name].options
    words = ", ".join(f"{k}={v}" for k, v in {**SMALL, **options}.items() if k in has)
    return f"{name}({words})"


def wrapped(net: nn.Module, size: int | tuple[int, int], channels: int, classes: int = 2) -> cs.Classifier:
    labels = [f"class {i}" for i in range(classes)]
    return cs.wrap(net, cs.Preprocess(size, (0.0,) * channels, (1.0,) * channels), labels, source="net")


def write(root: Path, pictures: dict[str, Tensor]) -> Pictures:
    """Pictures (C, H, W) as files, by name."""
    for name, x in pictures.items():
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        a = (x * 255).round().to(torch.uint8)
        Image.fromarray((a[0] if len(a) == 1 else a.permute(1, 2, 0)).numpy()).save(path)
    return folder(root)


def shown(atlas: FeatureReport, address: str, title: str) -> list[dict[str, object]]:
    page = next(p for p in atlas.as_dict()["pages"] if p["address"] == address)
    return next(b["shown"] for b in page["blocks"] if b["title"].startswith(title))


class Headed(nn.Module):
    """Given feature maps, averaged, then a linear head."""

    def __init__(self, body: nn.Module, units: int, classes: int = 2) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(units, classes)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(classes, units))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).mean((2, 3)))
        return out


@pytest.fixture
def photos(workshop: Path) -> Pictures:
    return folder(workshop / "photos", boxes=workshop / "boxes.json")


@pytest.fixture
def colours(photos: Pictures) -> FeatureContext:
    return prepare(factory(), photos, ("features",))


# --- manners ----------------------------------------------------------------------------------------------------------


@every
def test_docstring_paper_and_options(name):
    m = catalogue("visualisations")[name]
    assert m.summary.endswith(".")
    assert len(m.summary) <= 112
    assert re.match(r"(arXiv:\d{4}\.\d{4,5}|doi:10\.)", m.paper)
    assert m.paper in (inspect.getmodule(m.fn).__doc__ or "")
    assert next(iter(inspect.signature(m.fn).parameters)) == "inside"
    check_args_block(m)
    for option in m.options:
        assert str(parse(f"{name}({option}={1})" if option != "of" else f"{name}(of=units)", "visualisations"))


@every
def test_addresses_are_stable_and_the_same_seed_gives_the_same(name, photos):
    one, two = (features(factory(), photos, layer="features", units=[1], methods=spelled(name)) for _ in range(2))
    assert [p.address for p in one.pages] == [p.address for p in two.pages]
    assert {p.address for p in one.pages} <= {"index.html", "layers/features.html", "units/features/1.html"}
    assert htmls(one) == htmls(two)
    blocks = [b for p in one.pages for b in p.blocks]
    assert blocks
    for b in blocks:
        assert b.method == spelled(name)
        assert b.words.strip()
        assert parse(b.method, "visualisations").method.name == name


@every
@pytest.mark.parametrize("broken", [False, True])
def test_the_model_comes_back_as_it_was(name, broken, photos, monkeypatch):
    model = factory()
    model.net.train()
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    if broken:

        def fail(*_: object, **__: object) -> Tensor:
            raise Refused("on purpose")

        monkeypatch.setattr("clearsight.auditing.case.Case.sample", fail)
        monkeypatch.setattr("clearsight.feature_report.report.FeatureContext.best", fail)
        with pytest.raises(Refused, match="on purpose"):
            features(model, photos, layer="features", methods=spelled(name))
    else:
        features(model, photos, layer="features", methods=spelled(name))
    assert model.net.training
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in model.net.modules())
    assert all(p.requires_grad and p.grad is None for p in model.net.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_every_feature_of_a_real_net(small, photos):
    found = features(small, photos, methods=[spelled(n) for n in EVERY], target="c")
    assert {b.method.partition("(")[0] for p in found.pages for b in p.blocks} == set(EVERY)
    assert not found.left_out
    assert layer_page("5") in [p.address for p in found.pages]


def test_a_budget_leaves_pictures_out_and_says_so(photos, monkeypatch):
    import clearsight.auditing.clock as clock_of_audits

    clock = iter(range(10**6))
    monkeypatch.setattr(clock_of_audits, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    made = prepare(factory(), photos, ("features",), budget=1000.0)
    made.case.clock.deadline = None
    _ = made.case.pictures
    made.case.clock.deadline = 0.0
    assert made.best("features").n == 1
    rows, e = made.embedding
    assert len(rows) == len(e) == 1


def test_the_folder_of_the_catalogue_does_not_hide_the_verb(photos):
    import clearsight.visualisations  # noqa: F401

    assert callable(cs.features)
    assert isinstance(cs.features(factory(), photos, methods="neighbours"), FeatureReport)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"layer": "featurs"}, "features"),
        ({"layer": ""}, "no layer ''"),
        ({"units": [3]}, "0 to 2"),
        ({"units": [-1]}, "no unit -1"),
        ({"methods": "patchs"}, "patches"),
        ({"methods": "patches(top=0)"}, "at least 1"),
        ({"methods": "visualise(zoom=1)"}, "zoom"),
        ({"methods": "embedding(perplexity=12)"}, "and below 12, the number of pictures"),
        ({"methods": "dissection(quantile=2)"}, "quantile"),
        ({"target": "mauve"}, "mauve"),
        ({"layer": "head", "methods": "factors"}, "no places"),
        ({"layer": "head", "methods": "activations"}, "no places"),
        ({"layer": "head", "methods": "dissection"}, "no places"),
    ],
)
def test_refused(how, told, photos):
    with pytest.raises(Refused, match=re.escape(told)):
        features(factory(), photos, **how)


def test_few_pictures(photos):
    two = Pictures(photos.root, photos.pictures[:2])
    found = features(factory(), two, methods=(), units=[0])
    assert [m for m, _ in found.left_out] == ["embedding", "dissection"][: len(found.left_out)]
    with pytest.raises(Refused, match="at least 4"):
        features(factory(), two, methods="embedding")
    with pytest.raises(Refused, match="at least 2"):
        features(factory(), Pictures(photos.root, photos.pictures[:1]), methods="neighbours")
    four = Pictures(photos.root, photos.pictures[::3])
    assert features(factory(), four, methods="embedding").pages


def test_without_feature_maps_the_rest_is_done_and_that_is_said(photos):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 3))
    model = cs.wrap(net, cs.Preprocess(8, (0.5,) * 3, (0.5,) * 3), ["red", "green", "blue"])
    found = features(model, photos, target="blue")
    assert {m for m, why in found.left_out if "no layer was found" in why} >= {"patches", "factors"}
    said = [b.title for b in found.pages[0].blocks]
    assert "Nearest neighbours" in said
    assert "Made for a class" in said
    page = htmls(found)["index.html"]
    assert "Methods left out" in page
    units = features(model, photos, layer="1", units=[2], methods=["patches", spelled("visualise")])
    assert unit_page("1", 2) in [p.address for p in units.pages]  # a layer without places has units too


def test_reprs_are_a_short_line(photos):
    found = features(factory(), photos, layer="features", units=[0], methods=["patches(top=2)", "neighbours"])
    model = found.facts["model"]
    assert repr(found) == f"<FeatureReport of {model}, 3 pages on 12 pictures: neighbours, patches(top=2)>"
    assert "1 page on 0 pictures" in repr(FeatureReport(found.pages[:1], {}))


@pytest.mark.parametrize(
    ("scores", "thing", "facts"),
    [
        ("logits", "a class", ["logit", "probability"]),
        ("multi-label", "a label", ["logit", "probability"]),
        ("values", "an output", ["value"]),
    ],
)
def test_visualise_and_factors_call_outputs_what_they_are(scores, thing, facts, photos):
    said = []
    kept = factory()
    model = cs.Classifier(kept.net, kept.preprocess, kept.labels, "net", scores=scores)
    methods = [spelled("visualise", of="classes"), "factors(factors=2)"]
    found = features(model, photos, methods=methods, layer="features", progress=lambda *w: said.append(w[0]))
    block = found.pages[0].blocks[0]
    assert block.title == f"Made for {thing}"
    assert f"Pictures that raise the {facts[0]} of {thing}." in block.words
    assert list(block.shown[0].facts)[: len(facts)] == facts
    assert list(block.shown[0].facts)[len(facts)].startswith("best photo")
    word = thing.partition(" ")[2]
    assert {w.split()[1] for w in said if w.startswith("visualise ")} == {word}
    for shown in block.shown if "probability" in facts else ():  # of its own kind: the labels of one model sum to more
        logit = torch.tensor(shown.facts["logit"])
        chance = float(shown.facts["probability"])
        assert (chance == pytest.approx(logit.sigmoid().item(), abs=1e-5)) == (scores == "multi-label")
    concept = found.pages[1].blocks[0].tables[0].rows[0]
    assert ("gives" in concept) == (scores == "values")
    words = str(list(concept.values())[-1])
    assert ("%" in words) == (scores != "values")
    total = sum(float(w.split()[1]) for w in words.split(", "))
    assert (99 <= total <= 101) == (scores == "logits")  # only classes share out one whole


def test_one_output_is_not_chosen_among_others(photos):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    model = cs.Classifier(net, cs.Preprocess(8, (0.5,) * 3, (0.5,) * 3), ("age",), "net", scores="values")
    found = features(model, photos, methods=spelled("visualise", of="classes"))
    assert "--target" not in found.pages[0].blocks[0].words


def test_the_unit_page_says_what_a_place_is(photos):
    found = features(factory(), photos, layer="features", units=[0], methods="patches(top=2)")
    block = next(b for p in found.pages for b in p.blocks if b.title == "Strongest patches")
    assert "A place is a row and a column of the layer's map of 32 × 32, counted from 0." in block.notes
    assert "place" in block.shown[0].facts
    flat = features(factory(), photos, layer="head", units=[0], methods="patches(top=2)")  # a layer without places
    block = next(b for p in flat.pages for b in p.blocks if b.title == "Strongest patches")
    assert not any("row and a column" in note for note in block.notes)
    assert "place" not in block.shown[0].facts


def test_labels_that_the_model_does_not_know_still_serve(workshop):
    (workshop / "photos" / "red").rename(workshop / "photos" / "scarlet")
    found = features(factory(), folder(workshop / "photos"), methods="embedding(clusters=3)")
    assert "scarlet" in json.dumps(found.as_dict())
    assert any("used as labels" in note for note in found.facts["notes"])


# --- taps -------------------------------------------------------------------------------------------------------------


def test_what_a_layer_is_driven_by_is_not_cut_off():
    net = Headed(nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU6(inplace=True)), 1, 1)
    net.body[0].weight.data.fill_(20.0)
    model = cs.Classifier(net, cs.Preprocess((1, 2), (0.0,), (1.0,)), ("a",))
    found = capture(model, torch.tensor([[[[0.25, 1.0]]]]), "body")
    assert found.out.flatten().tolist() == [5.0, 6.0]
    assert found.preactivation.flatten().tolist() == [5.0, 20.0]
    inner = capture(model, torch.tensor([[[[0.25, 1.0]]]]), "body.0")  # the ReLU behind it works in place
    assert inner.out.flatten().tolist() == inner.preactivation.flatten().tolist() == [5.0, 20.0]


def test_receptive_fields_by_theory():
    """Two convolutions: the size is 1 + 2·1 + 2·2 = 7, a step of 4 pixels, the first field begins at −1 − 2 = −3."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3, stride=2, padding=1))
    for p in body.parameters():
        p.data.abs_()  # so that no ReLU is closed
    model = wrapped(Headed(body, 3), (32, 24), 1)
    found = receptive_fields(model, "body", [(0, 0), (3, 2), (7, 5)])
    assert found == [(0, 0, 4, 4), (2 * 4 - 3, 3 * 4 - 3, 2 * 4 + 4, 3 * 4 + 4), (17, 25, 24, 32)]


# --- patches ----------------------------------------------------------------------------------------------------------


def spotted() -> tuple[cs.Classifier, dict[str, Tensor]]:
    """A unit that sums 3 × 3 pixels, and pictures with spots of known sums at known places."""
    body = nn.Conv2d(1, 2, 3, bias=False)
    body.weight.data[0] = 1.0
    body.weight.data[1] = -1.0
    x = {k: torch.zeros(1, 12, 12) for k in "abc"}
    x["a"][:, 1:4, 2:5] = 1.0  # 9
    x["b"][:, 6:9, 6:9] = 0.8
    x["a"][:, 8:11, 8:11] = 0.6  # the second best of a, apart from the best
    return wrapped(Headed(body, 2), 12, 1), x


def test_patches_are_the_strongest_places_and_never_the_same(tmp_path):
    model, x = spotted()
    found = features(model, write(tmp_path, x), layer="body", units=[0], methods="patches(top=3)")
    rows = shown(found, "units/body/0.html", "Strongest patches")
    assert [r["name"] for r in rows] == ["a.png", "b.png", "a.png"]
    assert [r["place"] for r in rows] == ["1, 2", "6, 6", "8, 8"]
    assert [r["activation"] for r in rows] == pytest.approx([9, 7.2, 5.4], abs=0.02)
    block = next(b for p in found.pages for b in p.blocks if b.title == "Strongest patches")
    with Image.open(__import__("io").BytesIO(block.shown[0].figure.data)) as patch:
        assert np.asarray(patch.convert("L")).min() == 255  # the spot alone, 3 × 3, and nothing around it
    assert "3 × 3 of 12 × 12" in block.words


def test_activations_of_the_strongest_channels_by_their_peak(tmp_path):
    """Unit 1 is higher on average in this picture, unit 0 at its peak; unit 2 is nowhere above zero."""
    body = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU6())
    body[0].weight.data = torch.diag(torch.tensor([20.0, 8.0, -1.0])).view(3, 3, 1, 1)
    x = torch.zeros(3, 8, 8)
    x[0, 2, 3] = 1.0
    x[1] = 0.5
    x[2] = 1.0
    data = write(tmp_path, {"a": x, "b": torch.zeros(3, 8, 8)})
    found = features(wrapped(Headed(body, 3), 8, 3), data, layer="body", methods="activations(channels=2)")
    photo, first, second = shown(found, "layers/body.html", "Strongest channels: a")
    assert photo == {"name": "a.png", "page": ""}
    assert (first["name"], first["highest"], first["before squashing"]) == ("unit 0", 6.0, 20.0)
    assert (second["name"], second["lowest"], second["page"]) == (
        "unit 1",
        pytest.approx(4, abs=0.02),
        unit_page("body", 1),
    )
    other = shown(found, "layers/body.html", "Strongest channels: b")
    assert [r["highest"] for r in other[1:]] == [0.0, 0.0]
    assert "of 3 units" in next(b.words for p in found.pages for b in p.blocks)


def test_pages_of_layers_have_addresses_of_their_own():
    """A slash is the character 2f: it is not the hyphen of another layer."""
    assert layer_page("a/b") == "layers/a~2f~b.html"
    assert unit_page("a b", 3) == "units/a~20~b/3.html"
    assert layer_page("a-b") == "layers/a-b.html"


def test_boxes_of_patches_share():
    assert patches.shared((0, 0, 4, 4), (0, 0, 4, 4)) == 1
    assert patches.shared((0, 0, 4, 4), (4, 0, 8, 4)) == 0
    assert patches.shared((0, 0, 2, 2), (0, 0, 9, 9)) == 1


def test_patches_end_where_a_unit_is_silent(tmp_path):
    model, x = spotted()
    data = write(tmp_path, x)
    found = features(model, data, layer="body", units=[0], methods="patches(top=9, overlap=0)")
    rows = shown(found, "units/body/0.html", "Strongest patches")
    assert all(r["activation"] > 0 for r in rows)
    silent = features(model, data, layer="body", units=[1], methods="patches")
    assert len(shown(silent, "units/body/1.html", "Strongest patches")) == 1


def test_the_units_are_those_with_the_highest_activation(tmp_path):
    model, x = spotted()
    inside = prepare(model, write(tmp_path, x), ("body",))
    best = inside.best("body")
    assert inside.units("body") == (0, 1)
    assert best.n == 3
    assert inside.pictures[int(best.rows[0, 0])].name == "a.png"
    assert best.values[1, 0] == 0


def test_best_of_many_batches_is_best_of_all(workshop, photos):
    inside = prepare(factory(), photos, ("features",))
    inside.case.batches = lambda rows: (([r], inside.case.pixels([r])) for r in rows)  # type: ignore[method-assign,misc]
    found = inside.best("features", 5)
    whole = torch.stack([c.preactivation[0].flatten(1).amax(1) for _, _, c in inside.passes("features")])
    torch.testing.assert_close(found.values, whole.topk(5, 0).values.T)
    assert torch.equal(whole.gather(0, found.rows.T), found.values.T)
    assert found.n == 12


# --- visualise --------------------------------------------------------------------------------------------------------


def test_visualise_rises_far_above_noise(colours):
    found = run_visualisations(colours, [parse("visualise(steps=300, of=units)", "visualisations")])
    for r in shown(found, "layers/features.html", "Made for these"):
        assert r["reached"] > 0.6 + r["8 noise pictures, best"] > 0
    assert len(shown(found, "layers/features.html", "Made for these")) == 3


def test_visualise_makes_a_class(photos):
    found = features(factory(), photos, target=["blue"], methods="visualise(steps=300, of=classes)")
    (row,) = shown(found, "index.html", "Made for a class")
    assert row["name"] == "blue"
    assert row["probability"] > 0.99
    page = found.pages[0].blocks[0]
    with Image.open(__import__("io").BytesIO(page.shown[0].figure.data)) as made:
        red, green, blue = np.asarray(made.convert("RGB")).reshape(-1, 3).mean(0)
    assert blue > max(red, green) + 60
    assert page.targets == (2,)


def test_visualise_depends_on_the_seed_and_on_nothing_else_made(photos):
    def made(seed: int, units: list[int]) -> bytes:
        call = "visualise(steps=5, of=units)"
        found = features(factory(), photos, layer="features", units=units, methods=call, seed=seed)
        page = next(p for p in found.pages if p.address == "units/features/1.html")
        return page.blocks[0].shown[0].figure.data

    assert made(0, [1]) == made(0, [0, 1, 2])
    assert made(0, [1]) != made(1, [1])


def test_visualise_waves_are_a_picture_between_0_and_1():
    waves = 50 * torch.randn(1, 3, 8, 5, 2, generator=torch.Generator().manual_seed(0))
    x = visualise.picture(waves, torch.ones(8, 5), (8, 8))
    assert x.shape == (1, 3, 8, 8)
    assert 0 <= float(x.min()) < 0.01 < 0.99 < float(x.max()) <= 1
    one = torch.zeros(1, 1, 8, 5, 2)
    one[0, 0, 2, 0, 0] = 8.0  # a wave down the picture: 2 periods in 8 rows, of height 2 · 8 / sqrt(64)
    y = visualise.picture(one, torch.full((8, 5), 0.5), (8, 8)).logit()[0, 0]
    expected = 0.5 * 8 / 8 * torch.cos(2 * torch.pi * 2 * torch.arange(8.0) / 8)
    torch.testing.assert_close(y, expected[:, None].expand(8, 8), atol=1e-5, rtol=0)


def test_visualise_has_the_colours_of_photos():
    colours = torch.tensor(visualise.COLOURS)
    lightness, blue_yellow, green_purple = colours.T
    assert lightness.std() < 0.05 * lightness.mean()
    assert blue_yellow[0] > 0 > blue_yellow[2]
    assert green_purple[1] < 0 < green_purple[0]
    assert colours.norm(dim=0).diff().max() < 0


# --- neighbours, embedding --------------------------------------------------------------------------------------------


def test_neighbours_are_by_angle():
    e = nn.functional.normalize(torch.tensor([[1.0, 0.0], [9.0, 1.0], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    order, cosines = neighbours.closest(e, 0, 3)
    assert order == [1, 2, 3]
    assert cosines == pytest.approx([9 / 82**0.5, 0.0, -1.0])


def test_neighbours_of_colours_have_their_colour(colours):
    found = run_visualisations(colours, [parse("neighbours(pictures=12, nearest=2)", "visualisations")])
    block = found.pages[0].blocks[0]
    assert "input of head, 3 numbers" in block.notes[0]
    for s in block.shown:
        first = next(iter(s.facts)).split("/")[1]
        assert first.rstrip("0123456789.png)( ,said").startswith(s.name.split("/")[1][:3])
    rows, e = colours.embedding
    best = [min((-round(float(e[i] @ e[j]), 5), j) for j in range(12) if j != i)[1] for i in range(12)]
    same = sum(colours.label(rows[i]) == colours.label(rows[j]) for i, j in enumerate(best))
    assert f"Of 12 labelled pictures {same} have the label" in block.notes[0]
    assert same < 12  # one red picture is filed under green


def planted(per: int = 8) -> Tensor:
    g = torch.Generator().manual_seed(0)
    centres = torch.eye(3, 6)
    e = torch.cat([c + 0.05 * torch.randn(per, 6, generator=g) for c in centres])
    return nn.functional.normalize(e, dim=1)


def test_embedding_finds_planted_clusters():
    e = planted()
    group = embedding.kmeans(e, 3, 0)
    assert len({tuple(group[i : i + 8]) for i in (0, 8, 16)}) == 3
    assert all(len(set(group[i : i + 8])) == 1 for i in (0, 8, 16))
    plane = torch.from_numpy(np.asarray(embedding.tsne(e, 5.0, 0), dtype=np.float64))
    assert float(plane.min()) >= 0
    assert float(plane.max()) <= 1
    d = torch.cdist(plane, plane)
    own = torch.block_diag(*[torch.ones(8, 8)]*3).bool()  # fmt: skip
    assert float(d[own].max()) < float(d[~own].min())
    assert np.array_equal(embedding.tsne(e, 5.0, 0), embedding.tsne(e, 5.0, 0))


def test_embedding_clusters_are_told_with_their_purity(colours):
    found = run_visualisations(colours, [parse("embedding(clusters=3)", "visualisations")])
    block = found.pages[0].blocks[0]
    rows = block.tables[0].rows
    assert sum(int(r["pictures"] or 0) for r in rows) == 12
    assert "Purity 91.7 % of 12" in block.words  # one red picture is filed under green
    assert sorted(r["purity"] for r in rows) == pytest.approx([0.8, 1.0, 1.0]) or min(r["purity"] for r in rows) < 1


def test_embedding_thumbnails_do_not_lie_on_each_other():
    points = embedding.apart(np.zeros((9, 2)), 10.0)
    gaps = np.abs(points[:, None] - points[None]).max(-1) + 100 * np.eye(9)
    assert gaps.min() >= 10 - 1e-3


def test_embedding_of_many_pictures_is_points(colours, monkeypatch):
    monkeypatch.setattr(embedding, "THUMBS", 3)
    found = run_visualisations(colours, [parse("embedding", "visualisations")])
    drawn = found.pages[0].blocks[0].figures[0]
    assert drawn.name.endswith(".svg")
    assert all(f">{w}<".encode() in drawn.data for w in ("red", "green", "blue"))


# --- factors ----------------------------------------------------------------------------------------------------------


def test_planted_factors_are_recovered():
    g = torch.Generator().manual_seed(0)
    concepts = torch.tensor([[2.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0, 1.0]])
    weights = torch.rand(40, 2, generator=g)
    weights[:10, 0] = 0
    weights[10:20, 1] = 0
    found = factors.factorise(weights @ concepts, 2)
    assert found.explained > 0.9999
    mass = weights.sum(0) * concepts.sum(1)
    torch.testing.assert_close(found.shares, (mass / mass.sum()).sort(descending=True).values, atol=1e-3, rtol=0)
    order = mass.argsort(descending=True)
    got = nn.functional.normalize(found.concepts, dim=1)
    torch.testing.assert_close(got, nn.functional.normalize(concepts[order], dim=1), atol=0.01, rtol=0)


def test_no_more_factors_than_the_rank():
    a = torch.tensor([[1.0], [2.0], [0.0]]) @ torch.tensor([[1.0, 0.0, 3.0]])
    found = factors.factorise(a, 3)
    assert found.shares.tolist() == [1.0]
    assert found.explained == pytest.approx(1)
    with pytest.raises(Refused, match="no activation above zero"):
        factors.factorise(torch.zeros(4, 3), 2)


def test_factors_speak_for_their_class(colours):
    found = run_visualisations(colours, [parse("factors(factors=3, pictures=12)", "visualisations")])
    rows = found.as_dict()["pages"][1]["blocks"][0]["tables"][0]["rows"]
    said = [r["speaks for"].split()[0] for r in rows]
    assert sorted(said) == ["blue", "green", "red"]
    assert sum(r["share"] for r in rows) == pytest.approx(1)
    names = ("red", "green", "blue")
    assert all(names[int(r["strongest units"].split(",")[0])] == w for r, w in zip(rows, said, strict=True))


def test_the_maps_of_a_concept_share_a_scale(colours):
    """A concept is drawn nearly as nothing where it nearly is not, not as strongly as where it is."""
    found = run_visualisations(colours, [parse("factors(factors=3, pictures=12)", "visualisations")])
    for shown in found.pages[1].blocks[0].shown[1:]:
        strip = np.asarray(Image.open(io.BytesIO(shown.figure.data)).convert("RGB")).astype(int)
        reds = [(tile[..., 0] - tile[..., 2]).max() for tile in np.array_split(strip, 6, 1)]
        assert max(reds) > 4 * min(reds)


def test_factors_say_what_goes_past_a_layer(photos):
    class Past(ColourNet):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean((2, 3)) + x.mean((2, 3)))

    model = cs.wrap(Past(), cs.Preprocess(32, (0.0,) * 3, (1.0,) * 3), ["red", "green", "blue"])
    found = features(model, photos, layer="features", methods="factors")
    assert any("goes past features" in note for note in found.pages[1].blocks[0].notes)


def test_factors_of_negative_activations_are_told(photos):
    found = features(factory(), photos, layer="features.0", methods="factors")
    assert any("% of the activations, by size, are negative" in n for n in found.pages[1].blocks[0].notes)


def test_factors_of_fine_maps_are_averaged():
    a = torch.arange(56.0 * 28).view(1, 1, 56, 28)
    assert torch.equal(factors.coarse(a), a.view(1, 1, 28, 2, 28).mean(3))
    assert factors.coarse(a[:, :, :28]) is not None
    assert torch.equal(factors.coarse(a[:, :, :28]), a[:, :, :28])


# --- dissection -------------------------------------------------------------------------------------------------------


def dissected(tmp_path: Path, boxes: bool = True) -> tuple[cs.Classifier, Pictures]:
    """Unit 0 is the left half of grey pictures wherever they are bright; the annotated object is just that."""
    body = nn.Conv2d(1, 2, 1, bias=False)
    body.weight.data[0] = 1.0
    body.weight.data[1] = -1.0
    g = torch.Generator().manual_seed(0)
    x, regions = {}, {}
    for i in range(6):
        left, top = torch.randint(0, 10, (2,), generator=g).tolist()
        x[f"p{i}"] = 0.2 * torch.rand(1, 16, 16, generator=g)
        x[f"p{i}"][:, top : top + 4, left : left + 6] = 1.0
        regions[f"p{i}.png"] = (Region(((left, top, left + 6, top + 4),), label="Bright_box"),)
    found = write(tmp_path, x)
    if boxes:
        marked = tuple(Picture(p.path, p.name, (), regions[p.name]) for p in found.pictures)
        found = Pictures(found.root, marked)
    return wrapped(Headed(body, 2), 16, 1), found


def test_dissection_of_a_unit_that_is_the_mask_has_an_iou_of_1(tmp_path):
    model, data = dissected(tmp_path)
    share = 24 / 256  # of all places lie in the boxes
    found = features(model, data, layer="body", methods=f"dissection(quantile={share})")
    block = found.pages[1].blocks[0]
    first = block.tables[0].rows[0]
    assert first == {"unit": "unit 0", "concept": "bright box", "IoU": 1.0, "pictures with it": 6}
    assert len(block.tables[0].rows) == 1  # unit 1, high where it is dark, is no detector
    assert "on 6 annotated pictures" in block.words
    assert "The IoU is the best over 2 units × 1 concept" in block.notes[0]


def test_dissection_iou_is_over_the_whole_set(tmp_path):
    """By hand: two pictures, the unit is high on 4 and 0 pixels, the object on 2 of these and on 6 others."""
    model, _ = dissected(tmp_path)
    a, b = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    a[0, 0] = 1.0
    data = write(tmp_path / "two", {"a": a, "b": b})
    boxes = {"a.png": ((0, 0, 2, 1),), "b.png": ((0, 0, 3, 2),)}
    data = Pictures(data.root, tuple(Picture(p.path, p.name, (), (Region(boxes[p.name]),)) for p in data.pictures))
    model = cs.Classifier(model.net, cs.Preprocess(4, (0.0,), (1.0,)), model.labels)
    inside = prepare(model, data, ("body",))
    found, control = dissection.overlaps(inside, "body", [0, 1], torch.tensor([0.5, 0.5]))
    names, iou = found.iou()
    assert names == ["object"]
    assert iou[:, 0].tolist() == [2 / (4 + 8 - 2), 0.0]
    assert found.pictures == {"object": 2}
    assert control.iou()[1][0, 0] == 3 / (4 + 8 - 3)  # a with the mask of b: 3 of its 4 pixels


def test_dissection_level_is_the_top_quantile_of_all_places(tmp_path):
    g = torch.Generator().manual_seed(3)
    x = {f"p{i}": torch.rand(1, 16, 16, generator=g) for i in range(5)}
    model, _ = dissected(tmp_path / "d")
    inside = prepare(model, write(tmp_path / "x", x), ("body",))
    used, level = dissection.levels(inside, "body", [0, 1, 2, 3, 4], 0.05)
    every_ = inside.case.pixels(used).flatten().sort(descending=True).values
    assert level[0] == every_[round(0.05 * 5 * 256) - 1]
    assert (every_ >= level[0]).float().mean() == pytest.approx(0.05, abs=0.01)


def test_dissection_maps_are_enlarged_between_the_centres():
    high = dissection.high_at(torch.tensor([[[0.0, 1.0]]]), torch.tensor([0.5]), torch.Size((1, 4)))
    assert high.tolist() == [[[False, False, True, True]]]
    quarter = dissection.high_at(torch.tensor([[[0.0, 1.0]]]), torch.tensor([0.25]), torch.Size((1, 4)))
    assert quarter.tolist() == [[[False, True, True, True]]]


def test_without_masks_dissection_is_left_out_with_a_word(tmp_path):
    model, data = dissected(tmp_path, boxes=False)
    found = features(model, data, layer="body", methods=())
    assert (
        "dissection",
        "the pictures have no masks or boxes: give boxes=FILE (--boxes FILE) or masks=FOLDER (--masks FOLDER)",
    ) in found.left_out
    with pytest.raises(Refused, match="--masks"):
        features(model, data, layer="body", methods="dissection")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the COCO photos are not here")
def test_dissection_of_real_photos(tmp_path):
    """A few photos of COCO with their polygons, given to the demo network."""
    few = sorted((SHARED / "images").glob("*"))[:6]
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    names = (SHARED / "object_detection.yaml").read_text()
    (tmp_path / "data.yaml").write_text(names)
    for p in few:
        shutil.copy(p, tmp_path / "images")
        shutil.copy(SHARED / "boxes_yolo" / f"{p.stem}.txt", tmp_path / "labels")
    data = folder(tmp_path / "images", boxes=tmp_path / "labels")
    found = features(cs.load("demo"), data, layer="blocks.5", methods="dissection")
    block = found.pages[1].blocks[0]
    n, by_chance = (int(re.search(w, block.words)[1]) for w in (r"^(\d+) unit", r"number of units is (\d+)"))  # type: ignore[index]
    assert n > by_chance


# --- the command and its pages ----------------------------------------------------------------------------------------


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.tags |= {k for k, _ in attrs if k.startswith("on")}
        self.found += [(tag, v or "") for k, v in attrs if k in ("href", "src") and tag != "link"]


def test_the_command_writes_pages_that_lead_to_each_other(workshop, run):
    words = ("features", "net.py:factory", "photos", "--boxes", "boxes.json", "--unit", "1", "--unit", "0")
    ran = run(
        *words,
        "-m",
        "patches",
        "-m",
        "visualise(steps=3)",
        "-m",
        "neighbours",
        "-m",
        "dissection",
        "--layer",
        "features",
    )
    assert ran.status == 0, ran.err
    root = workshop / "clearsight-runs" / "features-1"
    pages = {str(p.relative_to(root)): p.read_text() for p in root.rglob("*.html")}
    assert set(pages) == {"index.html", "layers/features.html", "units/features/0.html", "units/features/1.html"}
    reached = {"index.html"}
    for address, page in pages.items():
        assert "default-src 'none'; img-src data:; style-src 'sha256-" in page
        for tag, to in Links(page).found:
            if tag in ("img", "image"):
                assert to.startswith(("data:image/png;base64,", "data:image/webp;base64,"))
            elif not to.startswith(("#", "https://arxiv.org/", "https://doi.org/")):
                target = (root / address).parent / to
                assert target.is_file(), (address, to)
                reached.add(str(target.resolve().relative_to(root.resolve())))
    assert reached == set(pages)
    assert ran.out.splitlines()[-1] == "clearsight-runs/features-1/index.html"
    assert "clearsight features net.py:factory" in pages["units/features/1.html"]
    quiet = run("features", "net.py:factory", "photos", "-m", "neighbours", "--quiet")
    assert quiet.out == "clearsight-runs/features-2/index.html\n"
    assert not quiet.err


def test_quoted_commands_run_and_json_tells_the_same(workshop, run):
    import shlex

    words = ("features", "net.py:factory", "photos", "--boxes", "boxes.json", "--layer", "features", "--unit", "2")
    told = json.loads(run(*words, "-m", "patches(top=2)", "-m", "dissection", "--seed", "3", "--json").out)
    assert told["seed"] == 3
    commands = {b["command"] for p in told["pages"] for b in p["blocks"]}
    assert any("--unit 2" in c and "--layer features" in c and "--boxes boxes.json" in c for c in commands)
    for command in commands:
        program, *rest = shlex.split(command)
        assert program == "clearsight"
        again = json.loads(run(*rest, "--json").out)
        shown_ = [b["words"] for p in again["pages"] for b in p["blocks"]]
        own = [b["words"] for p in told["pages"] for b in p["blocks"] if b["command"] == command]
        assert set(own) <= set(shown_)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--layer", "featurs"), "features"),
        (("--unit", "7"), "0 to 2"),
        (("-m", "patchs"), "patches"),
        (("--target", "mauve"), "mauve"),
        (("--budget", "soon"), "60s"),
        (("-o", "photos"), "photos"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(words, told, workshop, run):
    ran = run("features", "net.py:factory", "photos", *words, "--quiet")
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
    assert told in ran.err
    assert not list(workshop.glob("clearsight-runs/*"))


def test_headings_break_behind_signs_and_not_in_words(photos):
    model = factory()
    named = cs.Classifier(model.net, model.preprocess, model.labels, "./nets.py:small_<cnn>")
    page = htmls(features(named, photos, layer="features", units=[1], methods="patches(top=2)"))
    name = "./<wbr>nets.py:<wbr>small_<wbr>&lt;cnn&gt;"
    assert f"<h1>{name} " in page["index.html"]
    assert f'<h1>features, unit 1 <span class="on">of</span> {name}</h1>' in page[unit_page("features", 1)]


def test_words_beside_strips_begin_at_one_place(photos):
    """Where one picture of a list is a strip, all are rows of one grid; where none is, all are cards."""
    found = features(factory(), photos, layer="features", units=[0, 1], methods="patches(top=2)")
    layer = next(p for p in found.pages if p.address == layer_page("features"))
    (block,) = layer.blocks
    figures = {broad: figure(broad) for broad in (False, True)}
    for strips, rowed in (((True, False), True), ((False, False), False)):
        shown = tuple(
            replace(s, figure=replace(s.figure, data=figures[b])) for s, b in zip(block.shown, strips, strict=True)
        )
        made = replace(found, pages=(replace(layer, blocks=(replace(block, shown=shown),)),))
        html = htmls(made)[layer_page("features")]
        assert ('<div class="gallery rowed">' in html) == rowed
        assert html.count('<figure class="strip">') == 2 * rowed


def figure(broad: bool) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20 if broad else 8, 8)).save(out, "PNG")
    return out.getvalue()


HOSTILE = "<img src=x onerror=alert(1)>"


def hostile(tmp_path: Path) -> Path:
    """Pages of a net, a class and pictures with names that would be markup."""
    net = ColourNet()
    net.add_module("<b>x/y", net.features)
    del net.features
    net.__class__ = type("Odd", (ColourNet,), {"features": property(lambda self: self._modules["<b>x/y"])})
    labels = ["<script>alert(2)</script>", "green", "blue"]
    model = cs.wrap(net, cs.Preprocess(32, (0.0,) * 3, (1.0,) * 3), labels, source=HOSTILE)
    g = torch.Generator().manual_seed(0)
    data = write(
        tmp_path / "in", {f"{HOSTILE}{i}".replace("/", ""): torch.rand(3, 24, 24, generator=g) for i in range(5)}
    )
    marked = tuple(
        Picture(p.path, p.name, (HOSTILE,), (Region(((2, 2, 20, 20),), label=HOSTILE),)) for p in data.pictures
    )
    methods = [spelled(n) for n in EVERY]
    found = features(model, Pictures("<i>data</i>", marked), layer="<b>x/y", units=[0], methods=methods, target="blue")
    found.save(tmp_path / "out")
    return tmp_path / "out"


def test_nothing_from_the_data_is_markup(tmp_path):
    root = hostile(tmp_path)
    pages = sorted(root.rglob("*.html"))
    assert [str(p.relative_to(root)) for p in pages][1:] == [layer_page("<b>x/y"), unit_page("<b>x/y", 0)]
    for page in pages:
        seen = Links(page.read_text())
        assert not seen.tags & {"script", "b", "i", "iframe", "onerror"}
        assert all(v.startswith("data:image") for t, v in seen.found if t in ("img", "image"))
        assert not re.search(r"@import|url\(", page.read_text())


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.slow
def test_pages_in_a_browser(width, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="the extra `test` brings playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this system")
    root = hostile(tmp_path)
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for file in root.rglob("*.html"):
            page = browser.new_page(viewport={"width": width, "height": 800})
            asked: list[str] = []
            said: list[str] = []
            page.on("request", lambda r, to=asked: to.append(r.url))
            page.on("console", lambda m, to=said: to.append(m.text))
            page.goto(file.as_uri(), wait_until="load")
            assert [u for u in asked if not u.startswith("data:")] == [file.as_uri()]
            assert said == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            lines = "[...document.images].map(i => getComputedStyle(i).filter.includes('drop-shadow'))"
            assert all(page.evaluate(lines))  # a picture that is white at its edge does not melt into the page
            page.close()
        browser.close()
