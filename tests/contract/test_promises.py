"""The README's section "What it promises", sentence by sentence: each is quoted here by the test that shows it."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.catalogue import Call, Method
from clearsight.data.annotations import read_boxes
from clearsight.data.datasets import folder, truth
from clearsight.data.images import open_picture
from clearsight.errors import Notice, Refused
from clearsight.training.checkpoints import STATE
from clearsight.training.loop import train
from picturefiles import png, tiff
from quickruns import QUICK, photos, weights
from tokennets import laid, made
from trapnets import (
    EXPLAINERS,
    TRAPS,
    Fails,
    Net,
    hooked,
    mixed_modes,
    model,
    pictures,
    spelled,
    untouched,
    with_grads,
)
from unsoundnets import Detached, Doubled, Dropped, Frozen, Numpied, Together, body, wrapped
from workshop import lay_out

ROOT = Path(__file__).parents[2]
Test = Callable[..., None]
QUOTED: dict[str, list[str]] = {}  # sentence -> the tests that show it


def promise(*quoted: str) -> Callable[[Test], Test]:
    """This test shows these sentences of the README."""

    def note(test: Test) -> Test:
        for sentence in quoted:
            QUOTED.setdefault(sentence, []).append(test.__name__)
        return test

    return note


def sentences(readme: str) -> list[str]:
    """The sentences of the section, without marks of bold type and of lists."""
    (section,) = re.findall(r"^## What it promises\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    points = re.split(r"^- ", section, flags=re.MULTILINE)
    words = [" ".join(point.replace("**", "").split()) for point in points]
    return [sentence for point in words for sentence in re.split(r"(?<=\.) (?=[A-Z])", point) if sentence]


def differ(readme: str) -> set[str]:
    """Sentences without a test, and sentences of tests that are not there."""
    return set(sentences(readme)) ^ QUOTED.keys()


def test_every_sentence_has_a_test_and_every_test_its_sentence() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(sentences(readme)) >= 15
    assert differ(readme) == set()
    tests = {name for names in QUOTED.values() for name in names}
    assert all(callable(globals()[name]) and name.startswith("test_") for name in tests)


def test_a_promise_more_or_less_would_be_noticed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert differ(readme.replace("No telemetry.", "No telemetry. It makes coffee.")) == {"It makes coffee."}
    assert differ(readme.replace(" No telemetry.", "")) == {"No telemetry."}
    assert len(differ(readme.replace("it clips an attack", "it cuts an attack"))) == 2


# Networks -------------------------------------------------------------------------------------------------------------


class Whole(nn.Module):
    """The same as a network whose gradient is not whole, with a gradient that is."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.body, self.other = body(), body(seed=1)
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        return self.other(x) + 3 * self.body(x) if self.both else self.body(x)


# name -> a network that gives a gradient which is not that of its scores, and its twin that gives the right one
PARTIAL: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "frozen beside a branch": (Frozen, lambda: Frozen(honest=True)),
    "detached": (Detached, lambda: Whole(both=False)),
    "a backward of its own": (Doubled, lambda: Whole(both=False)),
    "through NumPy": (Numpied, lambda: Whole(both=True)),
}


@promise("Works, or is refused by name; never a silently wrong map.")
@pytest.mark.filterwarnings("ignore:the layer that is read:clearsight.errors.Notice")
@pytest.mark.parametrize("kind", PARTIAL)
def test_no_map_is_silently_wrong(kind: str) -> None:
    partial, whole = (wrapped(build()) for build in PARTIAL[kind])
    x, target = pictures(2), cs.ClassScore(torch.tensor([0, 1]))
    shown, refused = 0, 0
    for name in EXPLAINERS:
        try:
            found = cs.explain(partial, x, spelled(name), target)
        except Refused:  # in a sentence of ours, which test_soundness reads
            refused += 1
            continue
        shown += 1
        right = cs.explain(whole, x, found.method, target).maps
        learned = "perturbation" in name  # rounding is learned as well
        torch.testing.assert_close(
            found.maps, right, rtol=1e-3, atol=5e-3 if learned else 1e-5, msg=lambda m, n=name: n + m
        )
    assert shown >= 8, "those that only ask for scores work"
    assert refused >= 5, "those that go back to the pixels cannot"


