"""The same objects in every format are the same region, and lie where the picture's pixels are."""

import json
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from clearsight.core.preprocess import Preprocess
from clearsight.data.annotation_formats.regions import pixels_of
from clearsight.data.annotations import Annotations, Region, mask_of, of_label, read_boxes, read_table, region_mask
from clearsight.data.images import open_mask, open_picture, to_model, to_pixels
from clearsight.errors import Refused

HALF = ((0.5,) * 3, (0.5,) * 3)
SIZE = (60, 40)  # width, height
BOXES = {
    "a.jpg": [("cat", (4, 11, 24, 31)), ("dog", (40, 0, 60, 12))],
    "deep/b.jpg": [("cat", (0, 0, 60, 40))],
    "c.jpg": [],
}
ENDS_1 = (
    "Pascal VOC taken as counted from 1: whole numbers, none 0, and boxes that end with the picture in {}; "
    "files of labelImg look the same, but count from 0 (voc_base=0, --voc-base 0 takes it from 0)"
)
SETTINGS = [
    Preprocess((40, 60), *HALF),
    Preprocess((32, 32), *HALF),
    Preprocess((24, 24), *HALF, resize=32),
    Preprocess((20, 28), *HALF, "bicubic", resize=28),
    Preprocess((64, 48), *HALF, "nearest", resize=70),
]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / "pictures" / name for name in (*BOXES, "d.jpg")}
    for file in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(file)
    return files


