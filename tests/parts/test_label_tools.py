"""Annotations as Label Studio and LabelMe write them: each object is a region or named, and each mask is exact."""

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from brushes import rle_of
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotation_formats import label_studio_names
from clearsight.data.annotation_formats.brush_rle import decode
from clearsight.data.annotation_formats.outlines import ellipse, png_pixels, turned_box
from clearsight.data.annotations import Annotations, Region, read_boxes, region_mask
from clearsight.errors import Refused

FILES = Path(__file__).parents[1] / "files" / "label_tools"
WIDE, HIGH = 60, 40


def as_it_is(wide: int, high: int) -> Preprocess:
    """A model whose input has the very pixels of the picture."""
    return Preprocess((high, wide), (0.5,) * 3, (0.5,) * 3)


def pictures(folder: Path, *names: str, size: tuple[int, int] = (WIDE, HIGH)) -> dict[str, Path]:
    files = {name: folder / "pictures" / name for name in names}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(file)
    return files


def pixels(regions: Any, size: tuple[int, int] = (WIDE, HIGH)) -> NDArray[np.bool_]:
    return region_mask(regions, size, as_it_is(*size)).numpy()


def grown(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that are inside and all beside them."""
    ways = [(down, along) for down in (-1, 0, 1) for along in (-1, 0, 1)]
    return np.logical_or.reduce([np.roll(inside, way, (0, 1)) for way in ways])


def drawn(rows: list[str]) -> NDArray[np.bool_]:
    return np.array([[letter == "#" for letter in row] for row in rows])


# ---- brush masks


@pytest.mark.parametrize("written", json.loads((FILES / "brush.json").read_text()), ids=lambda w: str(w["size"]))
def test_a_brush_that_label_studios_own_encoder_wrote_is_its_mask(written: dict[str, Any]) -> None:
    wide, high = written["size"]
    true = drawn(written["rows"]) if written["rows"] else np.zeros((high, wide), bool)
    assert np.array_equal(decode(written["rle"], (wide, high)), true)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_a_brush_is_where_alpha_is_not_zero_whatever_the_stream(seed: int, literal: bool) -> None:
    rng = np.random.default_rng(seed)
    wide, high = rng.integers(1, 40, 2).tolist()
    rgba = (
        rng.integers(0, 3, (high, wide, 4)).astype(np.uint8) * 85 * rng.integers(0, 2, (high, wide, 1), dtype=np.uint8)
    )
    classes = ((3, 4, 8, 16), (3, 5, 9, 12), (4, 4, 4, 16))[seed % 3]
    rle = rle_of(rgba.ravel(), literal, classes, word=8 if seed % 2 else 13)
    assert np.array_equal(decode(rle, (wide, high)), rgba[..., 3] != 0)


def test_a_broken_brush_is_refused_by_name_and_takes_no_memory() -> None:
    rle = rle_of(np.full(4 * 12, 255, np.uint8), literal=False)
    for what, bad, size in [
        ("ends before", rle[:-1], (3, 4)),
        ("ends before", [], (3, 4)),
        ("holds 48 values, not 4 for each of 4 x 4", rle, (4, 4)),
        ("runs beyond", rle_of(np.full(4 * 12, 255, np.uint8), False)[:7] + [0xFF] * 20, (3, 4)),
        ("goes on after", [*rle, 0, 1], (3, 4)),
        ("goes on after", [*rle, *[0] * 9], (3, 4)),
        ("not a list of bytes", [*rle[:-1], 256], (3, 4)),
        ("not a list of bytes", [*rle[:-1], "0"], (3, 4)),
        ("not a list of bytes", "abc", (3, 4)),
        ("not a list of bytes", {"0": 1}, (3, 4)),
        ("holds 4294967295 values", [255] * 30, (3, 4)),
        ("more than 179 million", rle, (100_000, 100_000)),
    ]:
        start = time.perf_counter()
        with pytest.raises(Refused, match=what):
            decode(bad, size)
        assert time.perf_counter() - start < 1, what


# ---- shapes


@pytest.mark.parametrize(
    ("x", "y", "r"), [(20, 20, 1), (20, 20, 4), (20, 20, 5), (20, 20, 13), (3, 35, 9), (20, 20, 300)]
)
def test_a_circle_holds_exactly_the_centres_within_its_radius(x: int, y: int, r: int) -> None:
    size = (40, 40) if r < 100 else (700, 700)
    x, y = (x, y) if r < 100 else (350, 350)
    at = np.arange(size[0]) + 0.5
    true = (at[None] - x) ** 2 + (at[:, None] - y) ** 2 < r * r
    assert np.array_equal(pixels(Region(polygons=(ellipse((x, y), (r, r)),)), size), true)
    if r == 4:
        assert true.sum() == 52  # by hand: 4 x (4 + 4 + 3 + 2) of the quarter


def test_a_turned_ellipse_holds_the_centres_that_its_equation_does() -> None:
    at = np.arange(60) + 0.5
    for degrees in (0, 30, 90, 205.5, -17):
        turned = np.exp(-1j * np.radians(degrees)) * ((at[None] - 29.3) + 1j * (at[:, None] - 30.7))
        true = (turned.real / 21) ** 2 + (turned.imag / 9) ** 2 < 1
        assert np.array_equal(pixels(Region(polygons=(ellipse((29.3, 30.7), (21, 9), degrees),)), (60, 60)), true), (
            degrees
        )


def test_a_box_turns_clockwise_about_its_upper_left_corner() -> None:
    corners = np.array(turned_box((30, 5), (20, 10), np.degrees(np.arctan2(3, 4))))
    assert np.allclose(corners, [[30, 5], [46, 17], [40, 25], [24, 13]])


# ---- Label Studio


def box(kind: str = "rectanglelabels", label: str = "cat", **more: Any) -> dict[str, Any]:
    """A result: a box of 15 x 10 pixels from (6, 4) in a picture of 60 x 40."""
    value = {"x": 10, "y": 10, "width": 25, "height": 25, "rotation": 0, kind: [label]}
    about = {"type": kind, "to_name": "image", "from_name": "label", "image_rotation": 0}
    return about | {"original_width": WIDE, "original_height": HIGH, "value": value} | more


BOX = (6.0, 4.0, 21.0, 14.0)


def task(picture: str | dict[str, Any], *results: Any, **annotation: Any) -> dict[str, Any]:
    data = {"image": picture} if isinstance(picture, str) else picture
    return {"id": 1, "data": data, "annotations": [{"id": 1, "result": list(results)} | annotation]}


def studio(folder: Path, tasks: Any, *names: str) -> Annotations:
    file = folder / "export.json"
    file.write_text(json.dumps(tasks))
    return read_boxes(file, pictures(folder, *names))


def same(regions: tuple[Region, ...], *boxes: tuple[float, ...]) -> bool:
    got = [region.boxes for region in regions]
    return len(got) == len(boxes) and all(np.allclose(g, [b]) for g, b in zip(got, boxes, strict=True))


@pytest.mark.parametrize("name", ["label_studio.json", "label_studio_min.json"])
def test_what_the_sdk_of_label_studio_wrote_is_read_whole(name: str, tmp_path: Path) -> None:
    names = ("photos/a.jpg", "photos/empty.jpg", "b.jpg", "photos/c.jpg", "d.jpg")
    read = read_boxes(FILES / name, pictures(tmp_path, *names))
    assert (read.form, read.unmatched) == ("Label Studio", ())
    assert set(read.regions) == {"photos/a.jpg", "photos/empty.jpg", "b.jpg"}
    assert read.regions["photos/empty.jpg"] == ()
    a = read.regions["photos/a.jpg"]
    assert same(a[:2], (4, 11, 24, 31), (40, 0, 60, 12))
    assert [region.label for region in a] == ["cat", "dog", "dog"]
    assert np.allclose(a[2].polygons, [[(40, 0), (60, 0), (60, 12), (40, 12)]])
    brush, turned = read.regions["b.jpg"]
    true = np.zeros((HIGH, WIDE), bool)
    true[10:20, 30:45] = True
    true[13, 33:36] = False
    true[39, 59] = True
    assert np.array_equal(pixels(brush), true)
    assert (brush.label, turned.label) == ("cat", "dog")
    assert np.allclose(turned.polygons, [[(30, 5), (46, 17), (40, 25), (24, 13)]])
    said = "1 Label Studio tasks are not annotated: photos/c.jpg"
    if name == "label_studio.json":
        assert "1 Label Studio tasks were cancelled, so their pictures count as not annotated: x/d.jpg" in read.notes
    assert said in read.notes
    assert len(read.notes) == (2 if name == "label_studio.json" else 1)


def test_the_ground_truth_else_the_latest_annotation_is_used(tmp_path: Path) -> None:
    old, new = box(label="old"), box(label="new")
    for which, annotations in {
        "new": [
            {"id": 3, "result": [new], "updated_at": "2026-02-01T00:00:00Z"},
            {"id": 5, "result": [old], "updated_at": "2026-01-01T00:00:00Z"},
        ],
        "old": [
            {"id": 3, "result": [new], "updated_at": "2026-02-01T00:00:00Z"},
            {"id": 2, "result": [old], "updated_at": "2026-01-01T00:00:00Z", "ground_truth": True},
        ],
    }.items():
        read = studio(tmp_path, [{"id": 1, "data": {"image": "a.jpg"}, "annotations": annotations}], "a.jpg")
        assert [region.label for region in read.regions["a.jpg"]] == [which]
        assert read.notes == (
            "1 Label Studio tasks have several annotations; ground truth, else the latest change, is used: a.jpg",
        )
    cancelled = [{"id": 9, "result": [new], "was_cancelled": True}, {"id": 1, "result": [old]}]
    read = studio(tmp_path, [{"id": 1, "data": {"image": "a.jpg"}, "completions": cancelled}], "a.jpg")
    assert ([region.label for region in read.regions["a.jpg"]], read.notes) == (["old"], ())
    rows = [
        {"image": "a.jpg", "id": 1, "label": [box()["value"] | {"rectanglelabels": [word]}], "annotator": 1}
        for word in "on"
    ]
    rows = [row | {"annotation_id": k, "updated_at": f"2026-0{3 - k}-01"} for k, row in enumerate(rows, 1)]
    read = studio(tmp_path, rows, "a.jpg")
    assert [region.label for region in read.regions["a.jpg"]] == ["o"]
    assert "have several annotations" in read.notes[0]


def test_who_is_not_annotated_says_nothing_and_an_empty_annotation_says_that_nothing_is_there(tmp_path: Path) -> None:
    tasks = [
        task("a.jpg", box()),
        task("b.jpg") | {"id": 2},
        {"id": 3, "data": {"image": "c.jpg"}, "annotations": [], "predictions": [{"result": [box()]}]},
        {"id": 4, "data": {"image": "d.jpg"}, "annotations": [], "drafts": [{"result": [box()]}]},
    ]
    read = studio(tmp_path, tasks, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    assert {name: len(regions) for name, regions in read.regions.items()} == {"a.jpg": 1, "b.jpg": 0}
    assert [note.rpartition(": ")[2] for note in read.notes] == ["c.jpg", "d.jpg"]
    assert "only predictions" in read.notes[0]
    assert "not annotated" in read.notes[1]
    with pytest.raises(Refused, match=r"cannot be used: c.jpg \(tasks have only predictions"):
        studio(tmp_path, tasks[2:], "a.jpg", "c.jpg", "d.jpg")


def test_the_pictures_of_label_studio_find_the_users_files(tmp_path: Path) -> None:
    for address, name in [
        ("/data/upload/1/abcd1234-a.jpg", "a.jpg"),
        ("/data/upload/1/abcd1234-a.jpg", "abcd1234-a.jpg"),
        ("/data/upload/abcd1234-a%20b.jpg", "a b.jpg"),
        ("/data/local-files/?d=photos/x.jpg", "photos/x.jpg"),
        ("/data/local-files/?d=photos%5Cx.jpg", "photos/x.jpg"),
        ("http://localhost:8080/data/local-files/?d=x.jpg", "deep/x.jpg"),
        ("https://host/bucket/x.jpg?X-Signature=ab/c.jpg&e=3", "x.jpg"),
        ("s3://bucket/photos/x.jpg", "photos/x.jpg"),
        ("gs://bucket/x%23.jpg", "x#.jpg"),
        ("100%25 off?.jpg", "100%25 off?.jpg"),
        (r"C:\pictures\x.jpg", "x.jpg"),
        ("http://[x/y.jpg", "y.jpg"),
    ]:
        read = studio(tmp_path, [task(address, box())], name, "other.jpg")
        assert same(read.regions[name], BOX), address
    both = studio(tmp_path, [task("/data/upload/1/abcd1234-a.jpg", box())], "abcd1234-a.jpg", "a.jpg")
    assert set(both.regions) == {"abcd1234-a.jpg"}  # the name as it is comes first
    with pytest.raises(Refused, match=r"fits several pictures, one/a.jpg, two/a.jpg"):
        studio(tmp_path, [task("/data/upload/1/abcd1234-a.jpg", box())], "one/a.jpg", "two/a.jpg")
    with pytest.raises(Refused, match=r"both fit a.jpg"):
        studio(tmp_path, [task(f"{n}bcd1234-a.jpg", box()) | {"id": n} for n in (1, 2)], "a.jpg")
    assert label_studio_names.file_names("/data/local-files/?d=photos%2Fa%20b.jpg") == ("photos/a b.jpg",)
    assert label_studio_names.file_names("12345678-12345678-a.jpg")[-1] == "12345678-a.jpg"


def test_what_is_no_area_is_named_and_all_are_counted(tmp_path: Path) -> None:
    size = {"original_width": WIDE, "original_height": HIGH}
    odd = [
        {"id": "k", "type": "keypointlabels", "value": {"x": 1, "y": 2, "width": 1, "keypointlabels": ["eye"]}, **size},
        {"id": "c", "type": "choices", "value": {"choices": ["cat"]}},
        {"id": "t", "type": "labels", "value": {"start": 0, "end": 4, "text": "word", "labels": ["x"]}},
        {"id": "v", "type": "videorectangle", "value": {"sequence": [{"x": 1, "y": 1, "frame": 1}], "labels": ["x"]}},
        {"id": "p", "type": "polygonlabels", "value": {"points": [[0, 0], [9, 9]], "polygonlabels": ["x"]}, **size},
        {"id": "o", "type": "polygon", "value": {"points": [[0, 0], [9, 9], [0, 9]], "closed": False}, **size},
        {"id": "w", "type": "vectorlabels", "value": {"vertices": [], "vectorlabels": ["x"]}, **size},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        {"id": "b", "type": "brushlabels", "value": {"format": "rle", "rle": [0, 1], "brushlabels": ["x"]}, **size},
        "text",
        {"id": "s"} | box(original_width=30),
        {"id": "n"} | box(original_width="wide"),
        {"id": "z", "type": "rectangle", "value": {"x": 5, "y": 5, "width": -1, "height": 5}, **size},
    ]
    read = studio(tmp_path, [task("a.jpg", {"id": "good"} | box(), *odd)], "a.jpg")
    assert same(read.regions["a.jpg"], BOX)
    (note,) = read.notes
    assert note.startswith(f"{len(odd)} Label Studio regions left out")  # objects in = regions + named
    alone = studio(tmp_path, [task("a.jpg", box()), task("b.jpg", odd[1]) | {"id": 2}], "a.jpg", "b.jpg")
    assert set(alone.regions) == {"a.jpg"}  # a choice does not say that nothing is there
    assert alone.notes == (
        "1 Label Studio regions left out: b.jpg (choices: it describes the whole picture, not a part of it)",
    )
    text = {"id": 2, "data": {"text": "words"}, "annotations": [{"id": 1, "result": [odd[2]]}]}
    with pytest.raises(Refused, match=r"cannot be used: words .labels: it annotates a text or a sound"):
        studio(tmp_path, [text], "a.jpg")


def test_results_of_one_id_are_one_region(tmp_path: Path) -> None:
    value = box()["value"]
    bare = {key: value[key] for key in ("x", "y", "width", "height", "rotation")}
    sizes = {"original_width": WIDE, "original_height": HIGH}
    kinds: dict[str, Any] = {"rectangle": {}, "labels": {"labels": ["cat", "pet"]}, "choices": {"choices": ["lying"]}}
    results = [{"id": "r", "type": kind, "value": bare | more} | sizes for kind, more in kinds.items()]
    read = studio(tmp_path, [task("a.jpg", *results)], "a.jpg")
    assert same(read.regions["a.jpg"], BOX)
    assert read.regions["a.jpg"][0].label == "cat"
    assert read.notes == (
        "2 remarks on Label Studio annotations: a.jpg (rectangle: of its labels cat, pet the first is used), "
        "a.jpg (choices: it describes a region further, and is not read)",
    )
    small = {"image": "a.jpg", "id": 1, "bbox": [bare | sizes] * 2, "label": [bare | sizes | {"labels": ["cat"]}]}
    read = studio(tmp_path, [small | {"transcription": ["w1", "w2"], "annotator": 1, "lead_time": 1.0}], "a.jpg")
    assert [region.label for region in read.regions["a.jpg"]] == ["cat", None]  # two boxes of one place stay two
    assert read.notes[-1].startswith(
        "2 Label Studio regions left out: a.jpg (choices or text of transcription: it describes"
    )


def test_an_ellipse_turns_about_its_centre_and_fills_what_its_equation_does(tmp_path: Path) -> None:
    value = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 20, "rotation": 30, "ellipselabels": ["disc"]}
    result = {"type": "ellipselabels", "value": value, "original_width": WIDE, "original_height": HIGH}
    (region,) = studio(tmp_path, [task("a.jpg", result)], "a.jpg").regions["a.jpg"]
    x, y = np.arange(WIDE) + 0.5 - 30, np.arange(HIGH) + 0.5 - 20
    along = np.exp(-1j * np.radians(30)) * (x[None] + 1j * y[:, None])
    assert np.array_equal(pixels(region), (along.real / 15) ** 2 + (along.imag / 8) ** 2 < 1)


def test_a_bitmask_is_where_its_png_is_not_clear(tmp_path: Path) -> None:
    true = np.random.default_rng(5).random((HIGH, WIDE)) < 0.3
    black = np.zeros((HIGH, WIDE, 4), np.uint8)
    black[..., 3] = true * 255
    file = io.BytesIO()
    Image.fromarray(black).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    result = {"type": "bitmasklabels", "value": {"imageDataURL": url, "bitmasklabels": ["x"]}}
    read = studio(tmp_path, [task("a.jpg", result | {"original_width": WIDE, "original_height": HIGH})], "a.jpg")
    assert np.array_equal(pixels(read.regions["a.jpg"]), true)
    with pytest.raises(Refused, match="original_width and original_height are missing"):
        studio(tmp_path, [task("a.jpg", result)], "a.jpg")
    with pytest.raises(Refused, match="60 x 40 pixels, not 40 x 60"):
        png_pixels(url.partition(",")[2], (HIGH, WIDE))


def test_several_pictures_of_a_task_are_told_apart(tmp_path: Path) -> None:
    data = {"left": "a.jpg", "right": "b.jpg"}
    results = [{"id": "1"} | box(to_name="left"), {"id": "2"} | box(to_name="right", label="dog")]
    read = studio(tmp_path, [task(data, *results)], "a.jpg", "b.jpg")
    assert {name: [r.label for r in regions] for name, regions in read.regions.items()} == {
        "a.jpg": ["cat"],
        "b.jpg": ["dog"],
    }
    pages = studio(tmp_path, [task({"pages": ["a.jpg", "b.jpg"]}, box(item_index=1))], "a.jpg", "b.jpg")
    assert {name: len(regions) for name, regions in pages.regions.items()} == {"a.jpg": 0, "b.jpg": 1}
    with pytest.raises(Refused, match="it does not say which of the task's pictures it is in"):
        studio(tmp_path, [task(data, box(to_name="img"))], "a.jpg", "b.jpg")
    with pytest.raises(Refused, match="it does not say which of the task's pictures it is in"):
        studio(tmp_path, [task({"pages": ["a.jpg", "b.jpg"]}, box(item_index=2))], "a.jpg", "b.jpg")
    marked = [box()["value"] | {"rectanglelabels": ["cat"]}]
    row = {"pages": ["a.jpg", "b.jpg"], "id": 1, "label": marked, "annotator": 1, "lead_time": 1.0}
    with pytest.raises(Refused, match="it does not say which of the task's pictures it is in"):
        studio(tmp_path, [row], "a.jpg", "b.jpg")  # JSON-MIN leaves the page out
    only = studio(tmp_path, [task({"image": "a.jpg", "source": "b.jpg"}, box())], "a.jpg", "b.jpg")
    assert set(only.regions) == {"a.jpg"}  # the other is a column of the data, which no tag is about
    empty = [task(data), task("a.jpg", box(to_name="img")) | {"id": 2}]
    assert "do not say which of them were annotated" in studio(tmp_path, empty, "a.jpg", "b.jpg").notes[0]


def test_without_a_stated_size_boxes_are_fractions_and_what_needs_pixels_is_named(tmp_path: Path) -> None:
    bare = {"type": "rectanglelabels", "value": {"x": 10, "y": 10, "width": 25, "height": 25, "rectanglelabels": ["a"]}}
    turned = {"type": "rectanglelabels", "value": bare["value"] | {"rotation": 20}}
    read = studio(tmp_path, [task("a.jpg", bare, turned)], "a.jpg")
    assert same(read.regions["a.jpg"], BOX)
    assert "original_width and original_height are missing, which its kind needs" in read.notes[0]
    with pytest.raises(Refused, match="annotated at 30 x 20 pixels, but the picture, upright, has 60 x 40"):
        studio(tmp_path, [task("a.jpg", box(original_width=30, original_height=20))], "a.jpg")
    read = studio(tmp_path, [task("a.jpg", box(image_rotation=90))], "a.jpg")
    assert same(read.regions["a.jpg"], BOX)
    assert "a.jpg (image_rotation 90, a turn in the tool's window: read as the picture lies" in read.notes[0]


def test_an_annotation_as_it_is_synced_to_a_storage_is_read_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "synced"
    folder.mkdir()
    for n, name in enumerate(("a.jpg", "b.jpg")):
        one = {
            "id": n,
            "result": [box()],
            "was_cancelled": False,
            "task": {"id": n, "data": {"image": f"s3://x/{name}"}},
        }
        (folder / f"{n}.json").write_text(json.dumps(one))
    read = read_boxes(folder, pictures(tmp_path, "a.jpg", "b.jpg"))
    assert (set(read.regions), read.notes) == ({"a.jpg", "b.jpg"}, ())


# ---- LabelMe


def labelme(folder: Path, shapes: Any, name: str = "a", **more: Any) -> Path:
    about = {"version": "6.3.1", "flags": {}, "imagePath": f"{name}.jpg", "imageData": None}
    about |= {"imageWidth": WIDE, "imageHeight": HIGH, "shapes": shapes}
    file = folder / "labels" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about | more))
    return file


def shape(kind: str | None, points: Any, label: Any = "cat", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def test_what_labelme_wrote_is_read_whole(tmp_path: Path) -> None:
    size = (30, 24)
    files = pictures(tmp_path, "photos/a.jpg", "b.jpg", size=size)
    read = read_boxes(FILES / "labelme.json", files)
    assert (read.form, read.unmatched, set(read.regions)) == ("LabelMe", (), {"photos/a.jpg"})
    regions = read.regions["photos/a.jpg"]
    assert [region.label for region in regions] == ["rect", "poly", "disc", "turned", "brush", "pair"]
    (flag, _) = read.notes
    assert flag == "1 remarks on LabelMe annotations: photos/a.jpg (the flag blurry of the picture is not read)"
    assert read.notes[1].startswith("4 LabelMe regions left out: photos/a.jpg (shape 8 (way): a line has no area)")
    written = json.loads((FILES / "labelme_masks.json").read_text())["masks"]
    theirs = {int(number): drawn(rows) for number, rows in written.items()}
    for number, region in enumerate(regions[:4]):  # labelme also paints what the outline touches, from pixel to pixel
        ours = pixels(region, size)
        assert 0 < ours.sum() < theirs[number].sum()
        assert not (ours & ~grown(theirs[number])).any()
        assert not (theirs[number] & ~grown(ours)).any()
    assert not (pixels(regions[0], size) & ~theirs[0]).any()
    assert (pixels(regions[0], size).sum(), theirs[0].sum()) == (12, 20)
    assert np.array_equal(pixels(regions[4], size), theirs[4])
    assert (len(regions[5].polygons), len(regions[5].boxes)) == (1, 1)
    assert pixels(regions[5], size).sum() == 3 * 4 + 4 * 4


def test_shapes_of_labelme_are_regions_or_named(tmp_path: Path) -> None:
    good = [
        shape("rectangle", [[9, 8], [3, 2]]),
        shape(None, [[0, 0], [9, 0], [0, 9]]),
        shape("circle", [[20, 20], [24, 20]]),
        shape("rotation", [[30, 5], [46, 17], [40, 25], [24, 13]]),
        shape("rectangle", [[3, 2], [9, 2], [9, 8], [3, 8]]),
        shape("polygon", [[50, 30], [58, 30], [58, 38]], label=7),
    ]
    bad = [
        shape("circle", [[1, 1]]),
        shape("rectangle", [[1, 1], [1, 9]]),
        shape("polygon", [[1, 1], [2, 2]]),
        shape("polygon", [[1, 1], [2, 2], [3]]),
        shape("polygon", [[1, 1], [2, None], [3, 3]]),
        shape("polygon", None),
        shape("oriented_rectangle", [[1, 1], [2, 2], [3, 3]]),
        shape("cuboid", [[1, 1]] * 8),
        shape("mask", [[1, 1], [2, 2]], mask="!!"),
        shape("mask", [[1, 1], [99, 2]], mask=""),
        shape("circle", [[5, 5], [5, 5]]),
        shape("circle", [[5, 5], [1e400, 5]]),
        "text",
        shape(["x"], [[1, 1]]),
    ]
    read = read_boxes(labelme(tmp_path, [*good, *bad]), pictures(tmp_path, "a.jpg"))
    assert len(read.regions["a.jpg"]) == len(good)
    assert pixels(read.regions["a.jpg"][2]).sum() == 52
    assert read.regions["a.jpg"][5].label == "7"
    assert read.notes[0].startswith(f"{len(bad)} LabelMe regions left out")


def test_a_group_of_labelme_is_one_region_of_one_label(tmp_path: Path) -> None:
    def crop(values: list[list[int]]) -> str:
        file = io.BytesIO()
        Image.fromarray(np.array(values, np.uint8)).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    shapes = [
        shape("mask", [[1, 1], [2, 2]], mask=crop([[0, 1], [1, 0]]), group_id=0),
        shape("mask", [[10, 1], [11, 1]], mask=crop([[9, 9]]), group_id=0),
        shape("point", [[1, 1]], group_id=0),
        shape("rectangle", [[3, 3], [5, 5]], group_id=0),
        shape("rectangle", [[30, 3], [35, 5]], "dog", group_id=0),
        shape("rectangle", [[40, 3], [45, 5]]),
        shape("rectangle", [[50, 3], [55, 5]]),
    ]
    read = read_boxes(labelme(tmp_path, shapes), pictures(tmp_path, "a.jpg"))
    first, *others = read.regions["a.jpg"]
    true = np.zeros((HIGH, WIDE), bool)
    true[1, 2] = true[2, 1] = True
    true[1, 10:12] = True
    true[3:5, 3:5] = True
    assert np.array_equal(pixels(first), true)
    assert [region.label for region in others] == ["dog", "cat", "cat"]
    assert read.notes == ("1 LabelMe regions left out: a.jpg (shape 3 (cat): a point has no area)",)


def test_labelme_finds_the_users_picture_and_not_the_copy_in_the_file(tmp_path: Path) -> None:
    copy = io.BytesIO()
    Image.new("RGB", (5, 5)).save(copy, "PNG")
    inside = base64.b64encode(copy.getvalue()).decode()
    files = pictures(tmp_path, "photos/a.jpg", "photos/deep/b.jpg", "c.jpg")
    for name, written in [("a", "../photos/a.jpg"), ("deep/b", "..\\..\\photos\\deep\\b.jpg"), ("c", "C:\\x\\c.jpg")]:
        labelme(tmp_path, [shape("rectangle", [[1, 1], [5, 5]])], name, imagePath=written, imageData=inside)
    read = read_boxes(tmp_path / "labels", files)
    assert (set(read.regions), read.notes) == (set(files), ())
    labelme(tmp_path, [], "empty", imagePath="nowhere.jpg")
    labelme(tmp_path, [], "c", imagePath="old-name.jpg")  # the picture and its file were given another name
    read = read_boxes(tmp_path / "labels", files)
    assert read.regions["c.jpg"] == ()
    assert read.unmatched == ("nowhere.jpg",)
    labelme(tmp_path, [shape("rectangle", [[1, 1], [5, 5]])], "a", imageWidth=5, imageHeight=5)
    read = read_boxes(tmp_path / "labels", files)
    assert "photos/a.jpg" not in read.regions
    assert "photos/a.jpg (annotated at 5 x 5 pixels, but the picture, upright, has 60 x 40)" in read.notes[0]


# ---- the older LabelMe


def test_the_xml_of_labelme_is_no_pascal_voc(tmp_path: Path) -> None:
    files = pictures(tmp_path, "a.jpg", "empty.jpg", size=(30, 20))
    for path in (FILES / "datumaro", FILES / "datumaro" / "Annotations" / "train"):
        read = read_boxes(path, files)
        assert (read.form, read.unmatched, read.notes) == ("LabelMe XML", (), ())
        assert read.regions["empty.jpg"] == ()
        box, first, second, mask = read.regions["a.jpg"]
        assert (box.boxes, box.label) == (((2.0, 3.0, 8.0, 7.0),), "cat")
        assert first.polygons == (((10.0, 10.0), (20.0, 10.5), (15.0, 18.0)),)
        assert (second.label, pixels(second, (30, 20)).sum()) == ("dog", 16)
        true = np.zeros((20, 30), bool)
        true[3:9, 11:20] = True
        true[5, 15] = False
        assert np.array_equal(pixels(mask, (30, 20)), true)


def test_objects_of_the_older_labelme_are_regions_or_named(tmp_path: Path) -> None:
    def polygon(*points: str) -> str:
        corners = "".join("<pt><x>{}</x><y>{}</y></pt>".format(*point.split(",")) for point in points)
        return f"<polygon>{corners}</polygon>"

    things = [
        "<name>cat\n</name><deleted>0</deleted>" + polygon("1,1", "5,1", "5,5"),
        "<name>gone</name><deleted>1</deleted>" + polygon("1,1", "5,1", "5,5"),
        "<name>few</name>" + polygon("1,1", "5,1"),
        "<name>odd</name>" + polygon("1,1", "5,x", "5,5"),
        "<name>none</name>",
        "<name>mask</name><segm><mask>no.png</mask></segm>",
        "<name>path</name><segm><mask>../../secret.png</mask></segm>",
        f"<name>long</name><segm><mask>{'x' * 400}.png</mask></segm>",
    ]
    file = tmp_path / "xml" / "a.xml"
    file.parent.mkdir()
    objects = "".join(f"<object>{thing}</object>" for thing in things)
    file.write_text(f"<annotation><filename>a.jpg</filename>{objects}</annotation>")
    read = read_boxes(file.parent, pictures(tmp_path, "a.jpg"))
    assert [(region.label, len(region.polygons)) for region in read.regions["a.jpg"]] == [("cat", 1)]
    (note,) = read.notes
    assert note.startswith(
        f"{len(things) - 1} LabelMe XML regions left out: a.jpg (object 2 (gone): it is marked as deleted)"
    )
    (file.parent / "b.xml").write_text(
        "<annotation><imagesize><nrows>7</nrows><ncols>9</ncols></imagesize></annotation>"
    )
    both = read_boxes(file.parent, pictures(tmp_path, "a.jpg", "b.jpg"))
    assert "b.jpg (annotated at 9 x 7 pixels, but the picture, upright, has 60 x 40)" in both.notes[0]


def test_pascal_voc_is_still_pascal_voc(tmp_path: Path) -> None:
    corners = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    points = "<x1>2</x1><y1>3</y1><x2>9</x2><y2>3</y2><x3>9</x3><y3>8</y3>"
    outline = f"<polygon>{points}</polygon>"  # Roboflow writes polygons so
    folder = tmp_path / "xml"
    folder.mkdir()
    (folder / "a.xml").write_text(f"<annotation><object><name>cat</name>{corners}{outline}</object></annotation>")
    (folder / "b.xml").write_text("<annotation><size><width>60</width><height>40</height></size></annotation>")
    read = read_boxes(folder, pictures(tmp_path, "a.jpg", "b.jpg"))
    assert (read.form, len(read.regions["a.jpg"]), read.regions["b.jpg"]) == ("Pascal VOC", 1, ())
