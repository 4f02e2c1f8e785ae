"""Boxes and class maps for detectors and segmenters: the same objects in every format, and all that is bad is named."""

import io
import json
import pickle
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as cocomask
from pycocotools.coco import COCO
from typer.testing import CliRunner

from clearsight.cli.app import app
from clearsight.curation.quality.check import check_data
from clearsight.curation.quality.flaw import Flaw
from clearsight.curation.quality.page import page
from clearsight.data.box_folders import open_boxes
from clearsight.data.duplicates import likenesses
from clearsight.data.images import open_classes
from clearsight.data.mask_folders import open_masks
from clearsight.data.records import Pictures
from clearsight.data.splits import split
from clearsight.data.strata import divide, strata
from clearsight.errors import Refused

SHARED = Path(__file__).parents[3] / "shared/data"
SIZE = (60, 40)  # width, height
BOXES = {
    "a": [("person", (4, 11, 24, 31)), ("toothbrush", (40, 0, 60, 12))],
    "b": [("person", (0, 0, 60, 40))],
    "c": [("dog", (10, 5, 13, 25))],
    "d": [],
}
IDS = {"toothbrush": 90, "person": 1, "dog": 18}  # COCO's, with gaps, and in no order
CLASSES = ("person", "dog", "toothbrush")


@pytest.fixture(autouse=True)
def _peer_is_old() -> None:
    warnings.filterwarnings("ignore", "__array__ implementation")  # pycocotools 2.0.11 and the copy of NumPy 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in BOXES:
        picture(tmp_path / "images" / f"{name}.png")
    return tmp_path


