"""clearsight train on boxes and masks: what it learns, what it leaves, how it resumes, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import clearsight as cs
from clearsight.data.box_folders import open_boxes
from clearsight.data.images import of_bytes
from clearsight.data.mask_folders import open_masks
from clearsight.data.truth_found import truth_found
from clearsight.evaluation.average_precision import average_precision
from clearsight.evaluation.pixels import PixelCounts
from clearsight.evaluation.records import box_set, picture_boxes
from clearsight.training.checkpoints import load_state
from clearsight.training.objects import loop
from clearsight.training.objects.batches import ObjectBatches
from clearsight.training.objects.history import ObjectEpoch, is_best
from clearsight.training.objects.learning import detector_loss, segmenter_loss
from clearsight.training.objects.loop import train_objects
from clearsight.training.objects.moves import Move, draw_move, move_boxes, move_map, move_pixels
from clearsight.training.objects.network import build_network
from clearsight.training.objects.prepared import prepare
from clearsight.training.objects.recipe import ObjectRecipe, of_options
from clearsight.training.objects.settings import input_size, resolve
from drawnobjects import SIZE, drawn
from quickruns import weights

TINY = {"detector": "fcos(backbone=tiny, width=16)", "segmenter": "fcn(backbone=tiny)"}
QUICK = ObjectRecipe(arch=TINY["detector"], epochs=3, batch=3, lr="0.01", shares="0.5,0.25,0.25")


def opened(folder: Path, n: int = 8, *, masks: bool = False) -> Any:
    drawn(folder, n, masks=masks)
    return open_masks(folder, split="all") if masks else open_boxes(folder, split="all")


def trained(data: Any, recipe: ObjectRecipe, out: Path, **how: Any) -> list[Any]:
    return list(train_objects(data, recipe, out, device="cpu", **how))


def of_kind(kind: str) -> ObjectRecipe:
    return replace(QUICK, arch=TINY[kind])


# What it learns -------------------------------------------------------------------------------------------------------


def test_classes_that_no_picture_shows_come_last_in_the_report(tmp_path: Path) -> None:
    drawn(tmp_path / "fields", 6, masks=True)
    for file in (tmp_path / "fields" / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(file)) * 2).save(file)
    data = open_masks(tmp_path / "fields", labels=["ground", "sky", "red", "sea", "blue"], split="all")
    trained(data, replace(of_kind("segmenter"), epochs=1), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(metrics["classes"]) == ["ground", "red", "blue", "sky", "sea"]


def test_a_detector_learns_to_find_rectangles_and_says_how_well(tmp_path: Path) -> None:
    data = opened(tmp_path / "cells", 24)
    history = trained(data, replace(QUICK, epochs=16, batch=4, shares="0.6,0.2,0.2"), tmp_path / "run")
    best = max(e.score for e in history)
    assert history[0].score < best
    assert best > 0.6  # 0.72 to 1.00 over eight seeds
    kept = [e for e in history if e.best][-1]
    assert kept.score == best
    model, metrics = cs.load(tmp_path / "run"), json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert isinstance(model, cs.Detector)
    assert model.labels == ("red", "blue")
    assert model.preprocess.size == SIZE
    test = of_test(tmp_path / "run")
    records, said = [], {}
    for p in data.pictures:
        if p.path.name in test:
            found = model.detect(pixels_of(p.path)[None])[0]
            said[p.name] = int((found.scores >= 0.3).sum())
            records.append(picture_boxes(found.boxes, found.scores, found.labels, p.boxes.boxes, p.boxes.labels))
    assert len(records) == metrics["ap50"]["n"] == metrics["pictures"]["test"]
    assert average_precision(box_set(records)).mean.ap50 == pytest.approx(metrics["ap50"]["value"])
    report = cs.Report.read(tmp_path / "run")
    assert [f.check for f in report.findings] == ["training", "detection"]
    assert report.findings[1].value == metrics["ap50"]["value"]
    assert report.findings[1].chance is not None
    assert report.findings[1].chance < metrics["ap50"]["value"]
    pictures, drawn = report.findings[1].tables[-1].rows, report.findings[1].evidence
    errors = [row["missed"] + row["false alarms"] for row in pictures]
    assert errors == sorted(errors, reverse=True)
    assert {row["picture"]: row["found"] + row["false alarms"] for row in pictures} == said
    assert sum(row["objects"] for row in pictures) == metrics["objects"]
    assert [e.picture for e in drawn] == [r["picture"] for r, n in zip(pictures, errors, strict=True) if n][:8]
    assert all((tmp_path / "run" / "figures" / e.figure.name).is_file() for e in drawn)


def test_the_best_epoch_is_the_one_with_the_highest_score_then_the_lowest_loss() -> None:
    before = [ObjectEpoch(1, 9, 1.0, "AP50", 0.5, 4, 0.1, 1.0, 1.0, True)]
    assert [is_best(*pair, before) for pair in ((0.6, 9.0), (0.5, 0.9), (0.5, 1.0), (0.4, 0.1))] == [
        True,
        True,
        False,
        False,
    ]


def test_the_folder_holds_the_best_epoch_and_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.9, 0.1])
    monkeypatch.setattr(loop, "score", lambda *_: next(scores))
    epochs = train_objects(opened(tmp_path / "cells"), QUICK, tmp_path / "run", device="cpu")
    averages = [load_state(tmp_path / "run")["average"] for _ in epochs]
    kept = cs.load(tmp_path / "run").net.state_dict()
    assert [all(torch.equal(v, kept[k]) for k, v in one.items()) for one in averages] == [False, True, False]


def test_a_segmenter_learns_the_classes_of_pixels(tmp_path: Path) -> None:
    data = opened(tmp_path / "shapes", 20, masks=True)
    recipe = replace(of_kind("segmenter"), arch="unet(width=8, depth=2)", epochs=8, shares="0.6,0.2,0.2", loss="both")
    history = trained(data, recipe, tmp_path / "run")
    assert history[0].score < 0.4 < 0.6 < max(e.score for e in history)
    model, metrics = cs.load(tmp_path / "run"), json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert isinstance(model, cs.Segmenter)
    test = of_test(tmp_path / "run")
    counts, own = PixelCounts(3), {}
    for p in data.pictures:
        if p.path.name in test:
            counts.add(model.segment(pixels_of(p.path)[None])[0], p.pixels())
            alone = PixelCounts(3)
            alone.add(model.segment(pixels_of(p.path)[None])[0], p.pixels())
            own[p.name] = alone.scores().mean_iou
    assert counts.scores().mean_iou == pytest.approx(metrics["mean_iou"]["value"])
    finding = cs.Report.read(tmp_path / "run").findings[1]
    assert [r["picture"] for r in finding.tables[-1].rows] == sorted(own, key=lambda name: (own[name], name))
    assert {r["picture"]: r["mean IoU"] for r in finding.tables[-1].rows} == pytest.approx(own)
    assert [e.picture for e in finding.evidence] == [r["picture"] for r in finding.tables[-1].rows][:8]


def of_test(folder: Path) -> set[str]:
    """The files of the pictures of test, by the run's table."""
    rows = csv.DictReader((folder / "split.csv").read_text().splitlines())
    return {Path(r["file"]).name for r in rows if r["split"] == "test"}