def put(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def coco(folder: Path, shape: str = "bbox") -> Path:
    images, objects = [], []
    for number, (name, boxes) in enumerate(BOXES.items()):
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for label, (x, y, u, v) in boxes:
            full = np.zeros(SIZE, int)  # columns first, as COCO counts
            full[x:u, y:v] = 1
            edges = np.flatnonzero(np.diff(full.ravel(), prepend=0, append=-1))
            runs = {"size": [SIZE[1], SIZE[0]], "counts": np.diff(edges, prepend=0).tolist()}
            form = {"bbox": None, "polygon": [[x, y, u, y, u, v, x, v]], "rle": runs}[shape]
            about = {"image_id": number, "category_id": 7 if label == "cat" else 8, "bbox": [x, y, u - x, v - y]}
            objects.append(about | ({"segmentation": form} if form else {}))
    categories = [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]
    return put(
        folder / f"{shape}.json", json.dumps({"images": images, "annotations": objects, "categories": categories})
    )


def voc(folder: Path) -> Path:
    for name, boxes in BOXES.items():
        corners = "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
        objects = "".join(
            f"<object><name>{label}</name><bndbox>{corners.format(x + 1, y + 1, u, v)}</bndbox></object>"
            for label, (x, y, u, v) in boxes
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        put((folder / "voc" / name).with_suffix(".xml"), f"<annotation>{size}{objects}</annotation>")
    return folder / "voc"


def yolo(folder: Path, polygons: bool = False) -> Path:
    where = folder / ("yolo-polygons" if polygons else "yolo")
    for name, boxes in BOXES.items():
        lines = []
        for label, (x, y, u, v) in boxes:
            (x, u), (y, v) = (x / SIZE[0], u / SIZE[0]), (y / SIZE[1], v / SIZE[1])
            numbers = (x, y, u, y, u, v, x, v) if polygons else ((x + u) / 2, (y + v) / 2, u - x, v - y)
            lines.append(" ".join([str(["cat", "dog"].index(label)), *(f"{n:.8f}" for n in numbers)]))
        put((where / name).with_suffix(".txt"), "\n".join(lines))
    put(where / "classes.txt", "cat\ndog\n")
    return where


def masks(folder: Path) -> Path:
    for name, boxes in BOXES.items():
        values = np.zeros(SIZE[::-1], np.uint8)
        for _, (x, y, u, v) in boxes:
            values[y:v, x:u] = 1
        file = (folder / "masks" / name).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)
    return folder / "masks"


def table(folder: Path) -> Path:
    rows = [f"{name},{x},{y},{u - x},{v - y}" for name, boxes in BOXES.items() for _, (x, y, u, v) in boxes]
    return put(folder / "boxes.csv", "\n".join(["file,box_x,box_y,box_w,box_h", *rows]))


def everything(folder: Path) -> dict[str, Path]:
    return {
        "COCO": coco(folder),
        "COCO polygons": coco(folder, "polygon"),
        "COCO RLE": coco(folder, "rle"),
        "Pascal VOC": voc(folder),
        "YOLO": yolo(folder),
        "YOLO polygons": yolo(folder, polygons=True),
        "masks": masks(folder),
        "CSV": table(folder),
    }


def test_the_same_boxes_in_every_format_are_the_same_regions(tmp_path: Path, pictures: dict[str, Path]) -> None:
    for form, path in everything(tmp_path).items():
        read = read_boxes(path, pictures)
        assert read.form == form.removesuffix(" polygons").removesuffix(" RLE")
        counted = (ENDS_1.format("a, deep/b"),) if form == "Pascal VOC" else ()
        assert (read.unmatched, read.notes) == ((), counted), form
        assert set(read.regions) == set(BOXES) - ({"c.jpg"} if form == "CSV" else set()), form  # d.jpg is not spoken of
        for preprocess in SETTINGS:
            for name, boxes in BOXES.items():
                true = torch.zeros(preprocess.size, dtype=torch.bool)
                for _, box in boxes:
                    true |= by_hand(box, preprocess)
                assert torch.equal(region_mask(read.regions.get(name, ()), SIZE, preprocess), true), (
                    form,
                    name,
                    preprocess,
                )
        if form not in ("masks", "CSV"):
            assert [region.label for region in read.regions["a.jpg"]] == ["cat", "dog"], form


@cache
def by_hand(box: tuple[int, int, int, int], preprocess: Preprocess) -> torch.Tensor:
    """Pixel by pixel: whether the centre of each, taken back to the picture of 60 x 40, lies in the box."""
    high, wide = preprocess.size
    all_wide, all_high = {None: (wide, high), 32: (48, 32), 28: (42, 28), 70: (105, 70)}[preprocess.resize]
    left, top = {None: (0, 0), 32: (12, 4), 28: (7, 4), 70: (28, 3)}[preprocess.resize]
    inside = torch.zeros(high, wide, dtype=torch.bool)
    for i in range(high):
        for j in range(wide):
            x, y = Fraction(2 * (j + left) + 1, 2) * 60 / all_wide, Fraction(2 * (i + top) + 1, 2) * 40 / all_high
            inside[i, j] = box[0] <= x < box[2] and box[1] <= y < box[3]
    return inside


def test_geometry_by_hand() -> None:
    # 60 x 40 squeezed to 30 x 20: half of everything; the centre at 2.5 is at 5 in the picture, which is inside
    squeezed = region_mask(Region(((5, 10, 25, 30),)), SIZE, Preprocess((20, 30), *HALF))
    assert squeezed.nonzero().amin(0).tolist() == [5, 2]
    assert squeezed.nonzero().amax(0).tolist() == [14, 11]
    assert squeezed.sum() == 10 * 10
    # shorter side to 20: 30 x 20, of which the middle 16 x 16 begins at 7, 2
    cropped = region_mask(Region(((5, 10, 25, 30),)), SIZE, Preprocess((16, 16), *HALF, resize=20))
    assert cropped.nonzero().amin(0).tolist() == [3, 0]
    assert cropped.nonzero().amax(0).tolist() == [12, 4]
    away = region_mask(Region(((0, 0, 10, 40),)), SIZE, Preprocess((16, 16), *HALF, resize=20))
    assert not away.any()


def test_polygon_by_hand() -> None:
    triangle = region_mask(Region(polygons=(((0, 0), (4, 0), (0, 4)),)), (4, 4), Preprocess((4, 4), *HALF))
    assert triangle.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    ring = ((0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1))
    with_hole = region_mask(Region(polygons=(ring,)), (4, 4), Preprocess((4, 4), *HALF))
    assert with_hole.int().tolist() == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    two = [Region(((0, 0, 1, 4),)), Region(((3, 0, 4, 4),))]
    assert region_mask(two, (4, 4), Preprocess((4, 4), *HALF)).int().tolist() == [[1, 0, 0, 1]] * 4


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
@pytest.mark.parametrize("preprocess", SETTINGS, ids=str)
def test_a_box_lies_on_the_bright_pixels(tmp_path: Path, preprocess: Preprocess, turned: int) -> None:
    """White rectangles drawn at random on black: the region is where to_pixels is bright, but for its blurred edge."""
    rng = np.random.default_rng(turned)
    for _ in range(6):
        width, height = (int(n) for n in rng.integers(70, 160, 2))
        x, y = (int(n) for n in rng.integers(0, 40, 2))
        u, v = (int(n) for n in (rng.integers(x + 25, width + 1), rng.integers(y + 25, height + 1)))
        image = Image.new("RGB", (width, height))
        ImageDraw.Draw(image).rectangle((x, y, u - 1, v - 1), fill="white")
        exif = Image.Exif()
        exif[0x0112] = turned
        back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[
            turned
        ]
        (image if back is None else image.transpose(back)).save(tmp_path / "x.png", exif=exif)
        opened = open_picture(tmp_path / "x.png")
        assert opened.size == (width, height)
        bright = to_pixels(opened, preprocess).mean(0)
        inside = region_mask(Region(((x, y, u, v),)), opened.size, preprocess)
        (left, top), (right, bottom) = to_model(torch.tensor([[x, y], [u, v]]), opened.size, preprocess).tolist()
        rows, columns = (torch.arange(n) + 0.5 for n in preprocess.size)
        near = 0.75 if preprocess.interpolation != "nearest" else 1e-4  # within this of an edge it is blurred
        rows = torch.minimum((rows - top).abs(), (rows - bottom).abs()) > near
        columns = torch.minimum((columns - left).abs(), (columns - right).abs()) > near
        clear = rows[:, None] & columns
        assert torch.equal(inside[clear], bright[clear] > 0.5), (x, y, u, v, width, height)
        assert clear.float().mean() > 0.7


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_mask_holds_its_pixels_exactly_and_in_little_memory(share: float) -> None:
    drawn = np.random.default_rng(0).random((23, 31)) < share
    mask = mask_of(drawn)
    assert np.array_equal(pixels_of(mask), drawn)
    assert hash(mask) == hash(mask_of(drawn.copy()))
    assert torch.equal(region_mask(Region(mask=mask), (31, 23), Preprocess((23, 31), *HALF)), torch.from_numpy(drawn))
    with pytest.raises(Refused, match=r"a mask has 31 x 23 pixels, but its picture has 60 x 40"):
        region_mask(Region(mask=mask), SIZE, SETTINGS[0])
    disc = np.hypot(*np.mgrid[-500:500, -500:500]) < 400
    assert len(mask_of(disc).runs) < 8_000


def test_a_folder_of_json_is_read_by_what_the_files_hold(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = coco(tmp_path / "set").parent
    put(where / "settings.json", '{"theme": "dark"}')
    assert [len(regions) for regions in read_boxes(where, pictures).regions.values()] == [2, 1, 0]
    put(where / "d.json", "{")
    assert read_boxes(where, pictures).notes == (
        "1 COCO regions left out: d.jpg (d.json is not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1))",
    )
    put(where / "a.xml", "<annotation/>")
    with pytest.raises(Refused, match="holds Pascal VOC and COCO annotations"):
        read_boxes(where, pictures)


def test_labels_are_filtered_where_asked() -> None:
    regions = (
        Region(((0, 0, 1, 1),), label="Tiger_cat"),
        Region(((1, 0, 2, 1),), label="dog"),
        Region(((2, 0, 3, 1),)),
    )
    assert of_label(regions, ["tabby", "tiger cat, big one"]) == regions[:1]
    assert of_label(regions, ["dog", "tiger-cat"]) == regions[:2]
    assert of_label(regions, ["cat"]) == ()
    assert region_mask(regions, (4, 1), Preprocess((1, 4), *HALF)).tolist() == [[True, True, True, False]]


def one(pictures: dict[str, Path], **about: object) -> Annotations:
    """COCO with one object in a.jpg beside a good one in deep/b.jpg."""
    good = {"image_id": 2, "bbox": [0, 0, 9, 9]}
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "deep/b.jpg"}]
    text = json.dumps({"images": images, "annotations": [good, {"id": 5, "image_id": 1, **about}]})
    return read_boxes(put(pictures["a.jpg"].parents[1] / "one.json", text), pictures)


