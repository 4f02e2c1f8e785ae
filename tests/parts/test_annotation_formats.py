"""What annotations really look like: every value of an unexpected kind is used rightly or named, never skipped."""

import doctest
import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as cocomask

from clearsight.core.preprocess import Preprocess
from clearsight.data.annotation_formats.regions import Mask, pixels_of
from clearsight.data.annotation_formats.rle import lengths, mask_of_rle
from clearsight.data.annotations import Annotations, Region, mask_of, read_boxes, region_mask
from clearsight.data.datasets import folder
from clearsight.errors import Refused

FILES = Path(__file__).parents[1] / "files" / "annotations"
SHARED = Path(__file__).parents[3] / "shared/data/coco_masks"
WHOLE = Preprocess((40, 60), (0.5,) * 3, (0.5,) * 3)  # the pictures' own pixels


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Pictures a.png and b.png of 60 x 40."""
    files = {name: tmp_path / "photos" / name for name in ("a.png", "b.png")}
    files["a.png"].parent.mkdir()
    for file in files.values():
        Image.new("RGB", (60, 40)).save(file)
    return files


def put(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def inside(regions: tuple[Region, ...]) -> np.ndarray:
    return region_mask(regions, (60, 40), WHOLE).numpy()


def filled(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    drawn = np.zeros((40, 60), dtype=bool)
    for x, y, u, v in boxes:
        drawn[y:v, x:u] = True
    return drawn


# COCO -----------------------------------------------------------------------------------------------------------------

GOOD = {"id": 1, "image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 9]}  # in b.png
PLACE = filled((5, 6, 15, 26))
RUNS = [5 * 40 + 6, *[20, 20] * 9, 20, 2400 - (14 * 40 + 26)]


def coco(pictures: dict[str, Path], about: dict[str, Any], **image: Any) -> Annotations:
    """An object with these values in a.png, whose entry has these too, beside a good one in b.png."""
    o = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [5, 6, 10, 20]} | about
    images = [{"id": 1, "file_name": "a.png"} | image, {"id": 2, "file_name": "b.png"}]
    held = {"images": images, "annotations": [GOOD, o], "categories": [{"id": 1, "name": "cat"}]}
    return read_boxes(put(pictures["a.png"].parents[1] / "x.json", json.dumps(held)), pictures)


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"bbox": ["5", "6.0", 10.0, " 20 "]},
        {"image_id": "1"},
        {"image_id": 1.0},
        {"category_id": "1"},
        {"category_id": 1.0},
        {"iscrowd": "1"},
        {"segmentation": None},
        {"segmentation": []},
        {"segmentation": [[]]},
        {"segmentation": {}},
        {"segmentation": [[5, 6, 15, 6, 15, 26, 5, 26]], "bbox": None},
        {"segmentation": [["5", "6", "15", "6", "15", "26", "5", "26"]], "bbox": {}},
        {"segmentation": [5, 6, 15, 6, 15, 26, 5, 26], "bbox": None},
        {"segmentation": {"counts": RUNS, "size": [40, 60]}, "bbox": None},
        {"segmentation": {"counts": [float(n) for n in RUNS], "size": ["40", 60.0]}, "iscrowd": 1},
        {"bbox_mode": 1},
    ],
)
def test_coco_values_of_another_kind_mean_the_same(pictures: dict[str, Path], about: dict[str, Any]) -> None:
    read = coco(pictures, about, width=60.0, height="40")
    assert np.array_equal(inside(read.regions["a.png"]), PLACE)
    assert [(r.label, r.numbered) for r in read.regions["a.png"]] == [("cat", False)]
    assert read.notes == ()


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"bbox": "5599"}, "annotation 5: bbox is not [x, y, width, height]"),
        ({"bbox": {"5": 1, "6": 1, "10": 1, "20": 1}}, "annotation 5: bbox is not"),
        ({"bbox": [5, 6, True, 20]}, "annotation 5: bbox is not"),
        ({"bbox": [5, 6, 10, 20, 9]}, "annotation 5: bbox is not"),
        ({"bbox": [5, 6, None, 20]}, "annotation 5: bbox is not"),
        ({"bbox": ["1_5", 6, 10, 20]}, "annotation 5: bbox is not"),
        ({"bbox": None}, "annotation 5: bbox is not"),
        ({"bbox": [5, 6, -10, 20]}, "annotation 5: a box of -10 x 20 pixels has no area"),
        ({"bbox": [float("nan"), 6, 10, 20]}, "annotation 5: a coordinate that is not a number"),
        ({"bbox": [1e300, 6, 10, 20]}, "annotation 5: a coordinate far outside the picture"),
        ({"bbox_mode": 0}, "annotation 5: bbox_mode 0 is not supported, only 1"),
        ({"id": None, "bbox": []}, "annotation None: bbox is not"),
        ({"bbox": None, "segmentation": "polygon"}, "annotation 5: a segmentation that is neither polygons nor an RLE"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "annotation 5: a polygon of 7 numbers"),
        ({"bbox": None, "segmentation": [{"x": 1}]}, "annotation 5: a polygon that is not a list of numbers"),
        ({"bbox": None, "segmentation": {"counts": 5, "size": [40, 60]}}, "annotation 5: RLE counts that are neither"),
        ({"bbox": None, "segmentation": {"counts": [2400]}}, "annotation 5: an RLE whose size is not [height, width]"),
        ({"bbox": None, "segmentation": {"counts": [2400], "size": [40, 60]}}, "annotation 5: an RLE that marks"),
        (
            {"bbox": None, "segmentation": {"counts": [9.5, 1], "size": [40, 60]}},
            "annotation 5: RLE counts that are not",
        ),
        ({"bbox": None, "segmentation": {"counts": [-9, 2409], "size": [40, 60]}}, "annotation 5: RLE counts that are"),
        ({"bbox": None, "segmentation": {"counts": [0, 1], "size": [1, 1]}}, "annotation 5: a mask of 1 x 1 pixels"),
        ({"bbox": None, "segmentation": {"counts": [1], "size": [10**9] * 2}}, "annotation 5: an RLE of more than"),
    ],
)
def test_coco_values_that_cannot_be_used_are_named(pictures: dict[str, Path], about: dict[str, Any], why: str) -> None:
    read = coco(pictures, about)
    assert "a.png" not in read.regions
    assert len(read.left_out) == 1
    assert read.left_out[0].startswith(f"a.png ({why}")
    assert read.notes == (f"1 COCO regions left out: {read.left_out[0]}",)


def test_a_size_that_is_not_the_pictures_is_seen_whatever_its_kind(pictures: dict[str, Path]) -> None:
    for wide in (30, 30.0, "30"):
        read = coco(pictures, {}, width=wide, height=20)
        assert read.left_out == ("a.png (annotated at 30 x 20 pixels, but the picture, upright, has 60 x 40)",)
    for wide in (0, -60, True, "60px", [60], 60.5, None, float("nan")):
        read = coco(pictures, {}, width=wide, height=40)
        assert np.array_equal(inside(read.regions["a.png"]), PLACE)
        assert "1 remarks on COCO annotations: a.png (its size is stated as" in read.notes[0], wide


def test_a_segmentation_that_cannot_be_read_leaves_its_box_and_says_so(pictures: dict[str, Path]) -> None:
    for shape in ("polygon", [[1, 2]], {"counts": "?" * 9, "size": [40, 60]}, {"counts": [1], "size": [40, 60]}, 7):
        read = coco(pictures, {"segmentation": shape})
        assert np.array_equal(inside(read.regions["a.png"]), PLACE)
        assert "a.png (annotation 5: its box is used, because its segmentation cannot be read: " in read.notes[0], shape
    half = coco(pictures, {"segmentation": [[5, 6, 15, 6, 15, 26, 5, 26], [1, 2]]})
    assert np.array_equal(inside(half.regions["a.png"]), PLACE)
    assert half.left_out == ("a.png (annotation 5: a polygon of fewer than 3 points)",)


def test_coco_categories_of_every_kind(tmp_path: Path, pictures: dict[str, Path]) -> None:
    def read(categories: Any, *kinds: Any) -> Annotations:
        objects = [GOOD | {"id": i, "category_id": k} for i, k in enumerate(kinds)]
        held = {"images": [{"id": 2, "file_name": "b.png"}], "annotations": objects, "categories": categories}
        return read_boxes(put(tmp_path / "x.json", json.dumps(held)), pictures)

    said = read([{"id": "7", "name": "cat"}, {"id": 8.0, "name": "dog"}, {"id": 9}, "bird"], 7, "8", 9, 10)
    assert [r.label for r in said.regions["b.png"]] == ["cat", "dog", "9", "10"]
    assert said.notes == (
        "2 COCO classes are named by their numbers (9, 10): its categories give them no name; "
        "2 categories are not {id, name}",
    )
    twice = read([{"id": 7, "name": "cat"}, {"id": "7", "name": "dog"}], 7)
    assert [(r.label, r.numbered) for r in twice.regions["b.png"]] == [("7", True)]
    assert "two names for 7" in twice.notes[0]
    for categories in ({"7": "cat"}, None, []):
        assert [(r.label, r.numbered) for r in read(categories, 7).regions["b.png"]] == [("7", True)]
    bare = read([{"id": 7, "name": "cat"}], 7, None)
    assert [r.label for r in bare.regions["b.png"]] == ["cat", None]
    assert bare.notes == ("1 COCO objects have no category: annotation 1",)


def test_ids_that_several_images_have_belong_to_none(tmp_path: Path, pictures: dict[str, Path]) -> None:
    def read(*images: dict[str, Any], of: Any) -> Annotations:
        objects = [GOOD | {"image_id": of, "id": 3}, GOOD | {"image_id": 5}]
        held = {"images": [*images, {"id": 5, "file_name": "b.png"}], "annotations": objects}
        return read_boxes(put(tmp_path / "x.json", json.dumps(held)), pictures | {"c.png": pictures["a.png"]})

    one = {"id": 1, "file_name": "a.png"}
    assert len(read(one, one, of=1).regions["a.png"]) == 1  # the same words twice are one image
    other = read(one, {"id": "1", "file_name": "c.png"}, of=1)
    assert set(other.regions) == {"b.png"}
    why = "annotation 3: several images have the id 1: a.png, c.png"
    assert other.left_out == (f"a.png ({why})", f"c.png ({why})")
    none = read({"file_name": "a.png"}, of=None)
    assert none.left_out == ("a.png (annotation 3: neither the image nor its annotations have an id)",)
    lost = read(one, of=9)
    assert lost.unmatched == ("image_id 9 of annotation 3",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"images": [], "annotations": [5]}', r"annotations\[0\] is 5, not an object"),
        ('{"images": [null], "annotations": []}', r"images\[0\] is None, not an object"),
        ('{"images": {}, "annotations": []}', "is not a COCO JSON with the lists images and annotations"),
        ('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "COCO results, which do not name pictures"),
        ('{"images": [], "images": [], "annotations": []}', "with a key twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_that_is_no_coco_is_refused(tmp_path: Path, pictures: dict[str, Path], text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read_boxes(put(tmp_path / "x.json", text), pictures)


# COCO's run lengths ---------------------------------------------------------------------------------------------------


def test_compressed_run_lengths_are_those_that_pycocotools_writes(pictures: dict[str, Path]) -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        drawn = rng.random(rng.integers(1, 40, 2)) < rng.random()
        if drawn.any():
            written = cocomask.encode(np.asfortranarray(drawn.astype(np.uint8)))
            for counts in (written["counts"], written["counts"].decode()):
                assert mask_of_rle(counts, list(drawn.shape)) == mask_of(drawn)
            assert sum(lengths(written["counts"].decode(), drawn.size)[1::2]) == drawn.sum()
    counts = cocomask.encode(np.asfortranarray(PLACE.astype(np.uint8)))["counts"].decode()
    read = coco(pictures, {"segmentation": {"counts": counts, "size": [40, 60]}, "bbox": None})
    assert np.array_equal(inside(read.regions["a.png"]), PLACE)
    assert read.notes == ()


def test_run_lengths_by_hand() -> None:
    """Down the columns, outside first: 1 outside, 3 inside of 2 x 2.  Then one that has a difference and a sign."""
    assert pixels_of(mask_of_rle("13", [2, 2])).tolist() == [[False, True], [True, True]]
    assert pixels_of(mask_of_rle([1, 3], [2, 2])).tolist() == [[False, True], [True, True]]
    # 2 outside, 5 inside, 2 outside, then 3 as 3 - 5 = -2 = 11110 in 5 bits, which is "N"
    assert lengths("252N", 12) == [2, 5, 2, 3]
    # 100 = 3 * 32 + 4: the low bits 00100 with "another follows" (36), then 3; "0" + 36 = "T"
    assert lengths("T3", 100) == [100]


def test_damaged_run_lengths_are_refused_and_never_reach_c(pictures: dict[str, Path]) -> None:
    good = cocomask.encode(np.asfortranarray(PLACE.astype(np.uint8)))["counts"].decode()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(2000):
        text = list(good)
        for at in rng.integers(0, len(text), rng.integers(1, 4)):
            text[at] = chr(rng.integers(32, 128))
        try:
            held = mask_of_rle("".join(text), [40, 60])
        except Refused:
            refused += 1
        else:
            assert pixels_of(held).shape == (40, 60)
    assert refused > 1900
    for text in ("", "1", "o" * 50, "~~~", "ÿ", good[:-1], good + "0" * 9 + "1", "PPYo0"):
        with pytest.raises(Refused, match="RLE"):
            mask_of_rle(text, [40, 60])
    with pytest.raises(Refused, match="do not fill"):
        mask_of_rle(good, [60, 41])
    with pytest.raises(Refused, match="the character 's', which an RLE does not use"):
        mask_of_rle("1s", [2, 2])  # "s" has the low bits of "3", and "13" would fill it


# COCO's panoptic format -----------------------------------------------------------------------------------------------


def panoptic(place: Path, drawn: np.ndarray, segments: list[Any], where: str = "x", **about: Any) -> Path:
    """A panoptic JSON of a.png beside a good one of b.png, with PNGs in the folder."""
    for name, ids in (("a.png", drawn), ("b.png", np.full((40, 60), 70_000))):
        file = place / where / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(file)
    held = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 1, "file_name": "a.png", "segments_info": segments} | about,
            {"image_id": 2, "file_name": "b.png", "segments_info": [{"id": 70_000, "category_id": 9}]},
        ],
        "categories": [{"id": 3, "name": "cat", "isthing": 1}, {"id": 4, "name": "grass", "isthing": 0}],
    }
    return put(place / "x.json", json.dumps(held))


@pytest.mark.parametrize("where", ["x", ".", "panoptic"])
def test_panoptic_ids_are_red_and_green_and_blue(tmp_path: Path, pictures: dict[str, Path], where: str) -> None:
    ids = np.zeros((40, 60), int)
    ids[:, :20], ids[:10, 20:], ids[30:, 20:] = 5 + 7 * 256, 5 + 7 * 65536, 5
    segments = [
        {"id": 5 + 7 * 256, "category_id": 3, "iscrowd": 1, "area": 800},
        {"id": 5 + 7 * 65536, "category_id": "4", "area": 400.0},
        {"id": "5", "category_id": 4},
    ]
    read = read_boxes(panoptic(tmp_path, ids, segments, where), pictures)
    assert read.form == "COCO panoptic"
    assert [r.label for r in read.regions["a.png"]] == ["cat", "grass", "grass"]
    for region, box in zip(read.regions["a.png"], [(0, 0, 20, 40), (20, 0, 60, 10), (20, 30, 60, 40)], strict=True):
        assert np.array_equal(inside((region,)), filled(box))
    assert inside(read.regions["b.png"]).all()
    assert read.notes == ("1 COCO panoptic classes are named by their numbers (9): its categories give them no name",)


def test_panoptic_losses_are_named(tmp_path: Path, pictures: dict[str, Path]) -> None:
    ids = np.zeros((40, 60), int)
    ids[:, :20], ids[:10, 20:] = 5, 6
    segments = [{"id": 5, "category_id": 3, "area": 7}, {"id": 8}, {"id": 5}, "cat", {"id": -1}]
    read = read_boxes(panoptic(tmp_path, ids, segments), pictures)
    assert len(read.regions["a.png"]) == 1
    assert [why.removeprefix("a.png (").removesuffix(")") for why in read.left_out] == [
        "segment 8: no pixel has its id",
        "segment 5: another segment has the same id",
        "segment number 4: no pixel has its id",
        "segment -1: no pixel has its id",
        "a.png has pixels of ids that no segment has: 6",
    ]
    assert any("a.png (segment 5: its area is stated as 7, but it has 800 pixels)" in note for note in read.notes)
    for about, why in (
        ({"file_name": "c.png"}, "a.png (c.png: this PNG is neither beside the JSON nor in a folder x or panoptic"),
        ({"file_name": None}, "a.png (None: its annotation has no file_name of a PNG"),
        ({"segments_info": None}, "a.png (a.png has pixels of ids that no segment has: 5, 6)"),
        ({"image_id": 3}, "a.png (no annotation lists its segments)"),
    ):
        assert read_boxes(panoptic(tmp_path, ids, segments, **about), pictures).left_out[0].startswith(why)
    Image.new("L", (60, 40)).save(tmp_path / "x" / "a.png")
    panoptic_file = panoptic(tmp_path / "other", ids, segments)
    Image.new("L", (60, 40)).save(panoptic_file.parent / "x" / "a.png")
    assert "its pixels are L, and ids are colours of RGB" in read_boxes(panoptic_file, pictures).left_out[0]
    small = panoptic(tmp_path / "small", ids[:20], segments)
    assert "annotated at 60 x 20 pixels" in read_boxes(small, pictures).left_out[-1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
@pytest.mark.parametrize("part", ["train", "val"])
def test_panoptic_pictures_of_coco_have_the_stated_areas(part: str) -> None:
    path = SHARED / f"panoptic_{part}2017.json"
    held = json.loads(path.read_text())
    pictures = {p.name: p for p in (SHARED / "images").iterdir()}
    read = read_boxes(path, pictures)
    assert read.notes == ()
    name = {image["id"]: image["file_name"] for image in held["images"]}
    word = {c["id"]: c["name"] for c in held["categories"]}
    assert len(read.regions) == len(held["annotations"])
    for o in held["annotations"]:
        masks = [r.mask for r in read.regions[name[o["image_id"]]]]
        assert all(isinstance(mask, Mask) for mask in masks)
        areas = [int(pixels_of(mask).sum()) for mask in masks if isinstance(mask, Mask)]
        assert areas == [segment["area"] for segment in o["segments_info"]]
        labels = [r.label for r in read.regions[name[o["image_id"]]]]
        assert labels == [word[segment["category_id"]] for segment in o["segments_info"]]


# YOLO -----------------------------------------------------------------------------------------------------------------


def test_yolo_lines_of_every_length(tmp_path: Path, pictures: dict[str, Path]) -> None:
    corners = "0.1 0.1 0.4 0.1 0.4 0.6 0.1 0.6"  # 6 to 24 by 4 to 24
    lines = ["0 0.25 0.35 0.3 0.5", "0 0.25 0.35 0.3 0.5 0.87", f"0 {corners}", f"0 {corners} 0.87"]
    for line in lines:
        read = read_boxes(put(tmp_path / "labels" / "a.txt", "\ufeff" + line).parent, pictures)
        assert np.array_equal(inside(read.regions["a.png"]), filled((6, 4, 24, 24))), line
        said = [note for note in read.notes if "lines 1 hold a confidence, as predictions do" in note]
        assert len(said) == line.endswith("0.87")
    mixed = read_boxes(put(tmp_path / "labels" / "a.txt", "\n".join(lines)).parent, pictures)
    assert len(mixed.regions["a.png"]) == 4  # ultralytics drops the whole picture
    bad = ["1.7 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "0 0.5 0.5 0.1 0.1 1.9", "0 0.5 0.5 0.1 0_1", "0 0.5 0.5 -0.1 0.1"]
    read = read_boxes(put(tmp_path / "labels" / "a.txt", "\n".join([lines[0], *bad])).parent, pictures)
    assert len(read.regions["a.png"]) == 1
    assert [why.split(":")[0] for why in read.left_out] == [f"a.png (line {n}" for n in range(2, 7)]


def test_a_yolo_row_that_ends_like_a_picture_is_no_list_of_pictures(tmp_path: Path, pictures: dict[str, Path]) -> None:
    put(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1")
    read = read_boxes(put(tmp_path / "labels" / "b.txt", "0 0.5 0.5 0.1 x.png").parent, pictures)
    assert read.left_out[0].startswith("b.png (line 1: neither class")


def test_yolo_keypoints_are_never_corners_of_a_polygon(tmp_path: Path, pictures: dict[str, Path]) -> None:
    """As ultralytics has poses: class cx cy w h, then x, y (and whether it is seen) of each point."""
    box, two, three = "0 0.5 0.5 0.5 0.5", " 0.4 0.4 0.6 0.4 0.5 0.6", " 0.4 0.4 1 0.6 0.4 1 0.5 0.6 0"
    asked = {"names": ["man"], "kpt_shape": [3, 2]}
    for at, (line, yaml) in enumerate(
        [
            (box + two, asked),
            (box + two + " 0.9", asked),
            (box + three, asked | {"kpt_shape": [3, 3]}),
            (box + three, None),
            (box + " 0.4 0.4 2", None),
        ]
    ):
        labels = tmp_path / f"set{at}" / "labels"
        put(labels / "a.txt", line)
        if yaml:
            put(labels.parent / "data.yaml", json.dumps(yaml))
        for path in [labels] + ([labels.parent / "data.yaml"] if yaml else []):
            told = read_boxes(path, pictures)
            assert (inside(told.regions["a.png"]) == filled((15, 10, 45, 30))).all()
            assert any("a.png (lines 1 hold keypoints, of which only the box is read" in n for n in told.notes)
    put(tmp_path / "odd" / "a.txt", f"{box}\n{box} 0.1 0.2 0.3 0.4")
    put(tmp_path / "odd" / "data.yaml", json.dumps(asked))
    (why,) = read_boxes(tmp_path / "odd", pictures).left_out
    assert why == "a.png (line 2: 4 numbers after the box, but kpt_shape needs 6)"
    put(tmp_path / "polygon" / "a.txt", "0 0 0 1 0 1 1 0 1 0 0.5")  # five corners, most of them at the edge
    assert read_boxes(tmp_path / "polygon", pictures).regions["a.png"][0].polygons


def test_yolo_turned_boxes_are_their_polygon(tmp_path: Path, pictures: dict[str, Path]) -> None:
    diamond = "0 0.5 0 1 0.5 0.5 1 0 0.5"
    read = read_boxes(put(tmp_path / "labels" / "a.txt", diamond).parent, pictures)
    y, x = np.mgrid[:40, :60] + 0.5
    assert np.array_equal(inside(read.regions["a.png"]), np.abs(x - 30) / 30 + np.abs(y - 20) / 20 < 1)


def tree(root: Path) -> dict[str, Path]:
    """Pictures of the same names in train and val, with texts where ultralytics finds them: val has its own box."""
    for at, part in enumerate(("train", "val")):
        picture = root / "images" / part / "images" / "a.png"
        picture.parent.mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(picture)
        put(root / "images" / part / "labels" / "a.txt", f"{at} 0.5 0.5 1 {1 - at / 2}")
    return {str(p.relative_to(root)): p for p in sorted(root.rglob("*.png"))}


def test_yolo_texts_are_found_by_the_last_images(tmp_path: Path) -> None:
    pictures = tree(tmp_path)
    put(tmp_path / "data.yaml", "path: images\ntrain: train/images\nval: val/images\nnames: {'0': cat, 1: dog}")
    put(tmp_path / "train.txt", "./images/train/images/a.png\n")
    for path in (tmp_path, tmp_path / "images", tmp_path / "data.yaml"):
        read = read_boxes(path, pictures)
        labels = [read.regions[name][0].label for name in pictures]
        assert labels in (["cat", "dog"], ["0", "1"]), path
        assert [inside(read.regions[name]).sum() for name in pictures] == [2400, 1200]
        assert read.unmatched == ()
    read = read_boxes(tmp_path / "data.yaml", pictures)
    assert [read.regions[name][0].label for name in pictures] == ["cat", "dog"]
    assert read.notes == ()
    alone = read_boxes(tmp_path / "train.txt", pictures)
    assert list(alone.regions) == ["images/train/images/a.png"]


def test_a_yolo_text_of_two_pictures_is_refused(tmp_path: Path, pictures: dict[str, Path]) -> None:
    put(tmp_path / "photos" / "a.txt", "0 0.5 0.5 1 1")
    with pytest.raises(Refused, match=r"annotation 'a' fits several pictures, a.jpg, a.png: write the whole"):
        read_boxes(tmp_path / "photos", {"a.jpg": tmp_path / "photos" / "a.jpg"} | pictures)


def test_a_yolo_yaml_that_leads_nowhere_is_said(tmp_path: Path, pictures: dict[str, Path]) -> None:
    put(tmp_path / "set" / "labels" / "a.txt", "0 0.5 0.5 1 1")
    path = put(tmp_path / "set" / "data.yaml", "train: ../train/images\nval: [5, gone.txt]\nnames: [cat]")
    read = read_boxes(path, pictures)
    assert read.regions["a.png"][0].label == "cat"
    assert (
        read.notes[0]
        == "data.yaml names files or folders that do not exist: train: ../train/images, val: 5, val: gone.txt"
    )
    assert read.notes[1] == "the label files beside data.yaml are used, since it names none that exist"
    put(tmp_path / "set" / "train" / "images" / "x.png", "")
    put(tmp_path / "set" / "train" / "labels" / "b.txt", "0 0.5 0.5 1 1")
    assert list(read_boxes(path, pictures).regions) == ["b.png"]  # ../ is forgiven, as ultralytics does
    for text in ("- a\n- b", "services: {}", "", "names: [:::", "!!int ''", "a: &a [*a]"):
        with pytest.raises(Refused, match=r"is not the YAML of a YOLO dataset|cannot be read"):
            read_boxes(put(tmp_path / "set" / "data.yaml", text), pictures)


def test_yolo_names_wherever_they_are(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = put(tmp_path / "set" / "labels" / "a.txt", "0 0.5 0.5 1 1\n1 0.5 0.5 1 1").parent
    for name, text, labels in (
        ("classes.txt", "cat\ndog\n", ["cat", "dog"]),
        ("data.yaml", "names: [cat, dog]", ["cat", "dog"]),
        ("dataset.yaml", "names: {'0': cat, '1': dog}", ["cat", "dog"]),
        ("birds.yaml", "names: {0.0: cat, 1: 7}", ["cat", "7"]),
        ("birds.yml", "names: [cat, no]", ["cat", "1"]),
        ("obj.names", "cat\ndog", ["cat", "dog"]),
    ):
        file = put(where.parent / name, text)
        read = read_boxes(where, pictures)
        assert [r.label for r in read.regions["a.png"]] == labels, name
        assert (read.notes == ()) == (labels[1] != "1"), name
        file.unlink()
    put(where.parent / "a.yaml", "names: [cat, dog]")
    put(where.parent / "b.yaml", "names: [dog, cat]")
    put(where.parent / "docker.yaml", "services: [:::")
    read = read_boxes(where, pictures)
    assert [r.numbered for r in read.regions["a.png"]] == [True, True]
    assert "name them differently: keep one, or write classes.txt" in read.notes[0]
    put(where.parent / "data.yaml", "names: [cat, no]")
    assert "(1: False is not a number and a name: put names in quotes)" in read_boxes(where, pictures).notes[0]


# Pascal VOC -----------------------------------------------------------------------------------------------------------


def voc(place: Path, *files: str, size: str = "<size><width>60</width><height>40</height></size>") -> Path:
    """Files a.xml, b.xml with these objects."""
    for name, text in zip("ab", files, strict=False):
        put(place / f"{name}.xml", f"<annotation>{size}{text}</annotation>")
    return place


def thing(*corners: object, more: str = "") -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{n}</{tag}>" for tag, n in zip(tags, corners, strict=True))
    return f"<object><name>cat</name><bndbox>{box}</bndbox>{more}</object>"


LABELIMG = "; files of labelImg look the same, but count from 0"


@pytest.mark.parametrize(
    ("tool", "base", "why"),
    [
        ("datumaro-1.13.12", 0, "a corner below 1 in a"),
        ("label-studio-sdk-2.1.2", 0, "a corner below 1 in a"),
        ("supervision-0.31.2", 1, "whole numbers, none 0, and boxes that end with the picture in a" + LABELIMG),
        ("labelImg-1.8.6", 1, "whole numbers, none 0, and boxes that end with the picture in a" + LABELIMG),
    ],
)
def test_voc_of_real_tools_is_counted_as_the_set_shows(
    pictures: dict[str, Path], tool: str, base: int, why: str
) -> None:
    read = read_boxes(FILES / tool, pictures)
    assert read.notes == (
        f"Pascal VOC taken as counted from {base}: {why} (voc_base={1 - base}, --voc-base {1 - base} takes it from "
        f"{1 - base})",
    )
    (cat,), (dog,) = (r.boxes for r in read.regions["a.png"])
    # labelImg counts from 0 but writes 1 for 0, which looks as if counted from 1: its dog begins a pixel too early
    assert (cat, dog) == ((0, 0, 24, 31), (39 if tool.startswith("labelImg") else 40, 0, 60, 12))
    asked = read_boxes(FILES / tool, pictures, voc_base=base)
    assert (asked.regions, asked.notes) == (read.regions, ())
    other = read_boxes(FILES / tool, pictures, voc_base=1 - base)
    assert other.regions["a.png"][1].boxes[0][0] == dog[0] + (1 if base else -1)


@pytest.mark.parametrize(
    ("files", "base", "why"),
    [
        ([thing(5, 5, 9, 9)], 1, "no corner shows how it counts, and VOC's development kit counts from 1"),
        ([thing(5, 5, 60, 9)], 1, "whole numbers, none 0, and boxes that end with the picture in a"),
        ([thing(5, 5, 60, 9), thing(0, 5, 9, 9)], 0, "a corner below 1 in b"),
        ([thing(5, 5, 60, 9), thing(5, 5.5, 9, 9)], 0, "fractions in b"),
        ([thing(1, 5, 60, 9), thing(0, 5, 9, 9)], 0, "a corner below 1 in b; but a may count from 1, and would then"),
        ([thing(1, 5, 9, 9), thing(5, 5.5, 9, 9)], 1, "more files have whole numbers that begin at 1 (a)"),
        ([thing(5, 5, 9, 9) + thing("nan", 5, 9, 9)], 1, "no corner shows how it counts"),
    ],
)
def test_voc_base_is_decided_from_the_whole_set(
    tmp_path: Path, pictures: dict[str, Path], files: list[str], base: int, why: str
) -> None:
    read = read_boxes(voc(tmp_path / "voc", *files), pictures)
    assert read.notes[0].startswith(f"Pascal VOC taken as counted from {base}: {why}")
    x = read.regions["a.png"][0].boxes[0][0]
    assert x == (1 if ">1<" in files[0] else 5) - base


def test_voc_base_is_an_option_everywhere(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = voc(tmp_path / "voc", thing(5, 5, 9, 9))
    for base in (0, 1):
        found = folder(tmp_path / "photos", boxes=where, voc_base=base)
        assert found.pictures[0].regions == (Region(((5 - base, 5 - base, 9, 9),), label="cat"),)
    with pytest.raises(Refused, match="voc_base 2: give 0 or 1"):
        read_boxes(where, pictures, voc_base=2)
    with pytest.raises(Refused, match=r"voc_base is for Pascal VOC, but .* is YOLO: leave it out"):
        read_boxes(put(tmp_path / "yolo" / "a.txt", "0 0.5 0.5 1 1").parent, pictures, voc_base=0)
    with pytest.raises(Refused, match="voc_base is for boxes of Pascal VOC"):
        folder(tmp_path / "photos", voc_base=0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<object><name>cat</name></object>", "object 1 (cat): it has neither bndbox, robndbox nor polygon"),
        (thing(5, 5, 9, "x"), "object 1 (cat): its bndbox has no number ymax"),
        (thing(5, 5, 9, "1_0"), "object 1 (cat): its bndbox has no number ymax"),
        (thing(5, 5, 9, ""), "object 1 (cat): its bndbox has no number ymax"),
        (thing("nan", 5, 9, 9), "object 1 (cat): a coordinate that is not a number"),
        (thing(9, 5, 5, 9), "object 1 (cat): a box of -3 x 5 pixels has no area"),
        (thing(5, 5, 9, 9, more="<bndbox/>"), "object 1 (cat): more than one bndbox in object"),
        (thing(5, 5, 9, 9, more="<deleted>1</deleted>"), "object 1 (cat): it is marked as deleted"),
    ],
)
def test_voc_objects_that_cannot_be_used_are_named(
    tmp_path: Path, pictures: dict[str, Path], text: str, why: str
) -> None:
    read = read_boxes(voc(tmp_path / "voc", text, thing(5, 5, 9, 9)), pictures, voc_base=1)
    assert set(read.regions) == {"b.png"}
    assert read.left_out == (f"a.png ({why})",)


def test_voc_elements_in_any_order_and_of_other_kinds(tmp_path: Path, pictures: dict[str, Path]) -> None:
    box = "<xmin>5</xmin><xmax>15</xmax><ymin>6</ymin><ymax>26</ymax>"  # Roboflow's order
    plain = f"<object><bndbox>{box}</bndbox><name>cat</name></object>"
    corners = "<x1>5</x1><y1>6</y1><x2>15</x2><y2>6</y2><x3>15</x3><y3>26</y3><x4>5</x4><y4>26</y4>"
    roboflow = f"<object><name>cat</name><bndbox>{box}</bndbox><polygon>{corners}</polygon></object>"
    pts = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((5, 6), (15, 6), (15, 26), (5, 26)))
    labelme = f"<object><name>cat</name><deleted>0</deleted><polygon>{pts}</polygon></object>"
    turned = "<cx>10</cx><cy>16</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle>"
    rolabelimg = f"<object><type>robndbox</type><name>cat</name><robndbox>{turned}</robndbox></object>"
    for text in (plain, roboflow, labelme, rolabelimg):
        read = read_boxes(voc(tmp_path / "voc", text), pictures, voc_base=0)
        assert np.array_equal(inside(read.regions["a.png"]), PLACE), text
        assert read.notes == ()
    other = "<rotated><cx>1</cx></rotated>"
    read = read_boxes(voc(tmp_path / "voc", thing(5, 6, 15, 26, more=other)), pictures, voc_base=0)
    assert read.notes == ("1 remarks on Pascal VOC annotations: a.png (object 1 (cat): its <rotated> is not read)",)


def test_voc_boxes_that_cvat_turned(pictures: dict[str, Path]) -> None:
    """30 degrees about the centre, clockwise as it is seen: pixels counted by turning each back."""
    read = read_boxes(FILES / "datumaro-1.13.12-turned", pictures, voc_base=0)
    y, x = np.mgrid[:40, :60] + 0.5
    x, y = x - 20, y - 15
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    assert np.array_equal(
        inside(read.regions["a.png"]), (np.abs(cos * x + sin * y) < 10) & (np.abs(cos * y - sin * x) < 5)
    )


def test_voc_sizes_and_names(tmp_path: Path, pictures: dict[str, Path]) -> None:
    def read(size: str, text: str = thing(5, 5, 9, 9)) -> Annotations:
        return read_boxes(voc(tmp_path / "voc", text, size=size), pictures, voc_base=1)

    with pytest.raises(Refused, match="annotated at 30 x 30 pixels"):
        read("<size><width>30.0</width><height>30</height></size>")
    for wide in ("0", "60.5", "sixty", ""):
        notes = read(f"<size><width>{wide}</width><height>40</height></size>").notes
        assert "1 remarks on Pascal VOC annotations: a.png (its size is stated as" in notes[0]
    other = read("", f"<filename>b.png</filename>{thing(5, 5, 9, 9)}")
    assert list(other.regions) == ["a.png"]
    assert other.notes == ("1 remarks on Pascal VOC annotations: a.png (its annotation also names b.png)",)


# CSV and what tools wrote otherwise -----------------------------------------------------------------------------------


def test_csv_of_boxes_says_what_they_show_in_any_capitals(tmp_path: Path, pictures: dict[str, Path]) -> None:
    rows = "File,Box_X,box-y,BOX_W,box_h,Label\na.png,5,6,10,20,cat\na.png,0,0,4,4,7\na.png,0,0,5,5,\n"
    told = read_boxes(put(tmp_path / "x.csv", rows), pictures).regions["a.png"]
    assert [(r.label, r.numbered) for r in told] == [("cat", False), ("7", True), (None, False)]
    assert (inside(told[:1]) == PLACE).all()
    with pytest.raises(Refused, match="columns file, File, box_x"):
        read_boxes(put(tmp_path / "x.csv", "file,File,box_x,box_y,box_w,box_h\na.png,a.png,5,6,10,20\n"), pictures)


def test_csv_cells_that_cannot_be_used_are_named(tmp_path: Path, pictures: dict[str, Path]) -> None:
    rows = ["a.png,5,6,10,20", "a.png,5,6,ten,", "a.png,5,6,-1,2", "a.png,nan,6,1,2", ",1,2,3,4", "b.png,1_0,2,3,4"]
    read = read_boxes(put(tmp_path / "x.csv", "\n".join(["file,box_x,box_y,box_w,box_h", *rows])), pictures)
    assert np.array_equal(inside(read.regions["a.png"]), PLACE)
    assert read.unmatched == ("boxes without a file (5)",)
    assert read.left_out == (
        "a.png (box 2: box_w is ten, box_h is '', which is not a number)",
        "a.png (box 3: a box of -1 x 2 pixels has no area)",
        "a.png (box 4: a coordinate that is not a number)",
        "b.png (box 6: box_x is 1_0, which is not a number)",
    )


def test_one_file_that_is_of_another_format_says_so_not_that_its_name_fits_nothing(
    tmp_path: Path, pictures: dict[str, Path]
) -> None:
    cvat = '<annotations><image name="a.png"><box label="cat" xtl="1" ytl="1" xbr="9" ybr="9"/></image></annotations>'
    for name, text, why in (
        ("cvat.xml", cvat, "cvat.xml is CVAT for images, which is not read: export the task from CVAT as COCO"),
        ("other.xml", "<page/>", "other.xml is not Pascal VOC: its root is page"),
        ("gt.txt", "1,1,10,5,30,25,1,1,1", "gt .line 1: neither class cx cy w h"),
    ):
        with pytest.raises(Refused, match=f"cannot be used: .*{why}"):
            read_boxes(put(tmp_path / name, text), pictures)
    with pytest.raises(Refused, match="fit no picture: they name c"):
        read_boxes(put(tmp_path / "c.txt", "0 .5 .5 .5 .5"), pictures)


def test_pictures_that_lvis_names_by_their_address(tmp_path: Path, pictures: dict[str, Path]) -> None:
    image = {"id": 1, "coco_url": "http://images.cocodataset.org/train2017/a.png", "width": 60, "height": 40}
    held = {"images": [image], "annotations": [GOOD | {"image_id": 1, "bbox": [5, 6, 10, 20]}], "categories": []}
    told = read_boxes(put(tmp_path / "x.json", json.dumps(held)), pictures)
    assert (inside(told.regions["a.png"]) == PLACE).all()


def test_what_other_tools_wrote(pictures: dict[str, Path]) -> None:
    cat, dog = filled((0, 0, 24, 31)), filled((40, 0, 60, 12))
    for path in (FILES / "label-studio-sdk-2.1.2-coco.json", FILES / "datumaro-1.13.12-yolo"):
        read = read_boxes(path, pictures)
        assert [r.label for r in read.regions["a.png"]] == ["cat", "dog"]
        assert np.array_equal(inside(read.regions["a.png"]), cat | dog)
        assert (read.notes, read.unmatched) == ((), ())
    holed = filled((10, 5, 30, 20)) & ~filled((12, 8, 14, 10))
    read = read_boxes(FILES / "supervision-0.31.2-mask.json", pictures)
    assert np.array_equal(inside(read.regions["a.png"]), holed)
    read = read_boxes(FILES / "datumaro-1.13.12-panoptic.json", pictures)
    assert [r.label for r in read.regions["a.png"]] == ["cat", "dog"]
    for region, box in zip(read.regions["a.png"], [(10, 5, 30, 20), (0, 20, 60, 40)], strict=True):
        assert np.array_equal(inside((region,)), filled(box))


def test_a_text_that_cannot_be_read_is_named(
    tmp_path: Path, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = put(tmp_path / "labels" / "a.txt", "0 0.5 0.5 1 1").parent
    put(where / "b.txt", "0 0.5 0.5 1 1")
    (where / "b.txt").unlink()
    os.symlink(where / "nothing.txt", where / "b.txt")
    with pytest.raises(Refused, match=r"cannot read .*b.txt: No such file"):
        read_boxes(where, pictures)


@pytest.mark.parametrize("name", ["regions", "rle", "sheets", "yolo"])
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"clearsight.data.annotation_formats.{name}"))
    assert found.attempted
    assert not found.failed