def pixels_of(path: Path) -> Tensor:
    image = Image.open(path)
    return of_bytes(torch.tensor(list(image.tobytes()), dtype=torch.uint8).view(*SIZE, 3).permute(2, 0, 1))


def test_the_embedded_backbone_is_where_training_begins(tmp_path: Path) -> None:
    data = prepare(opened(tmp_path / "cells"), QUICK)
    recipe, why = resolve(replace(QUICK, arch="auto", size=64, epochs=None), data)
    assert (recipe.arch, recipe.epochs) == ("clearsight:fcos", 60)
    assert any("arch clearsight:fcos" in line for line in why)
    start = build_network(recipe, 2, input_size(recipe, data), lambda line: None)
    demo = cs.load("demo").net.state_dict()
    state = start.net.state_dict()
    assert (start.body, start.pretrained, start.preprocess.size) == ("backbone", "demo", (48, 64))
    assert all(torch.equal(v, demo[k.removeprefix("backbone.")]) for k, v in state.items() if k.startswith("backbone."))
    start.train()
    assert not any(m.training for m in start.net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    rates: Counter[float] = Counter()
    for g in start.groups(recipe):
        rates[round(g["lr"], 9)] += sum(p.numel() for p in g["params"])
    body = sum(p.numel() for p in start.net.get_submodule("backbone").parameters())
    below = build_network(replace(recipe, arch="clearsight:fcn"), 2, SIZE, lambda line: None)
    below.train()
    assert not any(m.training for m in below.net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert rates == {0.01: sum(p.numel() for p in start.net.parameters()) - body, 0.002: body}


def test_the_losses_are_those_of_the_network_and_of_enlarged_logits() -> None:
    class Fixed(torch.nn.Module):
        def loss(self, z: Tensor, boxes: list[Tensor], labels: list[Tensor]) -> dict[str, Tensor]:
            return {"a": z.sum() + len(boxes), "b": labels[0].sum() * 2.0}

        def forward(self, z: Tensor) -> Tensor:
            return z[:, :2, ::2, ::2]

    z = torch.zeros(1, 3, 4, 4)
    assert detector_loss(Fixed(), z, [(torch.zeros(1, 4), torch.tensor([3]))]).item() == 7.0
    truth = torch.tensor([[0, 1, 255, 255]] * 4)
    assert segmenter_loss(Fixed(), z, [truth], "cross-entropy").item() == pytest.approx(0.6931, abs=1e-4)
    assert segmenter_loss(Fixed(), z, [truth], "dice").item() == pytest.approx(0.5)
    assert segmenter_loss(Fixed(), z, [truth], "both").item() == pytest.approx(1.1931, abs=1e-4)


# The truth moves with the picture ------------------------------------------------------------------------------------


def test_boxes_and_maps_move_with_the_pixels() -> None:
    """The red pixels of a moved picture fill its moved box, and lie where the moved map says so."""
    left, kept = 0, 0
    for number in range(60):
        move = draw_move(number, 5, SIZE, "both", 0.5)
        x, classes = torch.zeros(3, *SIZE), torch.zeros(SIZE, dtype=torch.int64)
        x[0, 14:44, 30:50], classes[14:44, 30:50] = 1, 1
        moved, marked = move_pixels(x, move, (0.0, 0.0, 0.0)), move_map(classes, move)
        boxes, labels = move_boxes(torch.tensor([[30.0, 14, 50, 44]]), torch.tensor([1]), move, SIZE, 3.0)
        left += marked.eq(255).any().item()
        if not len(labels):
            continue
        kept += 1
        for where in (moved[0] > 0.5, marked == 1):
            rows, columns = where.nonzero().T
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert torch.stack(found).sub(boxes[0]).abs().max() <= 1.0, move
    assert kept > 40
    assert left > 10  # shrunk ones have a margin, which is not judged


def test_what_moves_draw_spans_all_that_was_asked_for() -> None:
    moves = [draw_move(i, 0, (100, 200), "across", 0.25) for i in range(400)]
    assert {m.across for m in moves} == {True, False}
    assert not any(m.down for m in moves)
    assert (min(m.height for m in moves), max(m.height for m in moves)) == (80, 125)
    assert min(m.left for m in moves) < -40
    assert max(m.left for m in moves) > 30
    assert all(0 <= m.top <= 100 - m.height or 100 - m.height <= m.top <= 0 for m in moves)
    assert not any(m.across for m in (draw_move(i, 0, (9, 9), "none", 0.0) for i in range(20)))


def test_boxes_that_are_cut_off_or_too_small_are_not_learned() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 2, 30], [50, 50, 90, 60]])
    stay = Move(False, False, *SIZE, 0, 0)
    assert move_boxes(boxes, torch.arange(3), stay, SIZE, 3.0)[1].tolist() == [0, 2]
    up = Move(False, False, *SIZE, -6, 0)
    inside, labels = move_boxes(boxes, torch.arange(3), up, SIZE, 3.0)
    assert (inside.tolist(), labels.tolist()) == ([[0, 0, 10, 4], [50, 44, 90, 54]], [0, 2])
    further = Move(False, False, *SIZE, -8, 0)  # 20 % of the first is left
    assert move_boxes(boxes, torch.arange(3), further, SIZE, 1.0)[1].tolist() == [1, 2]