NAN = float("nan")


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"bbox": [5, 5, 0, 9]}, "annotation 5: a box of 0 x 9 pixels has no area"),
        ({"bbox": [5, 5, -3, 9]}, "annotation 5: a box of -3 x 9 pixels has no area"),
        ({"bbox": [NAN, 5, 3, 9]}, "annotation 5: a coordinate that is not a number"),
        ({"bbox": [5, float("inf"), 3, 9]}, "annotation 5: a coordinate that is not a number"),
        ({"bbox": [60, 5, 3, 9]}, "annotation 5: outside the picture"),
        ({"bbox": [-9, 5, 9, 9]}, "annotation 5: outside the picture"),
        ({"bbox": [5, 5, 9]}, "annotation 5: bbox is not [x, y, width, height]"),
        ({"bbox": "5 5 9 9"}, "annotation 5: bbox is not [x, y, width, height]"),
        ({}, "annotation 5: bbox is not [x, y, width, height]"),
        ({"segmentation": [[1, 1, 9, 9]]}, "annotation 5: a polygon of fewer than 3 points"),
        ({"segmentation": [[1, 1, 5, 5, 9, 9]]}, "annotation 5: a polygon without area"),
        ({"segmentation": {"counts": [5, 5], "size": [40, 60]}}, "annotation 5: RLE counts that do not fill its size"),
    ],
)
def test_what_cannot_be_a_region_is_left_out_by_name(
    pictures: dict[str, Path], about: dict[str, object], why: str
) -> None:
    read = one(pictures, **about)
    assert "a.jpg" not in read.regions  # not annotated, rather than annotated as empty
    assert read.notes == (f"1 COCO regions left out: a.jpg ({why})",)