AS_WITHOUT = [
    "frozen", "in-place ReLU module, reused", "in-place ReLU behind the target convolution", "one ReLU module for all",
    "residual in place", "residual x += y", "tuple", "dict",
]  # fmt: skip


@promise(
    "Frozen networks, in-place and reused ReLUs, residual adds, tuple and dict outputs are explained and attacked as "
    "the same network without them is."
)
@pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")
@pytest.mark.parametrize("trap", AS_WITHOUT)
def test_traps_are_explained_and_attacked_as_if_they_were_none(trap: str) -> None:
    build, clean, options = TRAPS[trap]
    one, other, x = model(build(), **options), model(clean()), pictures()
    y = torch.tensor([0, 1, 2])
    for name in ("saliency", "grad-cam", "guided-backprop", "lrp", "deep-lift", "integrated-gradients", "occlusion"):
        found = cs.explain(one, x, spelled(name), cs.ClassScore(y)).maps
        right = cs.explain(other, x, spelled(name), cs.ClassScore(y)).maps
        assert bool(right.any())
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
    for name in ("pgd(steps=3)", "square(queries=10)"):
        found = cs.attack(one, x, y, name, eps=0.1).x
        torch.testing.assert_close(found, cs.attack(other, x, y, name, eps=0.1).x, rtol=1e-4, atol=1e-5)


@promise("Gradients are held against finite differences before they are trusted.")
@pytest.mark.parametrize("kind", PARTIAL)
def test_gradients_are_those_that_finite_differences_measure(kind: str) -> None:
    """gradient-x-input sums to how fast the score changes as the picture is made brighter, in proportion."""
    x, score = pictures(1), cs.ClassScore(0)
    partial, whole = (wrapped(build().double()) for build in PARTIAL[kind])
    with pytest.raises(
        Refused, match=r"gradient at the pixels is not that of the scores: finite differences along random directions"
    ):
        cs.explain(partial, x, "gradient-x-input", score)
    said = float(cs.explain(whole, x, "gradient-x-input", score).maps.sum(dtype=torch.float64))
    h = 1e-6
    with torch.no_grad(), partial.undisturbed():  # the scores are those of both
        up, down = (float(score(partial.net((x.double() * (1 + s) - 0.5) / 0.25))) for s in (h, -h))
    assert said == pytest.approx((up - down) / (2 * h), rel=1e-3)


