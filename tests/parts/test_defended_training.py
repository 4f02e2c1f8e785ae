"""Training that continues from a run, against an attack, and by annotations."""

from __future__ import annotations

import json
import math
import random
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import clearsight as cs
from clearsight.auditing.commands import Commands
from clearsight.auditing.mending import mend_by_attacks, mending_command
from clearsight.cli.app import app
from clearsight.core.catalogue import Call, method, parse
from clearsight.core.preprocess import Preprocess
from clearsight.core.tables import read_table
from clearsight.core.training_step import TrainingStep
from clearsight.data.annotations import Region
from clearsight.data.datasets import open_data
from clearsight.data.records import Picture
from clearsight.errors import Refused
from clearsight.runner.augment import augment, augment_regions, fits_regions, read
from clearsight.testing import linear, training_step
from clearsight.training import loop
from clearsight.training.batches import Store
from clearsight.training.continued import inherited, origin, refuse_other_split
from clearsight.training.guidance import MarkedPlaces, where_not_to_look, where_to_look
from clearsight.training.loop import train
from clearsight.training.losses import guided_loss
from clearsight.training.recipe import Recipe, read_recipe
from clearsight.training.run_record import training_command
from clearsight.training.validate_recipe import validate
from quickruns import QUICK, photos, weights
from thinning import with_slow

AGAINST = replace(QUICK, perturb="fgsm(eps=0.05, random_start=true)", epochs=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def before(data: Path) -> Path:
    """A run that others continue from."""
    list(train(data, replace(QUICK, seed=3), data.parent / "before"))
    return data.parent / "before"


@pytest.fixture(scope="module")
def boxes(data: Path) -> Path:
    """Boxes around the middle of each picture."""
    rows = [f"{p.relative_to(data)},6,6,12,12" for p in sorted(data.rglob("*.png"))]
    path = data.parent / "boxes.csv"
    path.write_text("file,box_x,box_y,box_w,box_h\n" + "\n".join(rows) + "\n")
    return path


def table(folder: Path) -> dict[str, str]:
    return {Path(row["file"]).name + row["label"]: row["split"] for row in read_table(folder / "split.csv")[1]}


# From a run -----------------------------------------------------------------------------------------------------------


def test_it_begins_where_the_run_ended(tmp_path: Path, data: Path, before: Path) -> None:
    """At no rate the weights stay, but for the temperature of the head, which is fitted again."""
    still = Recipe(from_run=str(before), lr="1e-12", epochs=1, decay=0.0, seed=8)
    list(train(data, still, tmp_path / "after"))
    old, new = (dict(cs.load(folder).net.named_parameters()) for folder in (before, tmp_path / "after"))
    t = json.loads((tmp_path / "after" / "metrics.json").read_text())["temperature"]["temperature"]
    head = [n for n, p in old.items() if len(p) == 3]
    assert len(head) == 2
    for name, p in old.items():
        torch.testing.assert_close(new[name] * (t if name in head else 1), p, rtol=1e-4, atol=1e-6)


def test_the_pictures_stay_in_their_parts_whatever_the_seed(tmp_path: Path, data: Path, before: Path) -> None:
    list(train(data, Recipe(from_run=str(before), epochs=1, seed=8), tmp_path / "after"))
    assert table(tmp_path / "after") == table(before)
    recipe, why, _ = read_recipe(tmp_path / "after" / "recipe.json")
    assert recipe.arch == QUICK.arch
    assert recipe.size == 16
    assert not recipe.first_head
    assert f"from {before}: its network, with all its weights" in why
    assert f"--from {before}" in json.loads((tmp_path / "after" / "recipe.json").read_text())["command"]


def test_new_pictures_are_for_training(tmp_path: Path, before: Path) -> None:
    more = shutil.copytree(before.parent / "photos", tmp_path / "photos")
    Image.new("RGB", (24, 24), (200, 40, 40)).save(more / "red" / "new.png")
    pictures = open_data(more, split="all")
    list(train(pictures, Recipe(from_run=str(before), epochs=1), tmp_path / "copies"))
    assert "knows none of these pictures" in (tmp_path / "copies" / "report.json").read_text()
    Image.new("RGB", (24, 24), (200, 40, 40)).save(before.parent / "photos" / "red" / "new.png")
    try:
        list(train(before.parent / "photos", Recipe(from_run=str(before), epochs=1), tmp_path / "after"))
        assert table(tmp_path / "after") == {**table(before), "new.pngred": "train"}
    finally:
        (before.parent / "photos" / "red" / "new.png").unlink()


def test_what_a_run_decides_is_taken_from_it(before: Path) -> None:
    """Its head among it, which no first head replaces."""
    recipe = inherited(Recipe(from_run=str(before)), origin(str(before)))
    assert (recipe.arch, recipe.size, recipe.grey, recipe.augment) == (QUICK.arch, 16, False, "flip")
    assert recipe.first_head is False
    assert recipe.strategy == "full"


def test_stopped_it_goes_on_bit_for_bit(tmp_path: Path, data: Path, before: Path) -> None:
    recipe = Recipe(from_run=str(before), epochs=2)
    list(train(data, recipe, tmp_path / "whole"))
    going = train(data, recipe, tmp_path / "cut")
    next(going)
    going.close()
    list(train(data, Recipe(), tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"from_run": "nowhere"}, "no folder of a model.*name the folder of a run"),
        ({"arch": "clearsight:mlp"}, "--arch with --from: the run decides it"),
        ({"size": 32}, "--size with --from"),
    ],
)
def test_what_does_not_go_with_a_run_is_refused(tmp_path: Path, data: Path, before: Path, more, words: str) -> None:
    with pytest.raises(Refused, match=words):
        list(train(data, Recipe(**{"from_run": str(before), **more}), tmp_path / "after"))
    assert not (tmp_path / "after").exists()