# Stopped and resumed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["detector", "segmenter", "dropout"])
def test_a_stopped_run_ends_bit_for_bit_as_if_it_never_had_been(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = opened(tmp_path / "data", masks=kind == "segmenter")
    recipe = QUICK if kind == "dropout" else of_kind(kind)
    if kind == "dropout":
        recipe = replace(QUICK, arch="yolo-v1(backbone=tiny, grid=3, dense=8)", lr="0.0005")
    whole = trained(data, recipe, tmp_path / "whole")
    monkeypatch.setattr(loop, "KEEP", -1.0)  # each step is saved
    stopped = tmp_path / "stopped"

    def stop(what: str, done: int, total: int) -> None:
        if what == "training" and done == 8:  # in the second step of the second epoch, the first of which is saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(data, recipe, stopped, progress=stop)
    assert not (stopped / "model.safetensors").exists()
    history = trained(data, ObjectRecipe(), stopped, resume=True)
    assert weights(stopped) == weights(tmp_path / "whole")
    assert [(e.number, e.loss, e.score) for e in history] == [(e.number, e.loss, e.score) for e in whole[1:]]
    assert not (stopped / "state.pt").exists()


def test_neither_workers_nor_the_rest_of_the_batch_change_a_picture(tmp_path: Path) -> None:
    data = opened(tmp_path / "cells")
    recipe = replace(QUICK, epochs=1)
    trained(data, recipe, tmp_path / "none")
    trained(data, recipe, tmp_path / "two", workers=2)
    assert weights(tmp_path / "none") == weights(tmp_path / "two")
    prepared = prepare(data, recipe)
    start = build_network(resolve(recipe, prepared)[0], 2, SIZE, lambda line: None)
    stores = loop.stores_of(prepared, start.preprocess, recipe)
    both = [[3, 1]], [[0], [1, 5, 3]]
    first, second = (ObjectBatches(stores.pictures, stores.truths, rows, (), "both", 0.25, 7) for rows in both)
    one, other = first[0], second[1]
    assert torch.equal(one[0][0], other[0][2])
    assert torch.equal(one[1][1][0], other[1][0][0])


def test_another_recipe_or_other_boxes_are_not_resumed(tmp_path: Path) -> None:
    data = opened(tmp_path / "cells")
    epochs = train_objects(data, QUICK, tmp_path / "run", device="cpu")
    next(epochs)
    epochs.close()
    with pytest.raises(cs.Refused, match="other settings: leave --batch out"):
        trained(data, replace(QUICK, batch=4), tmp_path / "run", resume=True)
    moved = replace(data.pictures[0].boxes, boxes=data.pictures[0].boxes.boxes + 1)
    changed = replace(data, pictures=(replace(data.pictures[0], boxes=moved), *data.pictures[1:]))
    with pytest.raises(cs.Refused, match="annotations are not those"):
        trained(changed, QUICK, tmp_path / "run", resume=True)


# What is trained, and what is refused ---------------------------------------------------------------------------------


def test_the_folder_says_what_is_trained(tmp_path: Path) -> None:
    drawn(tmp_path / "cells")
    drawn(tmp_path / "shapes", masks=True)
    assert truth_found(tmp_path / "cells") == ("boxes",)
    assert truth_found(tmp_path / "shapes") == ("masks",)
    (tmp_path / "cells" / "images").rename(tmp_path / "cells" / "shots")
    assert truth_found(tmp_path / "cells") == ("boxes",)  # one folder is no class
    for name in ("train/cat", "train/dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name / "1.png")
    assert truth_found(tmp_path / "photos") == ("classes",)
    (tmp_path / "photos" / "train" / "cat" / "1.xml").write_text("<annotation/>")
    assert truth_found(tmp_path / "photos") == ("boxes", "classes")
    with pytest.raises(cs.Refused, match="holds boxes and classes: say what is to be trained: boxes="):
        cs.train(tmp_path / "photos")


def test_the_command_line_trains_what_the_folder_holds(tmp_path: Path, run: Any) -> None:
    drawn(tmp_path / "cells")
    words = ("--arch", TINY["detector"], "--epochs", "1", "--shares", "0.5,0.25,0.25", "--device", "cpu")
    told = run("train", tmp_path / "cells", *words, "-o", tmp_path / "a", "--json")
    assert json.loads(told.out)["kind"] == "detector"
    where = tmp_path / "cells" / "annotations" / "instances.json"
    words = ("--arch", TINY["segmenter"], *words[2:])
    told = run("train", tmp_path / "cells", "--masks", where, *words, "-o", tmp_path / "b", "--quiet")
    assert (told.status, told.out.strip()) == (0, str(tmp_path / "b"))
    assert cs.load(tmp_path / "b").labels == ("background", "red", "blue")
    record = json.loads((tmp_path / "b" / "recipe.json").read_text())
    assert f"--masks {where}" in record["command"]
    for option, value in (("--perturb", "fgsm"), ("--rebalance", "group-dro"), ("--first-head", None)):
        told = run("train", tmp_path / "cells", option, *([value] if value else []))
        assert "of the training of classifiers" in told.err
    told = run("train", tmp_path / "cells", "--boxes", where, "--folds", "3")
    assert "--folds is of the training of classifiers" in told.err
    (tmp_path / "plain" / "cat").mkdir(parents=True)
    told = run("train", tmp_path / "plain", "--flips", "both")
    assert "--flips is of the training of detectors and segmenters" in told.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch": "unet"}, "arch 'unet'.*for a detector"),
        ({"arch": "clearsight:lenet5"}, "for a detector"),
        ({"arch": "torchvision:resnet18"}, "is a classifier, and these pictures train a detector"),
        ({"augment": "flip"}, "flip moves or mixes pixels.*flips and scale"),
        ({"loss": "dice"}, "--loss is of a segmenter"),
        ({"size": 32, "arch": "yolo-v1"}, "needs inputs of at least 64"),
        ({"weights": "nowhere.pt"}, "nowhere.pt"),
        ({"shares": "1,0,0"}, "train and val above 0"),
        ({"lr": "find"}, "lr 'find'"),
        ({"scale": 1.5}, "scale 1.5: a number from 0 to 0.9"),
        ({"flips": "up"}, "flips 'up'"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_no_folder(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    data = opened(tmp_path / "cells")
    with pytest.raises(cs.Refused, match=words):
        trained(data, replace(QUICK, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_class_that_train_does_not_have_is_named(tmp_path: Path) -> None:
    data = opened(tmp_path / "cells")
    parts = ["train", "train", "val", "val", "test", "test", "train", "train"]
    pictures = tuple(replace(p, split=s) for p, s in zip(data.pictures, parts, strict=True))
    without = tuple(replace(p, boxes=p.boxes.keep(p.boxes.labels == 0)) if p.split == "train" else p for p in pictures)
    with pytest.raises(cs.Refused, match="blue has no object in train"):
        prepare(replace(data, pictures=without), QUICK)
    none = tuple(replace(p, boxes=p.boxes.keep(p.boxes.labels > 9)) if p.split == "val" else p for p in pictures)
    with pytest.raises(cs.Refused, match="no picture of val shows an object"):
        prepare(replace(data, pictures=none), QUICK)
    alone = tuple(replace(p.boxes.keep(p.boxes.labels == 0), labels=torch.tensor([k])) for k, p in enumerate(pictures))
    unlike = tuple(replace(p, boxes=b, split="") for p, b in zip(pictures, alone, strict=True))
    with pytest.raises(cs.Refused, match=r"left for val, as 8 classes are on one picture each, which trains \(a, b, "):
        prepare(replace(data, pictures=unlike, objects=tuple("abcdefgh")), QUICK)
    bare = tuple(replace(p, boxes=None) for p in pictures)
    with pytest.raises(cs.Refused, match="neither boxes nor masks"):
        prepare(replace(data, pictures=bare), QUICK)
    with pytest.raises(cs.Refused, match="least is of a detector"):
        trained(opened(tmp_path / "m", masks=True), replace(of_kind("segmenter"), least=9.0), tmp_path / "run")


def test_fields_of_classifiers_are_refused_by_name() -> None:
    assert of_options({"epochs": 2, "flips": "both"}) == ObjectRecipe(epochs=2, flips="both")
    with pytest.raises(cs.Refused, match="--perturb, --from: of the training of classifiers"):
        of_options({"perturb": "fgsm", "from_run": "x"})