@promise("Where a layer holds its places is found by what the network does, not by its shape.")
def test_places_are_found_by_what_the_network_does() -> None:
    """torchvision's Swin at 260 pixels gives (B, 9, 9, 768): 81 places of 768 channels, not 9 channels."""
    swin = made("swin_t", (260, 260))
    x = torch.rand(1, 3, 260, 260, generator=torch.Generator().manual_seed(1))
    h = swin.net.norm(swin.net.features((x - 0.5) / 0.5)).detach().requires_grad_()
    swin.net.head(h.mean((1, 2)))[:, 2].sum().backward()
    low = (h * h.grad.mean((1, 2), keepdim=True)).sum(-1).relu()[:, None].detach()
    wanted = nn.functional.interpolate(low, (260, 260), mode="bilinear")[:, 0]
    swin.net.zero_grad()
    found = cs.explain(swin, x, "grad-cam(layer=norm)", cs.ClassScore(2)).maps
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-7)
    anywhere = laid((32, 32), 1, 0, order=torch.randperm(64, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(Refused, match="name a layer"):  # a shape that looks like 8 x 8 places, in no order
        cs.explain(anywhere, torch.rand(1, 3, 32, 32), "grad-cam")


@promise("A network that draws random numbers is refused by `explain`, and asked picture by picture by `attack`.")
def test_chance_is_refused_or_asked_picture_by_picture() -> None:
    random, x, y = wrapped(Dropped()), pictures(), torch.tensor([0, 1, 2])
    for name in EXPLAINERS:
        if "control" not in cs.catalogue("explainers")[name].claims:
            with pytest.raises(Refused, match="two passes over the same pictures give scores that differ"):
                cs.explain(random, x, spelled(name))
    with pytest.warns(Notice, match="each picture is run alone, from the same seed"):
        together = cs.attack(random, x, y, "pgd(steps=3)", eps=0.1)
    with pytest.warns(Notice):
        backwards = cs.attack(random, x.flip(0), y.flip(0), "pgd(steps=3)", eps=0.1)
    assert torch.equal(backwards.x.flip(0), together.x)


@promise("One whose scores for a picture depend on its neighbours in the batch is refused by both.")
def test_neighbours_that_matter_are_refused() -> None:
    around, x = wrapped(Together()), pictures()
    for name in EXPLAINERS:
        if "control" not in cs.catalogue("explainers")[name].claims:
            with pytest.raises(Refused, match="depend on its neighbours in the batch"):
                cs.explain(around, x, spelled(name))
    for name in ("pgd(steps=2)", "square(queries=5)"):
        with pytest.raises(Refused, match="depend on its neighbours in the batch"):
            cs.attack(around, x, torch.tensor([0, 1, 2]), name)


@promise(
    "Your model comes back as it was: mode, requires_grad, hooks, parameters, buffers, random state; also after an "
    "exception."
)
@pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")
def test_the_model_comes_back_as_it_was() -> None:
    x, y = pictures(), torch.tensor([0, 1, 2])
    for build, _, options in TRAPS.values():
        net = build()
        with untouched(net, x):
            cs.explain(model(net, **options), x, "smooth-grad(samples=2)", cs.ClassScore(0))
            cs.attack(model(net, **options), x, y, "square(queries=5)", eps=0.1)
    net = with_grads(hooked(mixed_modes(Fails(nn.ReLU(inplace=True)))))
    for after in range(4):
        net.calls = after
        with untouched(net, x), pytest.raises(Refused) as e:
            cs.explain(model(net), x, "integrated-gradients(steps=4)", cs.ClassScore(0))
        assert isinstance(e.value.__cause__, KeyError)


# Results --------------------------------------------------------------------------------------------------------------


@promise("Same seed, same result, for any batch size, order and neighbours: randomness belongs to the picture.")
def test_same_seed_same_result() -> None:
    net, x, y = model(Net()), pictures(), torch.tensor([0, 1, 2])

    def runs(x: Tensor, y: Tensor, **how: int) -> list[Tensor]:
        maps = [
            cs.explain(net, x, m, cs.ClassScore(y), **how).maps for m in ("smooth-grad(samples=3)", "rise(masks=9)")
        ]
        return [*maps, cs.attack(net, x, y, "square(queries=15)", eps=0.1, **how).x]

    whole, torch_seed = runs(x, y), torch.initial_seed()
    torch.manual_seed(torch_seed + 1)  # what others draw does not show
    for again in (runs(x, y), runs(x, y, batch=1), [t.flip(0) for t in runs(x.flip(0), y.flip(0))]):
        for one, other in zip(whole, again, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    for one, other in zip(whole, runs(x[1:2], y[1:2]), strict=True):
        torch.testing.assert_close(one[1:2], other, rtol=1e-4, atol=1e-6)
    assert not torch.equal(whole[0], runs(x, y, seed=1)[0]), "a seed that changes nothing proves nothing"


@promise(
    "Maps and metrics agree to rounding for any number of threads.",
    "Trained weights agree to the bit for the same number, on a CPU; where a run goes on with another, it says so.",
)
@pytest.mark.usefixtures("threads")
@pytest.mark.slow
def test_threads_show_in_rounding_alone_and_in_training_it_is_said(tmp_path: Path) -> None:
    net, x = model(Net()), pictures()
    data, short = photos(tmp_path, 6), replace(QUICK, epochs=2)
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        found.append(
            [cs.explain(net, x, "smooth-grad(samples=3)").maps, cs.measure(net, x, pictures()[:, 0], "deletion")]
        )
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    for out in ("once", "again"):
        list(train(data, short, tmp_path / out))
    assert weights(tmp_path / "once") == weights(tmp_path / "again")
    next(going := train(data, short, tmp_path / "cut"))
    going.close()
    torch.set_num_threads(1)
    with pytest.warns(Notice, match="2 threads on .*, and resumes with 1 thread on .*: .* not be bit for bit"):
        list(train(data, None, tmp_path / "cut", resume=True))
    assert "from epoch 2 on with 1 thread" in (tmp_path / "cut" / "card.md").read_text()


@promise(
    "The runner distrusts the method: it clips an attack to its budget and recounts who was fooled, and rejects maps "
    "that are not finite or have the wrong shape."
)
def test_the_runner_distrusts_the_method() -> None:
    net, x = model(Net()), pictures()
    with torch.no_grad(), net.undisturbed():
        y = net(x).argmax(1)

    def greedy(model: cs.Classifier, x: Tensor, goal: Any, *, eps: float) -> Tensor:
        z = x.clone().requires_grad_()
        with torch.enable_grad():
            (g,) = torch.autograd.grad(goal.loss(model(z)).sum(), z)
        return x + 5 * g.sign()

    def endless(model: cs.Classifier, x: Tensor, target: Any) -> Tensor:
        return x[:, 0] / 0

    def misshapen(model: cs.Classifier, x: Tensor, target: Any) -> Tensor:
        return x

    found = cs.attack(net, x, y, Call(Method(greedy, name="greedy")), eps=0.3)
    assert float((found.x - x).abs().max()) <= 0.3 + 1e-6
    assert float(found.x.min()) >= 0
    assert float(found.x.max()) <= 1
    assert found.overstep > 4
    with torch.no_grad(), net.undisturbed():
        assert torch.equal(found.fooled, net(found.x).argmax(1) != y)
    honest = cs.attack(net, x, y, Call(Method(greedy, name="greedy")), eps=0.0)
    assert not bool(honest.fooled.any()), "of what it proposed nothing is left, and so nobody was fooled"
    for bad, why in ((endless, "not finite"), (misshapen, r"not a tensor \(3, 12, 16\)")):
        with pytest.raises(Refused, match=why):
            cs.explain(net, x, Call(Method(bad, name=bad.__name__)), cs.ClassScore(0))


# Data -----------------------------------------------------------------------------------------------------------------


@promise(
    "The words of your data mean one thing: all are read in one way, and what could be read in two is asked about."
)
def test_words_of_data_mean_one_thing(tmp_path: Path) -> None:
    def told(labels: list[str], words: list[str], name: str) -> list[int]:
        for word in words:
            (tmp_path / name / word).mkdir(parents=True)
            Image.new("RGB", (8, 6)).save(tmp_path / name / word / "a.png")
        some = cs.wrap(nn.Linear(1, 1), cs.Preprocess(4, (0.5,), (0.5,)), labels)
        right = truth(folder(tmp_path / name), some)
        assert bool((right.sum(1) == 1).all())
        return right.int().argmax(1).tolist()

    digits = [str(i) for i in range(10)]
    assert told(["ant", "bee", "cow"], ["bee", "cow"], "labels") == [1, 2]
    assert told(["ant", "bee", "cow"], ["0", "2"], "numbers") == [0, 2]
    assert told(digits[::-1], digits, "names") == [9 - i for i in range(10)]
    with pytest.raises(Refused, match=r"are numbers, and so are the model's labels.*Give their meaning with --classes"):
        told([str(i) for i in range(1, 11)], digits, "shifted")
    with pytest.raises(Refused, match=r"0 .*is a number among names"):
        told(["ant", "bee", "cow"], ["0", "bee"], "mixed")
    (tmp_path / "two.csv").write_text("file,species,class,target\na.png,ant,bee,cow\n")
    with pytest.raises(Refused, match="class and target may hold the classes; choose with --label-column"):
        folder(tmp_path / "two.csv")


@promise(
    "Values are scaled by the white that the picture's file states, at every depth, or the picture is refused by name."
)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_values_are_scaled_by_the_white_that_the_file_states(tmp_path: Path, bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 16).round().astype(int).reshape(1, 16, 1)
    wanted = (255 * values[..., 0] / (2**bits - 1)).round()
    (tmp_path / "a.tif").write_bytes(tiff(values, bits, 1))
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.tif").convert("L")), wanted)
    if bits != 12:  # which PNG has not
        (tmp_path / "a.png").write_bytes(png(values, bits, 0))
        assert np.array_equal(np.asarray(open_picture(tmp_path / "a.png").convert("L")), wanted)
    (tmp_path / "float.tif").write_bytes(tiff(values * 7.5, 32, 1, 3))
    with pytest.raises(Refused, match="whose white is unknown"):
        open_picture(tmp_path / "float.tif")


@promise("Every annotation is used, or counted among those left out, with the reason.")
def test_every_annotation_is_used_or_left_out_with_the_reason(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    good = [[0, 0, 9, 9], [5, 5, 10, 10]]
    bad: list[Any] = [[5, 5, 0, 9], [float("nan"), 5, 3, 9], [60, 5, 3, 9], "5 5 9 9", None]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png", "width": 200.0, "height": 80}]
    images.append({"id": 3, "file_name": "nowhere.png"})
    boxes = [{"id": n, "image_id": 1, "bbox": box} for n, box in enumerate([*good, *bad])]
    boxes += [{"id": 20, "image_id": 2, "bbox": [0, 0, 9, 9]}, {"id": 21, "image_id": 3, "bbox": [0, 0, 9, 9]}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    read = read_boxes(tmp_path / "boxes.json", {name: tmp_path / name for name in ("a.png", "b.png")})
    used = sum(map(len, read.regions.values()))
    assert used == len(good)
    assert used + len(read.left_out) + len(read.unmatched) == len(boxes)
    assert read.unmatched == ("nowhere.png",)
    for why in ("0 x 9 pixels", "not a number", "outside the picture", "not [x, y, width, height]", "200 x 80"):
        assert any(why in line for line in read.left_out), why
    assert any("6 COCO regions left out" in note for note in read.notes)


BROKEN = {
    "empty.png": b"",
    "text.jpg": b"this is no picture",
    "cut.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0",
    "page.gif": b"<html></html>",
}


@promise("Broken files are named, counted and left out.")
def test_broken_files_are_named_counted_and_left_out(workshop: Path, run: Callable[..., Any]) -> None:
    whole = len(list((workshop / "photos").rglob("*.png")))
    for name, content in BROKEN.items():
        (workshop / "photos" / "red" / name).write_bytes(content)
    done = run("audit", "workshop:factory", "photos", "--only", "accuracy", "--json")
    assert done.status == 0, done.err
    data = json.loads(done.out)["data"]
    assert {Path(b["file"]).name for b in data["broken"]} == BROKEN.keys()
    assert all(len(b["reason"]) > 4 for b in data["broken"])
    assert (data["read"], data["pictures"]) == (whole, whole + len(BROKEN))
    assert json.loads(done.out)["findings"][0]["n"] == whole


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's, and another to work in; every file of the first is the same in the end, or it fails."""
    own, here = tmp_path / "mine", tmp_path / "here"
    own.mkdir()
    here.mkdir()
    lay_out(own)
    (own / "photos" / "red" / "broken.png").write_bytes(b"no picture")
    (own / "classes.json").write_text('{"red": "red"}')
    Image.new("L", (48, 48), 255).save(own / "mask.png")
    net = cs.load("timm:test_resnet", weights="none", labels=["red", "green", "blue"])
    cs.save(net, own / "model")
    (here / "workshop.txt").touch()
    monkeypatch.chdir(here)

    def state() -> dict[Path, tuple[int, int, bytes]]:
        return {
            p: (p.stat().st_mtime_ns, p.stat().st_mode, p.read_bytes() if p.is_file() else b"")
            for p in [own, *own.rglob("*")]
        }

    before = state()
    yield own
    assert state() == before


@promise("Nothing of yours is moved, changed, uploaded or unpickled.")
@pytest.mark.filterwarnings("ignore::clearsight.errors.Notice")
@pytest.mark.slow
def test_nothing_of_yours_is_moved_or_changed(mine: Path, run: Callable[..., Any]) -> None:
    run_folder, photos_, boxes = str(mine / "model"), str(mine / "photos"), ("--boxes", str(mine / "boxes.json"))
    one = str(mine / "photos" / "red" / "red1.png")
    for words in (
        ("inspect", run_folder, photos_),
        ("audit", run_folder, photos_, *boxes, "--only", "accuracy, localisation", "-m", "saliency"),
        ("explain", run_folder, one, "-m", "saliency", "--no-tests"),
        ("attack", run_folder, photos_, "-a", "fgsm"),
        ("data", "check", photos_),
        ("data", "augment", one),
        ("train", photos_, "--arch", "clearsight:lenet5", "--epochs", "1", "-o", "trained"),
        ("features", run_folder, photos_, "-m", "neighbours"),
    ):
        done = run(*words)
        assert done.status == 0, f"{words}: {done.err}"


class Ran:
    """A pickle that leaves a file where it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def traps(root: Path, mark: Path) -> list[tuple[str, ...]]:
    """Pickles in every place where a file of a user's is read, and the commands that read it."""
    evil = pickle.dumps({"state_dict": Ran(mark)})
    torch.save({"state_dict": Ran(mark)}, root / "zipped.pth")
    np.save(root / "array.npy", np.array([Ran(mark)], dtype=object), allow_pickle=True)
    np.savez(root / "arrays.npz", maps=np.array([Ran(mark)], dtype=object))
    names = ["raw.pth", "raw.pt", "raw.bin", "raw.ckpt", "raw.pkl", "raw.safetensors", "evil.csv", "evil.json"]
    names += ["evil.jsonl", "evil.parquet", "evil.txt", "evil.xml", "evil.yaml", "evil.toml", "evil.png"]
    for name in names:
        (root / name).write_bytes(evil)
    for name in ("config.json", "model.safetensors", "labels.txt", "split.csv", "recipe.json"):
        bad = root / f"run-{name}"
        bad.mkdir()
        for path in (root / "model").iterdir():
            (bad / path.name).write_bytes(path.read_bytes())
        (bad / name).write_bytes(evil)
    for name in ("metadata.csv", "metadata.jsonl", "metadata.parquet", "labels.csv", "labels.json", "x.png"):
        data = root / f"data-{name}"
        data.mkdir()
        Image.new("RGB", (48, 48)).save(data / "a.png")
        (data / name).write_bytes(evil)
    (root / "report").mkdir()
    (root / "report" / "report.json").write_bytes(evil)
    net, photo, data = str(root / "model"), str(root / "photos" / "red" / "red1.png"), str(root / "photos")
    labels = ("--labels", str(root / "names.txt"))
    only = ("--only", "accuracy")

    def at(words: str) -> list[str]:
        return [str(root / name) for name in words.split()]

    commands: list[tuple[str, ...]] = [("inspect", path) for path in at("raw.pth raw.pkl raw.safetensors zipped.pth")]
    weights = at("raw.pth raw.pt raw.bin raw.ckpt raw.pkl raw.safetensors zipped.pth array.npy arrays.npz")
    commands += [("inspect", "timm:test_resnet", "--weights", path, *labels) for path in weights]
    commands += [("inspect", net, "--labels", path) for path in at("evil.txt evil.json raw.pkl")]
    commands += [
        ("audit", net, path, *only) for path in at("evil.csv evil.jsonl evil.parquet evil.json raw.pkl array.npy")
    ]
    for flag, files in {
        "--boxes": "evil.json evil.xml evil.txt evil.yaml evil.csv raw.pkl",
        "--masks": "evil.png array.npy arrays.npz raw.pkl",
        "--classes": "evil.json raw.pkl",
        "--gate": "evil.toml evil.json raw.pkl",
    }.items():
        commands += [("audit", net, data, *only, flag, path) for path in at(files)]
    draw = ("explain", net, photo, "--no-tests", "-m")
    commands += [("explain", net, path, "-m", "edge", "--no-tests") for path in at("evil.png raw.pkl array.npy")]
    commands += [(*draw, f"{path}:mine") for path in at("raw.pkl evil.txt")]
    commands += [(*draw, f'libra-cam(references="{path}")') for path in at("evil.csv arrays.npz raw.pkl")]
    commands += [("inspect", str(bad)) for bad in root.glob("run-*")]
    commands += [("audit", str(bad), data, *only) for bad in root.glob("run-*")]
    commands += [("audit", net, str(bad), *only) for bad in root.glob("data-*")]
    commands += [("compare", str(root / "report"), str(root / "report")), ("compare", net, str(root / "report"))]
    return commands


@promise("Nothing of yours is moved, changed, uploaded or unpickled.")
@pytest.mark.filterwarnings("ignore::clearsight.errors.Notice")
@pytest.mark.slow
def test_nothing_of_yours_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, per_class=2)
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    cs.save(cs.load("timm:test_resnet", weights="none", labels=["red", "green", "blue"]), tmp_path / "model")
    mark = tmp_path / "ran"
    commands = traps(tmp_path, mark)
    for words in commands:
        done = run(*words)
        assert not mark.exists(), f"unpickled by {words}"
        assert done.status in (0, 1, 2)
        assert "defect of Clearsight" not in done.err, f"{words}: {done.err}"
    data = photos(tmp_path / "set", 6)
    next(going := train(data, QUICK, tmp_path / "stopped"))
    going.close()
    torch.save({"net": Ran(mark)}, tmp_path / "stopped" / STATE)
    with pytest.raises(Refused, match="cannot be read"):
        list(train(data, None, tmp_path / "stopped", resume=True))
    assert not mark.exists()
    pickle.loads((tmp_path / "raw.pkl").read_bytes())  # it would have told
    assert mark.exists()


CUT_OFF = """
import json, sys

def cut(event, args):
    if event.split(".")[0] in ("socket", "http", "urllib", "ftplib", "smtplib") and event != "socket.gethostname":
        if event == "socket.__new__":
            return
        with open("asked", "a") as f:
            f.write(f"{event} {args}\\n")
        raise OSError("cut off")

sys.addaudithook(cut)
from clearsight.cli.app import main
for words in json.load(open("commands")):
    sys.argv = ["clearsight", *words]
    try:
        main()
    except SystemExit as e:
        assert not e.code, (words, e.code)
if len(sys.argv) and open("commands").read() == "[]":
    import urllib.request
    urllib.request.urlopen("http://127.0.0.1:9")
"""


def cut_off(here: Path, commands: list[list[str]]) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run commands in a process of their own in which whoever asks for a network is written down and gets none."""
    (here / "commands").write_text(json.dumps(commands))
    kept = {k: v for k, v in os.environ.items() if "OFFLINE" not in k and "PROXY" not in k.upper()}
    env = kept | {"HOME": str(here), "PYTHONPATH": str(Path(cs.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF], cwd=here, env=env, capture_output=True, text=True, check=False, timeout=500
    )
    asked = (here / "asked").read_text().splitlines() if (here / "asked").exists() else []
    return done, asked


@promise("Nothing of yours is moved, changed, uploaded or unpickled.", "No telemetry.")
@pytest.mark.slow
def test_nothing_is_sent_anywhere(tmp_path: Path) -> None:
    lay_out(tmp_path)
    commands = [
        ["explain", "demo:coffee", "-m", "saliency", "--no-tests"],
        ["inspect", "demo"],
        ["train", "photos", "--arch", "clearsight:lenet5", "--epochs", "1", "-o", "run"],
        ["audit", "run", "photos", "--only", "accuracy"],
        ["attack", "run", "photos", "-a", "fgsm"],
        ["data", "check", "photos"],
        ["methods"],
    ]
    done, asked = cut_off(tmp_path, commands)
    assert done.returncode == 0, done.stderr
    assert asked == []
    assert (tmp_path / "run" / "model.safetensors").is_file()
    done, asked = cut_off(tmp_path, [])  # and who asks is caught
    assert done.returncode != 0
    assert any("127.0.0.1" in line for line in asked)