def test_folds_do_not_go_with_a_run_that_has_seen_their_pictures(tmp_path: Path, data: Path, before: Path) -> None:
    """The run's own split would be every fold's: the same test pictures, counted once for each."""
    result = CliRunner().invoke(
        app, ["train", str(data), "--from", str(before), "--folds", "2", "-o", str(tmp_path / "folds")]
    )
    assert isinstance(result.exception, Refused)
    assert str(result.exception).startswith("--folds with --from")
    assert not (tmp_path / "folds").exists()


def test_a_run_whose_table_names_no_files_is_refused(tmp_path: Path, data: Path, before: Path) -> None:
    shutil.copytree(before, tmp_path / "run")
    (tmp_path / "run" / "split.csv").write_text("picture,split\na,train\n")
    with pytest.raises(Refused, match="has no column file, so it does not say how"):
        list(train(data, Recipe(from_run=str(tmp_path / "run")), tmp_path / "after"))


def test_a_class_that_the_run_does_not_know_is_refused(tmp_path: Path, before: Path) -> None:
    other = photos(tmp_path)
    (other / "red").rename(other / "violet")
    with pytest.raises(Refused, match=r"'violet', which .* does not know"):
        list(train(other, Recipe(from_run=str(before)), tmp_path / "after"))
    assert not (tmp_path / "after").exists()


# Against an attack ----------------------------------------------------------------------------------------------------