def picture(file: Path, size: tuple[int, int] = SIZE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(file)
    return file


def put(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def coco(file: Path, boxes: dict = BOXES, **more: object) -> Path:
    images, objects = [], []
    for number, (name, listed) in enumerate(boxes.items()):
        images.append({"id": number, "file_name": f"{name}.png", "width": SIZE[0], "height": SIZE[1]})
        for label, (x, y, u, v) in listed:
            objects.append({"image_id": number, "category_id": IDS.get(label, 7), "bbox": [x, y, u - x, v - y]})
    for number, o in enumerate(objects):
        o |= {"id": 100 + number} | more
    categories = [{"id": number, "name": name} for name, number in IDS.items()]
    return put(file, json.dumps({"images": images, "annotations": objects, "categories": categories}))


def voc(folder: Path, boxes: dict = BOXES) -> Path:
    for name, listed in boxes.items():
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x}</xmin><xmax>{u}</xmax><ymin>{y}</ymin><ymax>{v}</ymax>"
            "</bndbox></object>"
            for label, (x, y, u, v) in listed
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        put(folder / f"{name}.xml", f"<annotation>{size}{objects}</annotation>")
    return folder


def yolo(folder: Path, polygons: bool = False, boxes: dict = BOXES) -> Path:
    put(folder / "classes.txt", "\n".join(CLASSES))
    for name, listed in boxes.items():
        rows = []
        for label, (x, y, u, v) in listed:
            box = ((x + u) / 2 / 60, (y + v) / 2 / 40, (u - x) / 60, (v - y) / 40)
            outline = (x / 60, y / 40, u / 60, y / 40, u / 60, v / 40, x / 60, v / 40)
            rows.append(" ".join(map(str, (CLASSES.index(label), *(outline if polygons else box)))))
        put(folder / f"{name}.txt", "\n".join(rows))
    return folder


def problem(data: Pictures, code: str) -> tuple[str, str, bool]:
    """The picture and object of the only problem of a kind, its words, and whether it is kept."""
    (only,) = [p for p in data.problems if p.code == code]
    return f"{only.picture} {only.thing}".strip(), str(only), only.kept


def same(data: Pictures, boxes: dict = BOXES) -> None:
    assert [p.name for p in data.pictures] == [f"images/{name}.png" for name in boxes]
    for p, listed in zip(data.pictures, boxes.values(), strict=True):
        truth = p.boxes
        assert truth is not None
        assert truth.size == SIZE
        assert truth.boxes.dtype == torch.float32
        assert torch.allclose(truth.boxes, torch.tensor([b for _, b in listed], dtype=torch.float32).view(-1, 4))
        assert [data.objects[k] for k in truth.labels.tolist()] == [label for label, _ in listed]
        assert p.regions is not None
        assert [r.label for r in p.regions] == [label for label, _ in listed]


# Boxes in every format ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "polygons"])
def test_the_same_boxes_in_every_format_are_the_same(form: str, root: Path) -> None:
    if form == "coco":
        coco(root / "annotations/all.json")
    elif form == "voc":
        voc(root / "annotations")
    else:
        yolo(root / "labels", polygons=form == "polygons")
    data = open_boxes(root)
    same(data)
    assert data.objects == (("dog", "person", "toothbrush") if form == "voc" else CLASSES)
    assert not data.broken
    assert not data.problems
    assert any("1 of the pictures have no object" in n for n in data.notes)


def test_ids_with_gaps_become_numbers_by_the_list_of_categories(root: Path) -> None:
    data = open_boxes(root, coco(root / "x.json"))
    assert data.pictures[0].boxes is not None
    assert data.pictures[0].boxes.labels.tolist() == [0, 2]
    chosen = open_boxes(root, root / "x.json", ["toothbrush", "person"])
    assert chosen.pictures[0].boxes is not None
    assert chosen.pictures[0].boxes.labels.tolist() == [1, 0]
    assert problem(chosen, "unknown-class")[0] == "images/c.png annotation 103"
    assert "images/c.png" in [p.name for p in chosen.pictures]  # its dog was not asked for: it is background
    with pytest.raises(Refused, match=r"name 'dog' twice: name each class once"):
        open_boxes(root, root / "x.json", ["dog", "dog"])


def test_names_are_given_by_number_or_in_order(root: Path) -> None:
    (yolo(root / "labels") / "classes.txt").unlink()
    for labels in ({2: "toothbrush", 0: "person", 1: "dog"}, CLASSES, put(root / "names.txt", "\n".join(CLASSES))):
        data = open_boxes(root, labels=labels)
        assert data.objects == CLASSES
        same(data)
    assert open_boxes(root).objects == ("0", "1", "2")
    assert any("3 classes go by their numbers (0, 1, 2)" in n for n in open_boxes(root).notes)


def test_crowds_areas_and_difficult_objects_are_kept_as_they_are_stated(root: Path) -> None:
    data = open_boxes(root, coco(root / "x.json", iscrowd=1, area=12.5, segmentation=[[0, 0, 9, 0, 9, 9]]))
    truth = data.pictures[0].boxes
    assert truth is not None
    assert truth.crowd.tolist() == [True, True]
    assert truth.area.tolist() == [12.5, 12.5]
    same(data)  # the box as it is written, not that around the outline
    folder = voc(root / "voc")
    file = folder / "a.xml"
    file.write_text(file.read_text().replace("<name>toothbrush", "<difficult>1</difficult><name>toothbrush"))
    truth = open_boxes(root, folder).pictures[0].boxes
    assert truth is not None
    assert truth.difficult.tolist() == [False, True]
    assert truth.area.tolist() == [400, 240]
    assert truth.keep(truth.difficult).names == ("object 2 (toothbrush)",)


def test_a_box_around_an_outline_where_there_is_no_box(root: Path) -> None:
    file = coco(root / "x.json")
    data = json.loads(file.read_text())
    for o in data["annotations"]:
        x, y, w, h = o.pop("bbox")
        o["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    inside = np.zeros((40, 60), np.uint8, order="F")
    inside[5:25, 10:13] = 1
    rle = cocomask.encode(inside)
    data["annotations"][3]["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    put(file, json.dumps(data))
    same(open_boxes(root, file))


def test_an_object_of_several_parts_has_one_box_around_them(root: Path) -> None:
    corners = [[[4, 11], [10, 20]], [[15, 25], [24, 31]]]
    shapes = [{"label": "dog", "points": c, "shape_type": "rectangle", "group_id": 1} for c in corners]
    put(root / "annotations/a.json", json.dumps({"version": "6.3.1", "shapes": shapes, "imagePath": "a.png"}))
    truth = open_boxes(root).pictures[0].boxes
    assert truth is not None
    assert truth.boxes.tolist() == [[4, 11, 24, 31]]


def test_boxes_lie_in_the_picture_as_people_see_it(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60)).save(root / "images/a.jpg", exif=exif)
    (root / "images/a.png").unlink()
    file = put(root / "x.json", coco(root / "x.json").read_text().replace("a.png", "a.jpg"))
    data = open_boxes(root, file)
    assert data.pictures[0].boxes is not None
    assert data.pictures[0].boxes.size == (60, 40)
    lying = json.loads(file.read_text())
    lying["images"][0] |= {"width": 40, "height": 60}
    data = open_boxes(root, put(file, json.dumps(lying)))
    assert (
        "annotated at 40 x 60 pixels, but the picture, upright, has 60 x 40; perhaps it was annotated before"
        in (problem(data, "size")[1])
    )
    assert [name for name, _ in data.broken] == ["images/a.jpg"]  # not a picture of background


def test_coco_agrees_with_pycocotools(root: Path) -> None:
    file = coco(root / "x.json", iscrowd=0)
    peer = COCO(str(file))
    data = open_boxes(root, file)
    order = sorted(peer.getCatIds())
    for number, p in enumerate(data.pictures):
        theirs = peer.loadAnns(peer.getAnnIds(imgIds=[number]))
        assert p.boxes is not None
        xywh = torch.cat([p.boxes.boxes[:, :2], p.boxes.boxes[:, 2:] - p.boxes.boxes[:, :2]], 1)
        assert xywh.tolist() == [[float(n) for n in o["bbox"]] for o in theirs]
        assert p.boxes.labels.tolist() == [order.index(o["category_id"]) for o in theirs]


# Bad input ------------------------------------------------------------------------------------------------------------


def with_box(root: Path, bad: tuple[float, float, float, float], label: str = "dog") -> Pictures:
    """c.png with a good box and a bad one."""
    return open_boxes(root, coco(root / "x.json", BOXES | {"c": [*BOXES["c"], (label, bad)]}))


@pytest.mark.parametrize(
    ("bad", "code", "kept", "words"),
    [
        ((20, 5, 20, 25), "no-area", False, "at 20, 5, 20, 25: a box of 0 x 20 pixels has no area"),
        ((30, 30, 20, 25), "no-area", False, "-10 x -5 pixels has no area; perhaps its corners are swapped"),
        ((70, 5, 80, 25), "outside", False, "it lies outside the picture of 60 x 40 pixels"),
        ((50, 5, 70, 25), "beyond", True, "it sticks out of the picture of 60 x 40 pixels by 10, cut off at the edge"),
        ((20, 5, 21, 6), "one-pixel", True, "it has 1 x 1 pixels, perhaps a click without a drag"),
        ((10, 5, 13, 24.5), "duplicate", True, "it lies on annotation 103 of the same class"),
        ((float("nan"), 5, 13, 24.5), "damaged", False, "a coordinate that is not a number"),
        ((1e9, 5, 2e9, 24.5), "damaged", False, "far outside the picture"),
    ],
)
def test_a_bad_box_is_named(
    bad: tuple[float, float, float, float], code: str, kept: bool, words: str, root: Path
) -> None:
    data = with_box(root, bad)
    where, text, used = problem(data, code)
    assert where == "images/c.png annotation 104"
    assert words in text
    assert used == kept
    truth = data.pictures[2].boxes
    assert truth is not None
    assert len(truth) == 1 + kept
    assert len(data.problems) == 1
    if code == "beyond":
        assert truth.boxes[1].tolist() == [50, 5, 60, 25]
    (note,) = [n for n in data.notes if "annotation 104" in n]
    assert ("used, but to look at" if kept else "left out") in note


def test_a_box_of_another_class_or_of_a_crowd_is_no_duplicate(root: Path) -> None:
    assert not with_box(root, (10, 5, 13, 25), "person").problems
    crowded = BOXES | {"c": [*BOXES["c"], *BOXES["c"]]}
    assert not open_boxes(root, coco(root / "x.json", crowded, iscrowd=1)).problems


def test_an_unknown_class_is_named_with_the_nearest(root: Path) -> None:
    data = with_box(root, (20, 5, 30, 25), "cow")
    assert "class '7' is none of the 3 classes" in problem(data, "unknown-class")[1]
    folder = voc(root / "voc", BOXES | {"c": [("dgo", (10, 5, 13, 25))]})
    assert "did you mean dog?" in problem(open_boxes(root, folder, CLASSES), "unknown-class")[1]


def test_annotations_without_pictures_and_pictures_without_annotations(root: Path) -> None:
    picture(root / "images/e.png")
    data = open_boxes(root, coco(root / "x.json", BOXES | {"gone": [("dog", (1, 2, 9, 9))]}))
    assert problem(data, "no-picture")[0] == "gone.png"
    assert [p.name for p in data.pictures if p.boxes is not None and not len(p.boxes)] == [
        "images/d.png",
        "images/e.png",
    ]
    assert any("1 of those have no annotation: images/e.png" in n for n in data.notes)


def test_a_picture_whose_only_box_is_bad_is_not_background(root: Path) -> None:
    data = open_boxes(root, coco(root / "x.json", BOXES | {"c": [("dog", (70, 5, 80, 25))]}))
    assert [p.name for p in data.pictures] == ["images/a.png", "images/b.png", "images/d.png"]
    ((name, why),) = data.broken
    assert name == "images/c.png"
    assert "annotation 103 at 70, 5, 80, 25: it lies outside" in why


def test_an_error_where_no_box_is_left(root: Path) -> None:
    with pytest.raises(Refused, match=r"hold no box that can be used: images/a.png annotation 100 at .*no area"):
        open_boxes(root, coco(root / "x.json", {"a": [("dog", (9, 9, 9, 9))]}))
    with pytest.raises(Refused, match="fit no picture"):
        open_boxes(root, coco(root / "x.json", {"other": BOXES["a"]}))
    with pytest.raises(Refused, match="no annotations in"):
        open_boxes(root / "images")


def test_other_units_are_pointed_at(root: Path) -> None:
    small = {name: [(k, tuple(n / 60 for n in box)) for k, box in listed] for name, listed in BOXES.items()}
    with pytest.raises(Refused, match=r"all 4 boxes of COCO .* between 0 and 1, .*fractions of the picture, but COCO"):
        open_boxes(root, coco(root / "x.json", small))
    corners = {"a": [("dog", (20, 10, 20 + 50, 10 + 35)), ("dog", (5, 5, 5 + 30, 5 + 30))]}
    words = problem(open_boxes(root, coco(root / "x.json", corners)), "beyond")[1]
    assert "every box of the set would fit if its width and height were its far corner (x0, y0, x1, y1)" in words
    wide = {"a": [("dog", (30, 20, 25, 15)), ("dog", (1, 2, 9, 9))]}
    words = problem(open_boxes(root, voc(root / "voc", wide), voc_base=0), "no-area")[1]
    assert "its corners are swapped, or 25 and 15 are its width and height" in words
    put(root / "yolo/a.txt", "0 20 30 10 10\n0 0.5 0.5 0.1 0.1")
    words = problem(open_boxes(root, root / "yolo", ["dog"]), "unreadable")[1]
    assert "line 1: coordinates above 1.5, up to 30, but YOLO takes fractions of the picture; perhaps they are per" in (
        words
    )


def test_signs_of_counting_from_one_and_of_per_cent(root: Path) -> None:
    boxes = {"a": [("dog", (1, 1, 61, 9)), ("dog", (5, 5, 9, 9))]}
    data = open_boxes(root, coco(root / "x.json", boxes))
    where, words, _ = problem(data, "one-based")
    assert where == "images/a.png annotation 100"
    assert "perhaps they count from 1" in words
    assert data.pictures[0].boxes is not None
    assert data.pictures[0].boxes.boxes[0].tolist() == [1, 1, 60, 9]  # said, not shifted
    picture(root / "images/large.png", (400, 300))
    listed = [("dog", (9 * k, 5, 9 * k + 9, 25 + 7 * k)) for k in range(10)]
    file = coco(root / "x.json", {"large": listed})
    file.write_text(file.read_text().replace('"width": 60, "height": 40', '"width": 400, "height": 300'))
    assert "perhaps they are per cent" in problem(open_boxes(root, file), "per-cent")[1]


def test_voc_is_shifted_as_the_set_shows_or_as_the_user_says(root: Path) -> None:
    listed = {"a": [("dog", (1, 1, 60, 40)), ("dog", (3.0, 4.0, 9.0, 9.0))]}
    folder = voc(root / "voc", listed)
    first = [open_boxes(root, folder, voc_base=base).pictures[0].boxes for base in (None, 0, 1)]
    assert [t.boxes[0].tolist() for t in first if t is not None] == [[0, 0, 60, 40], [1, 1, 60, 40], [0, 0, 60, 40]]
    assert any("taken as counted from 1" in n for n in open_boxes(root, folder).notes)
    half = voc(root / "half", {"a": [("dog", (1.5, 1, 60, 40))]})
    truth = open_boxes(root, half).pictures[0].boxes
    assert truth is not None
    assert truth.boxes[0].tolist() == [1.5, 1, 60, 40]  # fractions count from 0


# Splits ---------------------------------------------------------------------------------------------------------------


def test_splits_of_json_files_and_of_folders(root: Path) -> None:
    names = list(BOXES)
    for part, chosen in (("train2017", names[:2]), ("val2017", names[2:])):
        coco(root / f"annotations/instances_{part}.json", {name: BOXES[name] for name in chosen})
    data = open_boxes(root, split="all")
    assert [p.split for p in data.pictures] == ["train", "train", "val", "val"]
    assert [p.name for p in open_boxes(root).pictures] == ["images/c.png", "images/d.png"]
    assert [p.name for p in open_boxes(root, split="train").pictures] == ["images/a.png", "images/b.png"]
    with pytest.raises(Refused, match="split 'test'"):
        open_boxes(root, split="test")


def test_ultralytics_and_roboflow_folders(tmp_path: Path) -> None:
    put(tmp_path / "data.yaml", "names: [person, dog, toothbrush]\ntrain: ../train/images\n")
    for part, chosen in (("train", ["a", "b"]), ("valid", ["c", "d"])):
        for name in chosen:
            picture(tmp_path / part / "images" / f"{name}.png")
        yolo(tmp_path / part / "labels", boxes={name: BOXES[name] for name in chosen})
        (tmp_path / part / "labels/classes.txt").unlink()
    data = open_boxes(tmp_path, split="all")
    assert data.objects == CLASSES
    assert [p.split for p in data.pictures] == ["train", "train", "valid", "valid"]
    assert [p.boxes.labels.tolist() for p in data.pictures if p.boxes is not None] == [[0, 2], [0], [1], []]


def test_division_keeps_every_class_and_background_in_each_part_and_groups_whole(root: Path) -> None:
    boxes = {}
    for k in range(40):
        name = f"p{k:02}"
        picture(root / "images" / f"{name}.png")
        rare = [("dog", (1, 2, 30, 30))] if k % 5 == 0 else []
        boxes[name] = [] if k % 4 == 3 and not rare else [("person", (4, 4, 20, 20)), *rare]
    for name in BOXES:
        (root / "images" / f"{name}.png").unlink()
    data = open_boxes(root, coco(root / "x.json", boxes))
    shown = [{*p.boxes.labels.tolist()} for p in data.pictures]
    names = strata(shown, data.objects)
    assert [name == "dog" for name in names] == [k % 5 == 0 for k in range(40)]
    assert names.count("no object") == 8
    groups = [k // 2 for k in range(40)]
    divided = divide(shown, names, groups, (0.5, 0.25, 0.25), seed=3)
    for part in ("train", "val", "test"):
        assert {n for n, p in zip(names, divided, strict=True) if p == part} == {"dog", "person", "no object"}
    assert divided[::2] == divided[1::2]


@pytest.mark.parametrize("seed", range(3))
def test_where_most_classes_are_on_one_picture_val_and_test_have_their_shares_all_the_same(seed: int) -> None:
    """As in a small part of COCO: 30 of 60 pictures have a class of their own beside the common two."""
    shown = [{0, 2 + k} for k in range(30)] + [{1} if k % 3 else {0, 1} for k in range(30)]
    groups = [*range(30), *(30 + k // 2 for k in range(30))]
    names = strata(shown, [str(k) for k in range(32)])
    parts = divide(shown, names, groups, seed=seed)
    assert split(names, groups, seed=seed).count("train") > 49
    assert [parts.count(p) for p in ("val", "test")] == [8, 8]
    assert {*parts[:30]} == {"train"}  # what is shown once is learned
    assert parts[30::2] == parts[31::2]
    assert parts == divide(shown, names, groups, seed=seed)
    assert {divide(shown, names, groups, seed=s) == parts for s in range(3)} == {True, False}
    few = divide(shown[:40], names[:40], range(40), (0.4, 0.3, 0.3), seed=seed)  # more is asked for than can be spared
    assert {*few[:30]} == {"train"}
    assert 9 <= few.count("val") + few.count("test") <= 10


def test_near_duplicates_stay_together(root: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"b{k:02}" for k in range(12)]
    for name in BOXES:
        (root / "images" / f"{name}.png").unlink()
    for name in names:
        noise = rng.integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(noise).resize((120, 80)).save(root / "images" / f"{name}.png")
    Image.open(root / "images/b00.png").convert("RGB").save(root / "images/b11.png")
    yolo(root / "labels", boxes=dict.fromkeys(names, BOXES["b"]))
    groups = likenesses(open_boxes(root).pictures).groups
    for seed in range(4):
        parts = divide([{0}] * 12, ["person"] * 12, groups, (0.5, 0.25, 0.25), seed=seed)
        assert parts[0] == parts[11]
        assert len({*parts}) == 3


# Class maps -----------------------------------------------------------------------------------------------------------


def numbers(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 2, 255], (40, 60)).astype(np.uint8)


def save_map(file: Path, values: np.ndarray, form: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if form == "palette":
        image = image.copy()
        image.putpalette([(37 * k) % 256 for k in range(768)])
        assert image.mode == "P"
    elif form == "16 bits":
        image = Image.fromarray(values.astype(np.uint16))
    elif form == "grey as RGB":
        image = image.convert("RGB")
    image.save(file)


@pytest.mark.parametrize("form", ["grey", "palette", "16 bits", "grey as RGB"])
def test_numbers_in_png_are_classes(form: str, root: Path) -> None:
    save_map(root / "masks/a.png", numbers(), form)
    put(root / "masks/classes.txt", "background\nperson\ndog")
    data = open_masks(root)
    assert data.objects == ("background", "person", "dog")
    (only,) = data.pictures
    assert only.name == "images/a.png"
    assert only.pixels is not None
    classes = pickle.loads(pickle.dumps(only.pixels))()  # as a worker of a loader has it
    assert classes.dtype == torch.int64
    assert np.array_equal(classes.numpy(), numbers())
    assert any("3 pictures without a map are left out" in n for n in data.notes)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_not_stretched(bits: int, tmp_path: Path) -> None:
    values = np.arange(16).reshape(2, 8) % 2**bits
    rows = [b"\0" + np.packbits(np.unpackbits(r.astype(np.uint8)[:, None], 1)[:, -bits:]).tobytes() for r in values]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    assert open_classes(tmp_path / "x.png").tolist() == values.tolist()


def test_numbers_with_gaps_and_numbers_that_are_no_class(root: Path) -> None:
    save_map(root / "masks/a.png", np.where(numbers() == 2, 90, numbers()).astype(np.uint8), "grey")
    labels = {0: "unlabeled", 1: "person", 90: "toothbrush"}
    data = open_masks(root, labels=labels)
    pixels = data.pictures[0].pixels
    assert data.objects == ("person", "toothbrush")
    assert pixels is not None
    expected = np.select([numbers() == 1, numbers() == 2], [0, 1], 255)
    assert np.array_equal(pixels().numpy(), expected)
    assert not pixels.read().problems
    short = open_masks(root, labels=["background", "person"]).pictures[0].pixels
    assert short is not None
    assert short.read().problems == ("a.png holds the numbers 90, which are no classes: not judged",)
    assert (short()[torch.from_numpy(numbers() == 2)] == 255).all()
    nameless = open_masks(root)
    assert nameless.objects == ("0", "1", "90")
    assert any("3 classes go by their numbers (0, 1, 90)" in n for n in nameless.notes)


def test_maps_that_are_no_class_numbers_are_refused(root: Path) -> None:
    save_map(root / "masks/a.png", np.where(numbers() == 1, 255, 0).astype(np.uint8), "grey")
    with pytest.raises(Refused, match=r"0 and 255 alone.*labels=\{0: 'background', 255: 'object'\}"):
        open_masks(root)
    pixels = open_masks(root, labels={0: "background", 255: "object"}).pictures[0].pixels
    assert pixels is not None
    assert np.array_equal(pixels().numpy(), numbers() == 1)
    Image.new("RGB", SIZE, (200, 0, 0)).save(root / "masks/a.png")
    colours = open_masks(root, labels=["x", "y"]).pictures[0].pixels
    assert colours is not None
    with pytest.raises(Refused, match=r"masks/a.png: its pixels are colours \(RGB\).*panoptic PNGs need their JSON"):
        colours()
    (root / "masks/a.png").unlink()
    Image.new("L", SIZE, 1).save(root / "masks/a.jpg")
    lossy = open_masks(root, labels=["x", "y"]).pictures[0].pixels
    assert lossy is not None
    with pytest.raises(Refused, match="JPEG changes the numbers"):
        lossy()
    save_map(root / "masks/b.png", numbers()[:20], "grey")
    data = open_masks(root, labels=["x", "y", "z"])
    assert "mask b.png has 60 x 20 pixels, but the picture, upright, has 60 x 40" in dict(data.broken)["images/b.png"]


def runs(inside: np.ndarray, form: str) -> object:
    if form == "text":
        rle = cocomask.encode(np.asfortranarray(inside.astype(np.uint8)))
        return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    edges = np.flatnonzero(np.diff(inside.ravel(order="F").astype(int), prepend=0, append=-1))
    return {"size": list(inside.shape), "counts": np.diff(edges, prepend=0).tolist()}


@pytest.mark.parametrize("form", ["text", "list"])
def test_run_lengths_become_classes(form: str, root: Path) -> None:
    dog, person = np.zeros((2, 40, 60), bool)
    dog[3:20, 7:30], person[10:40, 20:50] = True, True
    data = json.loads(coco(root / "x.json", {"a": [("dog", (7, 3, 30, 20)), ("person", (20, 10, 50, 40))]}).read_text())
    for o, inside in zip(data["annotations"], (dog, person), strict=True):
        o["segmentation"] = runs(inside, form)
    opened = open_masks(root, put(root / "x.json", json.dumps(data)))
    assert opened.objects == ("background", *CLASSES)
    (only,) = opened.pictures
    assert only.pixels is not None
    expected = np.select([dog & person, dog, person], [255, 2, 1], 0)  # what two classes share is not judged
    assert np.array_equal(only.pixels().numpy(), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(only.pixels))().numpy(), expected)


def test_polygons_become_the_pixels_whose_centres_they_hold_as_in_pycocotools(root: Path) -> None:
    corners = [4.0, 30.0, 30.0, 3.0, 55.0, 20.0, 33.0, 37.0]
    data = json.loads(coco(root / "x.json", {"a": [("dog", (4, 3, 55, 37))]}).read_text())
    data["annotations"][0]["segmentation"] = [corners]
    pixels = open_masks(root, put(root / "x.json", json.dumps(data))).pictures[0].pixels
    assert pixels is not None
    ours = (pixels() == 2).numpy()
    theirs = cocomask.decode(cocomask.merge(cocomask.frPyObjects([corners], 40, 60))).astype(bool)
    border = theirs & ~(np.roll(theirs, 1, 0) & np.roll(theirs, -1, 0) & np.roll(theirs, 1, 1) & np.roll(theirs, -1, 1))
    outer = border | np.roll(border, 1, 0) | np.roll(border, -1, 0) | np.roll(border, 1, 1) | np.roll(border, -1, 1)
    assert not (ours ^ theirs)[~outer].any()
    x, y = np.array(corners[::2]), np.array(corners[1::2])
    assert abs(ours.sum() - abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2) < 15


def test_the_inside_of_a_box_without_an_outline_is_not_judged(root: Path) -> None:
    pixels = open_masks(root, coco(root / "x.json", {"a": BOXES["a"]})).pictures[0].pixels
    assert pixels is not None
    classes = pixels()
    assert (classes[11:31, 4:24] == 255).all()
    assert (classes == 255).sum() == 20 * 20 + 20 * 12
    assert "has only a box" in pixels.read().problems[0]


def test_panoptic_maps_are_ids_of_colours(root: Path) -> None:
    ids = np.zeros((40, 60), np.int64)
    ids[:10], ids[20:] = 70000, 5
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    (root / "panoptic").mkdir()
    Image.fromarray(colours).save(root / "panoptic/a.png")
    segments = [{"id": 70000, "category_id": 90}, {"id": 5, "category_id": 1}]
    listed = {
        "images": [{"id": 3, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": number, "name": name} for name, number in IDS.items()],
    }
    data = open_masks(root, put(root / "panoptic.json", json.dumps(listed)))
    pixels = data.pictures[0].pixels
    assert data.objects == CLASSES
    assert pixels is not None
    assert np.array_equal(pixels().numpy(), np.select([ids == 70000, ids == 5], [2, 0], 255))


# Data check -----------------------------------------------------------------------------------------------------------


def test_data_check_lists_what_is_wrong_with_boxes_and_maps(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name in BOXES:
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(root / "images" / f"{name}.png")
    checked = check_data(with_box(root, (70, 5, 80, 25)))
    (flaw,) = [f for f in checked.flaws if f.name == "boxes outside their picture"]
    assert flaw.wrong
    assert flaw.names == ("images/c.png",)
    assert flaw.tables[0].rows[0]["object"] == "annotation 104"
    assert flaw.tables[0].rows[0]["box"] == "70, 5, 80, 25"
    assert [one.boxes for one in flaw.shown] == [((70, 5, 80, 25),)]
    drawn = Flaw("one", 1, "one", shown=(replace(flaw.shown[0], boxes=((15, 10, 45, 30), (1e9, 0, 2e9, 9))),))
    (shown,) = page("x", [drawn]).blocks[0].shown
    with Image.open(io.BytesIO(shown.figure.data)) as image:  # 176 pixels for 60
        orange = (np.asarray(image.convert("RGB")) == (208, 117, 12)).all(-1)
    assert orange[29, 48:128].all()
    assert orange[33:84, 44].all()
    assert not orange[36:80, 50:126].any()
    (counts,) = [f for f in checked.flaws if f.name == "objects"]
    assert counts.n == 4
    assert [row["boxes"] for row in counts.tables[0].rows] == [2, 1, 1]
    assert "unlabelled" not in {f.name for f in checked.flaws}
    save_map(root / "masks/a.png", numbers(), "grey")
    flaws = {f.name: f for f in check_data(open_masks(root, labels=["x", "y"])).flaws}
    assert "a.png holds the numbers 2" in str(flaws["doubtful class maps"].tables[0].rows[0]["what"])


def test_the_command_line_checks_boxes(root: Path) -> None:
    folder = voc(root / "annotations", BOXES | {"c": [("dog", (70, 5, 80, 25)), ("dog", (10, 5, 13, 25))]})
    typed = ["data", "check", str(root), "--boxes", str(folder), "--voc-base", "0", "--json", "-o", str(root / "out")]
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 0, result.output
    found = {f["name"]: f for f in json.loads(result.stdout)["found"]}
    assert found["boxes outside their picture"]["tables"][0]["rows"][0]["box"] == "70, 5, 80, 25"
    refused = CliRunner().invoke(app, [*typed, "--masks", str(folder)])
    assert "boxes and masks are both given" in str(refused.exception)


# Real data ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "det_bccd").is_dir(), reason="no shared data")
def test_blood_cells() -> None:
    data = open_boxes(SHARED / "det_bccd", voc_base=0)
    assert len(data.pictures) == 120
    assert {p.boxes.size for p in data.pictures if p.boxes is not None} == {(640, 480)}
    labels = torch.cat([p.boxes.labels for p in data.pictures if p.boxes is not None])
    text = "".join(file.read_text() for file in (SHARED / "det_bccd/annotations").glob("*.xml"))
    written = {name: text.count(f"<name>{name}</name>") for name in data.objects}
    assert dict(zip(data.objects, labels.bincount().tolist(), strict=True)) == written
    assert len(labels) == 1870
    assert data.pictures[0].boxes is not None
    assert data.pictures[0].boxes.boxes[0].tolist() == [260, 177, 491, 376]
    assert {p.code for p in data.problems} == {"duplicate"}


@pytest.mark.skipif(not (SHARED / "coco_masks").is_dir(), reason="no shared data")
def test_coco_photos_say_the_same_in_each_format() -> None:
    root = SHARED / "coco_masks"
    boxes = open_boxes(root, root / "boxes_yolo", root / "object_detection.yaml")
    outlines = open_boxes(root, root / "polygons_yolo", root / "instance_segmentation.yaml")
    assert len(boxes.pictures) == 53
    assert boxes.objects == outlines.objects
    assert len(boxes.objects) == 80
    for p, q in zip(boxes.pictures[:10], outlines.pictures[:10], strict=True):
        assert p.boxes is not None
        assert q.boxes is not None
        sides = [t.labels.tolist() for t in (p.boxes, q.boxes)]
        assert set(sides[0]) == set(sides[1])
    semantic = open_masks(root, root / "semantic", root / "semantic_segmentation.yaml")
    panoptic = open_masks(root, root / "panoptic_val2017.json")
    by_name = {p.name: p for p in semantic.pictures}
    for p in panoptic.pictures[:5]:
        q = by_name[p.name]
        assert p.pixels is not None
        assert q.pixels is not None
        ours, theirs = p.pixels(), q.pixels()
        judged = (ours != 255) & (theirs != 255)
        assert judged.float().mean() > 0.5
        assert [panoptic.objects[k] for k in ours[judged].unique().tolist()] == [
            semantic.objects[k] for k in theirs[judged].unique().tolist()
        ]
        table = torch.tensor([semantic.objects.index(n) if n in semantic.objects else 254 for n in panoptic.objects])
        assert torch.equal(table[ours[judged]], theirs[judged])
        assert torch.equal(ours == 255, theirs == 255)