def test_what_sticks_out_is_cut_off_and_counted(pictures: dict[str, Path]) -> None:
    read = one(pictures, bbox=[50, 30, 20, 20])
    assert read.regions["a.jpg"] == (Region(((50, 30, 60, 40),)),)
    assert read.notes == ("1 COCO regions stick out of the picture, cut off at its edge: a.jpg",)
    rounded = one(pictures, bbox=[50, 30, 10.4, 10.4])
    assert rounded.regions["a.jpg"] == (Region(((50, 30, 60, 40),)),)
    assert rounded.notes == ()


def test_annotated_before_turning_is_left_out_by_name(tmp_path: Path, pictures: dict[str, Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(pictures["a.jpg"], exif=exif)
    read = read_boxes(coco(tmp_path), pictures)
    assert "a.jpg" not in read.regions
    assert read.notes == (
        "1 COCO regions left out: a.jpg (annotated at 60 x 40 pixels, but the picture, upright, has 40 x 60)",
    )


def test_names_are_matched_by_path_then_by_unique_file_name(tmp_path: Path, pictures: dict[str, Path]) -> None:
    twice = pictures | {"other/b.jpg": pictures["deep/b.jpg"]}
    assert set(read_boxes(coco(tmp_path), twice).regions) == set(BOXES)  # deep/b.jpg by its whole path
    flat = put(tmp_path / "flat" / "b.txt", "0 0.5 0.5 0.2 0.2")
    assert list(read_boxes(flat, pictures).regions) == ["deep/b.jpg"]
    with pytest.raises(Refused, match=r"'b' fits several pictures, deep/b.jpg, other/b.jpg: write the whole name"):
        read_boxes(flat, twice)
    put(tmp_path / "classes" / "other" / "b.txt", "0 0.5 0.5 0.2 0.2")
    parts = {f"train/{name}": path for name, path in twice.items()}
    assert list(read_boxes(tmp_path / "classes", parts).regions) == ["train/other/b.jpg"]  # by its last folder
    assert list(read_boxes(tmp_path / "classes", twice).regions) == ["other/b.jpg"]
    put(tmp_path / "flat" / "sub" / "b.txt", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(Refused, match=r"b and sub/b both fit deep/b.jpg: name the folder that is meant, \. or sub"):
        read_boxes(flat.parent, pictures)


def test_an_annotation_is_not_of_a_picture_of_the_same_name_in_another_folder(tmp_path: Path) -> None:
    """Which shows where the annotations have that name in several folders; one that was moved is found by its name."""

    def drawn(names: tuple[str, ...], written: tuple[str, ...]) -> dict[str, float]:
        files = {name: tmp_path / name for name in names}
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE).save(file)
        rows = "".join(f"{name},{x},1,5,5\n" for x, name in enumerate(written))
        table = put(tmp_path / "boxes.csv", f"file,box_x,box_y,box_w,box_h\n{rows}")
        return {name: regions[0].boxes[0][0] for name, regions in read_boxes(table, files).regions.items()}

    both = ("cat/1.png", "dog/1.png")
    assert drawn(both, both) == {"cat/1.png": 0, "dog/1.png": 1}
    assert drawn(("dog/1.png",), both) == {"dog/1.png": 1}  # not the cat's, which comes first
    assert drawn(("train/dog/1.png", "train/cow/1.png"), both) == {"train/dog/1.png": 1}
    assert drawn(("dog/1.png",), ("old/1.png",)) == {"dog/1.png": 0}
    for names, written in ((both, ("1.png",)), (both, ("cow/1.png",)), (("dog/1.png",), ("1.png", "dog/1.png"))):
        with pytest.raises(Refused, match=r"fits several pictures|both fit"):
            drawn(names, written)


def test_a_file_in_a_folder_is_not_matched_by_the_bare_name_in_it(tmp_path: Path) -> None:
    """Pascal VOC writes the file's name without its folder; the XML itself lies in one."""
    for animal, x in (("cat", 2), ("dog", 9)):
        box = f"<xmin>{x}</xmin><ymin>2</ymin><xmax>{x + 5}</xmax><ymax>9</ymax>"
        found = f"<object><name>{animal}</name><bndbox>{box}</bndbox></object>"
        put(tmp_path / "xml" / animal / "1.xml", f"<annotation><filename>1.png</filename>{found}</annotation>")
    (tmp_path / "dog").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "dog" / "1.png")
    read = read_boxes(tmp_path / "xml", {"dog/1.png": tmp_path / "dog" / "1.png"})
    assert [r.label for r in read.regions["dog/1.png"]] == ["dog"]
    assert read.unmatched == ("cat/1",)


def test_names_without_a_picture_are_returned_and_counted(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = yolo(tmp_path)
    put(where / "stray.txt", "0 0.5 0.5 0.2 0.2")
    read = read_boxes(where, pictures)
    assert read.unmatched == ("stray",)
    assert read.notes == ("1 YOLO annotations fit no picture: stray",)
    with pytest.raises(
        Refused, match=r"YOLO annotations at .* fit no picture: they name .*stray.*; the pictures are x.jpg"
    ):
        read_boxes(where, {"x.jpg": pictures["d.jpg"]})


def test_only_the_wanted_are_read(tmp_path: Path, pictures: dict[str, Path]) -> None:
    pictures["a.jpg"].write_bytes(b"")  # broken, and not asked for
    read = read_boxes(voc(tmp_path), pictures, {"c.jpg", "deep/b.jpg"})
    assert set(read.regions) == {"c.jpg", "deep/b.jpg"}
    assert (read.unmatched, read.notes) == ((), (ENDS_1.format("a, deep/b"),))


def test_lines_that_are_no_yolo_are_left_out_by_name(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = yolo(tmp_path)
    put(where / "a.txt", "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2 1.9\n0 300 200 50 50\nhello\n0 nan 0.5 0.1 0.1\n")
    read = read_boxes(where, pictures)
    assert len(read.regions["a.jpg"]) == 1
    (note,) = read.notes
    assert note.startswith("4 YOLO regions left out: a.jpg (line 2: neither class cx cy w h")
    assert "line 3: coordinates above 1.5" in note
    assert "line 4: neither" in note
    assert "a.jpg (line 5: a coordinate that is not a number)" in note


def test_broken_and_misfitting_masks_are_left_out_by_name(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = masks(tmp_path)
    put(where / "a.png", b"")
    Image.new("L", (30, 20)).save(where / "c.png")
    read = read_boxes(where, pictures)
    assert set(read.regions) == {"deep/b.jpg"}
    assert "a.jpg (mask a.png: empty (0 bytes))" in read.notes[0]
    assert "c.jpg (annotated at 30 x 20 pixels, but the picture, upright, has 60 x 40)" in read.notes[0]
    with pytest.raises(Refused, match=r"has 30 x 20 pixels, but its picture has 60 x 40"):
        region_mask(Region(mask=where / "c.png"), SIZE, SETTINGS[0])


def test_masks_of_several_values_say_that_all_of_them_count(tmp_path: Path, pictures: dict[str, Path]) -> None:
    """A file of class numbers with a border of 255, as Pascal VOC's segmentations are."""
    where = masks(tmp_path)
    values = np.zeros(SIZE[::-1], np.uint8)
    values[5:20, 5:30], values[10:15, 10:20] = 255, 15
    Image.fromarray(values).save(where / "a.png")
    read = read_boxes(where, pictures)
    assert "a.jpg (it holds 2 values besides 0, which all count as the object: 15, 255)" in read.notes[0]
    assert "b.jpg" not in read.notes[0]
    mask = read.regions["a.jpg"][0].mask
    assert isinstance(mask, Path)
    assert open_mask(mask).sum() == 15 * 25


def test_pictures_beside_their_labels_are_no_masks(tmp_path: Path) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    put(tmp_path / "a.txt", "0 0.5 0.5 0.5 0.5")
    read = read_boxes(tmp_path, {"a.png": tmp_path / "a.png"})
    assert (read.form, read.regions["a.png"]) == ("YOLO", (Region(((15, 10, 45, 30),), label="0", numbered=True),))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(Refused, match=r"holds no annotations: expected the .json of COCO"):
        read_boxes(tmp_path, {"a.png": tmp_path / "a.png"})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.json", "[1, 2", "is not JSON"),
        ("x.json", "[]", r"is JSON of an unknown format, none of COCO.*: expected the .json of COCO"),
        ("x.json", '{"images": [], "annotations": 5}', "is not a COCO JSON"),
        ("x.json", '{"images": [], "annotations": [{"segments_info": []}]}', "panoptic"),
        ("a.xml", "<annotation><object>", "a.xml is not XML"),
        ("a.xml", "<html></html>", "a.xml is not Pascal VOC: its root is html"),
        ("a.txt", "this is a letter\n", "cannot be used: a.jpg .line 1: neither"),
        ("x.csv", "file,label\na.jpg,cat\n", "has the columns file, label: expected the .json of COCO"),
        ("x.jpg", "?", "holds no annotations: expected the .json of COCO"),
    ],
)
def test_a_file_that_is_no_annotation_is_refused(
    tmp_path: Path, pictures: dict[str, Path], name: str, text: str, said: str
) -> None:
    with pytest.raises(Refused, match=said):
        read_boxes(put(tmp_path / "annotations" / name, text), pictures)


def test_other_refusals(tmp_path: Path, pictures: dict[str, Path]) -> None:
    with pytest.raises(Refused, match="there is no such file or folder"):
        read_boxes(tmp_path / "nowhere", pictures)
    put(tmp_path / "both" / "a.xml", "<annotation/>")
    put(tmp_path / "both" / "a.txt", "")
    with pytest.raises(Refused, match=r"holds YOLO and Pascal VOC annotations|holds Pascal VOC and YOLO annotations"):
        read_boxes(tmp_path / "both", pictures)


def test_yolo_words_from_yaml(tmp_path: Path, pictures: dict[str, Path]) -> None:
    where = put(tmp_path / "set" / "labels" / "a.txt", "3 0.5 0.5 0.5 0.5\n4 0.5 0.5 0.5 0.5").parent
    put(tmp_path / "set" / "data.yaml", "names: {3: fox}")
    read = read_boxes(where, pictures)
    assert [(region.label, region.numbered) for region in read.regions["a.jpg"]] == [("fox", False), ("4", True)]
    assert read.notes == (
        f"1 YOLO classes are named by their numbers (4): {tmp_path / 'set/data.yaml'} has no names for them",
    )
    put(tmp_path / "set" / "data.yaml", "names: [:::")
    with pytest.raises(Refused, match=r"data.yaml cannot be read"):
        read_boxes(where, pictures)


def test_yolo_without_names_keeps_its_classes_apart_and_says_so(
    tmp_path: Path, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "set" / "labels"
    put(where / "a.txt", "43 0.5 0.5 0.5 0.5\n0 0.1 0.1 0.1 0.3 0.3 0.3\n43 0.2 0.2 0.1 0.1")
    read = read_boxes(where, pictures)
    assert [region.label for region in read.regions["a.jpg"]] == ["43", "0", "43"]
    assert read.notes == (
        "2 YOLO classes are named by their numbers (0, 43): there is no classes.txt or data.yaml with their names in "
        f"{where} or in the folder above it",
    )
    put(where.parent / "classes.txt", "cat\n" + "\n" * 50)  # a line without a word is no name
    monkeypatch.chdir(where)
    for path in (where, Path(), where / ".." / "labels", where / "a.txt"):  # also from inside, one up is one up
        read = read_boxes(path, pictures)
        assert [region.label for region in read.regions["a.jpg"]] == ["43", "cat", "43"], path
        assert len(read.notes) == 1
        assert "classes are named by their numbers (43): " in read.notes[0]
        assert "classes.txt has no names for them" in read.notes[0]
    put(where / "a.txt", "0 0.5 0.5 0.5 0.5")
    assert read_boxes(where, pictures).notes == ()


def test_a_class_number_is_no_word(tmp_path: Path, pictures: dict[str, Path]) -> None:
    """Class 3 of the boxes is another one than class 3 of the pictures' labels, unless a name says that it is not."""
    regions = read_boxes(put(tmp_path / "boxes" / "a.txt", "3 0.5 0.5 0.5 0.5"), pictures).regions["a.jpg"]
    assert of_label(regions, ["3"]) == ()
    put(tmp_path / "boxes" / "data.yaml", "names: {3: '3'}")
    regions = read_boxes(tmp_path / "boxes", pictures).regions["a.jpg"]
    assert of_label(regions, ["3"]) == regions


def test_tables(tmp_path: Path) -> None:
    columns, rows = read_table(put(tmp_path / "a.csv", "\ufefffile;label\n\nx.jpg; two words \n"))
    assert (columns, rows) == (("file", "label"), [{"file": "x.jpg", "label": "two words"}])
    with pytest.raises(Refused, match="row 2 has 3 cells, but there are 2 columns"):
        read_table(put(tmp_path / "a.csv", "file,label\nx.jpg,cat,dog\n"))
    with pytest.raises(Refused, match="two columns of the same name"):
        read_table(put(tmp_path / "a.csv", "file,file\n"))
    with pytest.raises(Refused, match="not a CSV in UTF-8"):
        read_table(put(tmp_path / "a.csv", b"file,label\nx.jpg,\xff\n"))
    assert read_table(put(tmp_path / "a.csv", "")) == ((), [])