def test_training_against_an_attack_goes_on_bit_for_bit(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a network that draws from NumPy's and Python's generators in training, which both go on as they were."""

    def noisy(m: nn.ReLU, x: Tensor) -> Tensor:
        return x.relu() * (0.9 + 0.1 * float(np.random.rand()) + 0.1 * random.random()) if m.training else x.relu()

    monkeypatch.setattr(nn.ReLU, "forward", noisy)
    told: list[tuple[str, int, int]] = []
    whole = list(train(data, AGAINST, tmp_path / "whole", progress=lambda *step: told.append(step)))
    assert [done for what, done, of in told if what == "training" and of == 36] == [*range(6, 37, 6)]
    assert all(e.robust_n == 6 and e.robust_right is not None for e in whole)
    going = train(data, AGAINST, tmp_path / "cut")
    next(going)
    going.close()
    random.seed(3)
    np.random.seed(3)
    was = random.getstate(), np.random.get_state()[1].copy()
    rest = list(train(data, Recipe(), tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert rest[0].robust_right == whole[1].robust_right
    assert random.getstate() == was[0]
    assert (np.random.get_state()[1] == was[1]).all()


def fall(monkeypatch: pytest.MonkeyPatch, shares: list[int]) -> None:
    """What is right under attack after each epoch is this."""
    each: Iterator[int] = iter(shares)
    monkeypatch.setattr(loop, "robust_right", lambda *args: next(each))


def test_where_training_overfits_to_its_attack_it_goes_back_and_ends(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fall(monkeypatch, [3, 5, 1, 6])
    epochs = list(train(data, replace(AGAINST, epochs=4), tmp_path / "run"))
    assert [e.collapsed for e in epochs] == [False, False, True]
    assert "catastrophic overfitting" in epochs[-1].line()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epoch"] == 2
    report = (tmp_path / "run" / "report.json").read_text()
    assert "Epoch 3 was right on 1 alone: catastrophic overfitting" in report
    assert "right most often under attack on val" in report


def test_without_the_guard_the_last_epoch_is_kept(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fall(monkeypatch, [5, 1])
    epochs = list(train(data, replace(AGAINST, overfitting_guard=False), tmp_path / "run"))
    assert [e.collapsed for e in epochs] == [False, True]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["epoch"] == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"perturb": "pdg"}, "pgd"),
        ({"perturb": "boundary"}, "training against boundary"),
        ({"perturb": "pgd(eps=0)"}, "it changes nothing: give a budget above 0"),
        ({"perturb": "pgd(steps=0)"}, "it changes nothing: .*at least one step"),
        ({"perturb": "character-substitution"}, "changes characters, and these are pictures: name pgd"),
        ({"defence": "adversarial-training"}, "without an attack"),
        ({"perturb": "pgd", "defence": "adversarial-training(clean=2)"}, "a share from 0 to 1"),
        ({"guide_by": "right-reasons"}, "--guide-by without annotations: name them with --guide FILE"),
        ({"guide_share": 0.1}, "--guide-share without annotations"),
    ],
)
def test_defences_that_do_not_exist_are_refused(tmp_path: Path, data: Path, more: dict, words: str) -> None:
    with pytest.raises(Refused, match=words):
        list(train(data, replace(QUICK, **more), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("defence", with_slow(["adversarial-training", "free(replays=2)", "mart"], "free(replays=2)"))
def test_in_bf16_the_attack_is_the_same(tmp_path: Path, data: Path, defence: str) -> None:
    """Half as many digits in the network move few answers, and no step ends in types that do not go together."""
    recipe = replace(
        QUICK, arch="clearsight:lenet5", size=32, augment="none", perturb="pgd(eps=0.05, steps=2)", defence=defence
    )
    recipe = replace(recipe, lr="0.002")  # slow enough that rounding does not decide where the steps lead
    (half,) = train(data, replace(recipe, epochs=1, precision="bf16"), tmp_path / "half")
    (full,) = train(data, replace(recipe, epochs=1), tmp_path / "full")
    assert half.loss == pytest.approx(full.loss, rel=0.05)
    assert weights(tmp_path / "half") != weights(tmp_path / "full")


# By annotations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", ["none", "flip", "affine", "crop(scale=0.3)", "crop, flip, affine, blur, lighting"])
def test_annotations_move_as_their_pictures_do(calls: str) -> None:
    """A white square is its own annotation."""
    pictures = []
    for k in range(6):
        picture = torch.zeros(3, 40, 40, dtype=torch.uint8)
        picture[:, 8 + k : 24 + k, 4 : 16 + k] = 255
        pictures.append(picture)
    y, size = torch.eye(6), (40, 40)
    x, shares, inside = augment_regions(pictures, [p[:1] for p in pictures], y, read(calls), size, seed=5)
    alone, same = augment(pictures, y, read(calls), size, seed=5)
    assert torch.equal(x, alone)
    assert torch.equal(shares, same)
    assert inside.shape == (6, 1, 40, 40)
    wrong = ((x.mean(1, keepdim=True) > 0.5) != (inside > 0.5)).float().mean()
    assert wrong < (0.05 if "blur" in calls else 0.02)


def test_what_covers_a_picture_leaves_its_annotation() -> None:
    pictures = [torch.full((3, 20, 20), 200, dtype=torch.uint8)] * 4
    regions = [torch.full((1, 20, 20), 255, dtype=torch.uint8)] * 4
    calls = read("erasing(chance=1.0)")
    x, _, inside = augment_regions(pictures, regions, torch.eye(4), calls, (20, 20), seed=0)
    assert (x != x[0, 0, 0, 0]).any()
    assert (inside == 1).all()


@pytest.mark.parametrize("calls", ["mixup", "cutmix", "mosaic", "rand-augment"])
def test_augmentations_that_lose_the_regions_are_refused(calls: str) -> None:
    with pytest.raises(Refused, match=f"{calls} does not go with annotations"):
        fits_regions(read(calls))


def test_a_box_lies_where_its_object_is_in_the_input(tmp_path: Path) -> None:
    """Also in the larger picture that is kept for crops."""
    pixels = np.zeros((60, 90), np.uint8)
    pixels[10:30, 40:80] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    region = Region(boxes=((40.0, 10.0, 80.0, 30.0),))
    picture = Picture(tmp_path / "a.png", "a.png", regions=(region,))
    for whole in (False, True):
        pre = Preprocess((24, 24), (0.0,), (1.0,), resize=30)
        drawn, photo = (Store([picture], pre, whole, **more)[0] for more in ({"read": where_to_look}, {}))
        assert torch.equal(drawn, photo)
        avoided = Store([picture], pre, whole, read=where_not_to_look)[0]
        assert (avoided.int() + drawn.int() - 255).abs().max() <= 1


def test_annotations_guide_training_and_it_goes_on_bit_for_bit(tmp_path: Path, data: Path, boxes: Path) -> None:
    recipe = replace(QUICK, guide=str(boxes), guide_by="right-reasons(weight=0.01)", guide_share=0.5, epochs=2)
    epochs = list(train(data, recipe, tmp_path / "whole"))
    assert len(epochs) == 2
    report = (tmp_path / "whole" / "report.json").read_text()
    assert "CSV annotations of 18 of 18 training pictures can guide" in report
    assert "val may hold what the annotations guide away from" in report
    going = train(data, recipe, tmp_path / "cut")
    next(going)
    going.close()
    list(train(data, Recipe(), tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    plain = replace(QUICK, epochs=2)
    list(train(data, plain, tmp_path / "plain"))
    assert weights(tmp_path / "plain") != weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("other.png,1,1,5,5", "fit no picture"),
        ("red/0.png,100,100,20,20", "cannot .*outside the picture|cannot .*used"),
        ("red/0.png,10,10,60,5", r"cannot guide: they go beyond the edge of red/0\.png: mend or remove"),
        ("red/0.png,-9,2,20,5", r"cannot guide: they go beyond the edge of red/0\.png: mend or remove"),
    ],
)
def test_annotations_that_cannot_guide_are_refused(tmp_path: Path, data: Path, rows: str, words: str) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("file,box_x,box_y,box_w,box_h\n" + rows + "\n")
    with pytest.raises(Refused, match=words):
        list(train(data, replace(QUICK, guide=str(path)), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_masks_that_mark_no_pixel_are_refused(tmp_path: Path, data: Path) -> None:
    for p in data.rglob("*.png"):
        mask = tmp_path / "masks" / p.relative_to(data)
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(p) as photo:
            Image.new("L", photo.size, 0).save(mask)
    with pytest.raises(Refused, match="mark nothing in a training picture"):
        list(train(data, replace(QUICK, guide=str(tmp_path / "masks")), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_one_box_beyond_its_picture_is_refused_even_if_others_are_right(tmp_path: Path, data: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("file,box_x,box_y,box_w,box_h\nred/0.png,1,1,5,5\nred/1.png,100,100,20,20\n")
    with pytest.raises(Refused, match=r"cannot guide: red/1.png \(.*outside the picture"):
        list(train(data, replace(QUICK, guide=str(path)), tmp_path / "run"))


def test_annotations_do_not_go_with_augmentations_that_the_run_had(tmp_path: Path, data: Path, boxes: Path) -> None:
    list(train(data, replace(QUICK, augment="mixup", epochs=1), tmp_path / "mixed"))
    with pytest.raises(Refused, match="mixup does not go with annotations"):
        list(train(data, Recipe(from_run=str(tmp_path / "mixed"), guide=str(boxes)), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["guide", "avoid"])
def test_annotations_that_are_not_there_are_noticed_before_any_picture_is_read(tmp_path: Path, option: str) -> None:
    """The data is not there either, and that comes second."""
    recipe = replace(QUICK, **{option: str(tmp_path / "boxes.csv")})
    with pytest.raises(Refused, match=r"no annotations at .*boxes\.csv: there is no such"):
        validate(recipe)
    validate(replace(QUICK, guide="marks"))


@pytest.mark.parametrize(("option", "value"), [("shares", "0.5,0.25,0.25"), ("split_seed", 1)])
def test_a_split_beside_that_of_the_run_is_refused(
    tmp_path: Path, data: Path, before: Path, option: str, value: object
) -> None:
    again = Recipe(from_run=str(before), epochs=1, **{option: value})
    with pytest.raises(Refused, match=f"--{option.replace('_', '-')} with --from: .*split.csv says, so it has no"):
        list(train(data, again, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_pictures_that_the_run_does_not_know_are_divided_as_is_asked(tmp_path: Path, before: Path) -> None:
    """So is what draws labels at random, although the run has divided its own pictures."""
    again = Recipe(from_run=str(before), epochs=1, shares="0.5,0.25,0.25", split_seed=1)
    list(train(photos(tmp_path), again, tmp_path / "run"))
    parts = [row["split"] for row in read_table(tmp_path / "run" / "split.csv")[1]]
    assert parts.count("train") == len(parts) // 2
    refuse_other_split(Recipe(from_run=str(before), split_seed=1, random_labels=True))


def test_coco_annotations_of_other_numbers_are_refused_as_such(tmp_path: Path, data: Path) -> None:
    names = [p.relative_to(data).as_posix() for p in sorted(data.rglob("*.png"))]
    images = [{"id": i, "file_name": n, "width": 24, "height": 24} for i, n in enumerate(names)]
    boxes = [{"id": 1, "image_id": 999, "category_id": 1, "bbox": [2, 2, 9, 9]}]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "red"}]}))
    with pytest.raises(Refused, match="none of them is of one of the pictures"):
        list(train(data, replace(QUICK, guide=str(path), epochs=1), tmp_path / "run"))


def test_a_map_by_rectified_gradients_guides_a_training(tmp_path: Path, data: Path, boxes: Path) -> None:
    """Its last weights are others than those without the guide."""
    recipe = replace(QUICK, epochs=1)
    guided = replace(recipe, guide=str(boxes), guide_by="energy(explainer=guided-backprop, weight=10)")
    for name, one in (("plain", recipe), ("guided", guided)):
        list(train(data, one, tmp_path / name))
    assert weights(tmp_path / "plain") != weights(tmp_path / "guided")


def test_guide_and_avoid_together_are_refused() -> None:
    with pytest.raises(Refused, match="give one of them"):
        Recipe(guide="a.csv", avoid="b.csv")


# What a report quotes ------------------------------------------------------------------------------------------------


def test_a_report_quotes_the_training_that_mends_what_fails(tmp_path: Path, data: Path, before: Path) -> None:
    """And that command trains."""
    report = cs.audit(cs.load(before), open_data(data, split="all"), only="accuracy, robustness(eps=0.5, floor=0.99)")
    accuracy, robustness = report.findings
    assert accuracy.mend == ""
    assert robustness.verdict == "fail"
    wanted = f"clearsight train {data} --from {before} --perturb 'pgd(eps=0.5, steps=7, random_start=true)'"
    assert robustness.mend == wanted
    report.save(tmp_path / "audit")
    assert json.loads((tmp_path / "audit" / "report.json").read_text())["findings"][1]["mend"] == wanted
    assert "random_start=true" in (tmp_path / "audit" / "report.html").read_text()
    words = shlex.split(robustness.mend)[1:]
    done = CliRunner().invoke(app, [*words, "--epochs", "1", "-o", str(tmp_path / "mended"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert read_recipe(tmp_path / "mended" / "recipe.json")[0].perturb == "pgd(eps=0.5, steps=7, random_start=true)"


def test_the_annotations_of_the_audit_guide_the_training_that_is_quoted() -> None:
    commands = Commands("demo", "photos", data_words=("--boxes", "b.csv"))
    assert mending_command(commands, parse("localisation", "checks")) == (
        "clearsight train DATA --arch demo --guide b.csv"
    )
    assert mending_command(Commands("demo", "photos"), parse("localisation", "checks")).endswith("--guide MARKS")
    assert mending_command(Commands("", "photos"), parse("localisation", "checks")) == ""
    assert mending_command(Commands("demo", "photos"), parse("accuracy", "checks")) == ""


@pytest.mark.parametrize(
    ("check", "options"),
    [
        ("gradient-masking(eps=0.2)", ["--perturb", "pgd(eps=0.2, steps=7, random_start=true)"]),
        ("certified-robustness(sigma=0.5)", ["--defence", "gaussian-augmentation(sigma=0.5)"]),
        ("corruptions", ["--augment", "rand-augment"]),
    ],
)
def test_what_mends_other_faults_is_quoted_and_is_a_recipe(before: Path, check: str, options: list[str]) -> None:
    words = shlex.split(mending_command(Commands(str(before), "photos"), parse(check, "checks")))
    assert words[-2:] == options
    validate(Recipe(from_run=str(before), **{options[0][2:]: options[1]}))


@pytest.mark.parametrize(
    ("attack", "mend"),
    [
        ("fgsm", "--perturb 'pgd(eps=0.5, steps=7, random_start=true)'"),
        ("square(queries=30)", "--perturb 'pgd(eps=0.5, steps=7, random_start=true)'"),
        ("pgd(norm=l2)", "--perturb 'pgd(eps=0.5, steps=7, random_start=true, norm=l2)'"),
        ("character-substitution", ""),
        ("spatial", ""),
    ],
)
def test_what_an_attack_breaks_is_mended_in_its_budget(attack: str, mend: str) -> None:
    assert mend_by_attacks(parse(attack, "attacks"), 0.5) == mend
    if mend:
        validate(replace(QUICK, perturb=shlex.split(mend)[1]))


def test_a_report_on_an_attack_quotes_what_mends_it(tmp_path: Path, data: Path, before: Path) -> None:
    words = ["attack", str(before), str(data), "--split", "all", "-a", "fgsm", "--eps", "0.5", "--floor", "0.99"]
    assert CliRunner().invoke(app, [*words, "--quiet", "-o", str(tmp_path / "a")]).exit_code == 0
    (found,) = json.loads((tmp_path / "a" / "report.json").read_text())["findings"]
    assert found["verdict"] == "fail"
    wanted = f"clearsight train {data} --from {before} --perturb 'pgd(eps=0.5, steps=7, random_start=true)'"
    assert found["mend"] == wanted


@method(paper="arXiv:1703.03717")
def everywhere(step: TrainingStep, x: Tensor, y: Tensor, inside: Tensor) -> Tensor:
    return 1 + (1 - inside).flatten(1).sum(1)


def test_a_picture_without_annotation_adds_nothing() -> None:
    step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]))
    x, y = torch.rand(3, 1, 1, 2), torch.eye(2)[[0, 0, 1]]
    inside = torch.zeros(3, 1, 1, 2)
    inside[1:] = torch.nan
    guide = Call(everywhere)
    assert guided_loss(guide, step, x, y, inside) == pytest.approx((1 + 2) / 3)
    assert guided_loss(guide, step, x, y, inside[[1, 1, 1]]) == 0
    with pytest.raises(Refused, match="not one penalty for each picture"):
        guided_loss(Call(method(paper="")(lambda step, x, y, inside: x)), step, x, y, inside)


@pytest.mark.parametrize("seed", range(4))
def test_in_counterexamples_what_lies_outside_is_another_picture_s(seed: int) -> None:
    """Logits that tell the outside: each picture sees another one's, and every one is seen once."""
    n, seen = 6, []
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    step = TrainingStep(model, lambda z, y: seen.append(z) or z[:, 0], lambda x, goal: x)
    x = torch.stack([torch.arange(n) / 10, torch.arange(n) / 10], 1).view(n, 1, 1, 2)
    inside = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2).repeat(n, 1, 1, 1)
    torch.manual_seed(seed)
    parse("counterexamples", "guides").method(step, x, torch.eye(2)[[0] * n], inside)
    kept, outside = (10 * seen[0].detach()).round().int().T.tolist()
    assert kept == list(range(n))
    assert sorted(outside) == kept
    assert all(a != b for a, b in zip(kept, outside, strict=True))


def test_counterexamples_need_something_inside() -> None:
    """The second picture has an empty mask: in front of the first it would be that picture with another label."""
    step = training_step(linear([[3.0, -2.0], [0.0, 0.0]]))
    x, y = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 1.0]]]]), torch.eye(2)
    inside = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]]])
    found = parse("counterexamples", "guides").method(step, x, y, inside)
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-1.0)), 0.0])  # (1, 1) in class 0


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty requests, half of them with a marked attack, as JSON lines."""
    rows = []
    for i in range(40):
        head, tail = "ab" * (3 + i % 5), "cd" * (2 + i % 3)
        middle = "<xy>" if i % 2 else "&id="
        marks = [[len(head), len(head) + 4]] if i % 2 else []
        label = "attack" if i % 2 else "normal"
        rows.append(json.dumps({"text": f"{head}{middle}{tail}{i}", "label": label, "marks": marks}))
    path = tmp_path_factory.mktemp("texts") / "requests.jsonl"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def of_texts(requests: Path) -> Path:
    """A run on them that others continue from."""
    list(train(requests, Recipe(epochs=2, lr="0.01", batch=8), requests.parent / "before"))
    return requests.parent / "before"


@pytest.mark.parametrize("more", [{"guide": "marks"}, {"perturb": "character-substitution(eps=2)"}])
def test_texts_are_guided_by_their_marks_and_attacked_by_characters(
    tmp_path: Path, requests: Path, of_texts: Path, more: dict
) -> None:
    recipe = Recipe(from_run=str(of_texts), epochs=2, batch=8, seed=5, **more)
    whole = list(train(requests, recipe, tmp_path / "whole"))
    going = train(requests, recipe, tmp_path / "cut")
    next(going)
    going.close()
    list(train(requests, Recipe(), tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    list(train(requests, Recipe(from_run=str(of_texts), epochs=2, batch=8, seed=5), tmp_path / "plain"))
    assert weights(tmp_path / "plain") != weights(tmp_path / "whole")
    assert (whole[-1].robust_right is not None) == ("perturb" in more)
    assert [p.split for p in open_data(tmp_path / "whole" / "split.csv", split="all").pictures] == [
        p.split for p in open_data(of_texts / "split.csv", split="all").pictures
    ]


def test_where_a_text_s_answer_may_look_is_its_marks() -> None:
    texts = [Picture(Path("t"), "a", text="abcdef", marks=((1, 3),)), Picture(Path("t"), "b", text="ab", marks=())]
    assert MarkedPlaces(texts, 8, inside=True)[0].tolist() == [[0, 255, 255, 0, 0, 0, 0, 0]]
    assert MarkedPlaces(texts, 8, inside=False)[0].tolist() == [[255, 0, 0, 255, 255, 255, 255, 255]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"guide": "boxes.csv"}, "there is no such file or folder: name one, or of texts give marks"),
        ({"guide": __file__}, "their marks stand in their own table: give marks"),
        ({"perturb": "character-substitution", "defence": "trades"}, "trades against character-substitution"),
        ({"perturb": "character-substitution(eps=0)"}, "it changes nothing"),
        ({"perturb": "pgd"}, "pgd changes pixels, and these are texts: name character-substitution"),
        ({"defence": "gaussian-augmentation"}, "adds to pixels, and these are texts: leave --defence out"),
    ],
)
def test_what_does_not_go_with_texts_is_refused(tmp_path: Path, requests: Path, more: dict, words: str) -> None:
    with pytest.raises(Refused, match=words):
        list(train(requests, Recipe(epochs=1, **more), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_other_kind_is_refused(
    tmp_path: Path, data: Path, before: Path, requests: Path, of_texts: Path
) -> None:
    with pytest.raises(Refused, match="the model takes pictures, not texts"):
        list(train(requests, Recipe(from_run=str(before)), tmp_path / "run"))
    with pytest.raises(Refused, match="holds pictures, and the model takes texts"):
        list(train(data, Recipe(from_run=str(of_texts)), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_runs_of_texts_are_compared_with_runs_of_texts(tmp_path: Path, before: Path, of_texts: Path) -> None:
    shutil.copytree(of_texts, tmp_path / "other")
    assert cs.compare([tmp_path / "other", of_texts]).findings[0].value == 0
    with pytest.raises(Refused, match=r"the test pictures of .* are not those of"):
        cs.compare([before, of_texts])
    with pytest.raises(Refused, match=r"boxes: .* holds texts, whose marks are in its column marks"):
        cs.compare([tmp_path / "other", of_texts], boxes=tmp_path / "boxes.json")


def test_a_report_on_texts_quotes_a_training_that_goes_with_texts(requests: Path, of_texts: Path) -> None:
    only = "robustness(floor=1.0, characters=6)"
    (found,) = cs.audit(cs.load(of_texts), open_data(requests, split="all"), only=only).findings
    assert found.verdict == "fail"
    assert found.mend.endswith(f"--from {of_texts} --perturb 'character-substitution(eps=6)'")


def test_an_attack_on_texts_quotes_the_same_training_with_the_columns_of_the_table(
    tmp_path: Path, requests: Path
) -> None:
    rows = [json.loads(line) for line in requests.read_text().splitlines()]
    table_of = tmp_path / "requests.jsonl"
    table_of.write_text("\n".join(json.dumps({"line": r["text"], "kind": r["label"]}) for r in rows))
    columns = ["--label-column", "kind", "--text-column", "line"]
    run = tmp_path / "run"
    words = ["train", str(table_of), *columns, "--epochs", "1", "-o", str(run), "--quiet"]
    assert CliRunner().invoke(app, words).exit_code == 0
    words = ["attack", str(run), str(table_of), *columns, "--split", "all", "--eps", "6", "-o", str(tmp_path / "a")]
    assert CliRunner().invoke(app, [*words, "--quiet"]).exit_code == 0
    (found,) = json.loads((tmp_path / "a" / "report.json").read_text())["findings"]
    wanted = mending_command(Commands(str(run), str(table_of)), parse("robustness", "checks"), "--perturb X")
    assert shlex.split(wanted)[:3] == ["clearsight", "train", str(table_of)]
    assert " --text-column line " in wanted
    assert " --label-column kind " in wanted
    whole = wanted.replace("X", "'character-substitution(eps=6)'")
    assert found.get("mend", "") == (whole if found["verdict"] == "fail" else "")


def test_the_command_of_a_training_on_a_table_names_its_column(tmp_path: Path, data: Path) -> None:
    lines = [f"{p.relative_to(data)},{p.parent.name}" for p in sorted(data.rglob("*.png"))]
    (data / "kinds.csv").write_text("file,kind\n" + "\n".join(lines) + "\n")
    pictures = open_data(data / "kinds.csv", split="all", label_column="kind")
    assert "--label-column kind" in training_command(pictures, QUICK, tmp_path)
