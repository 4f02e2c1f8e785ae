"""Folders, CSV files and the demo pictures: what is found, what is chosen, and what is said of the rest."""

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import clearsight as cs
from clearsight.core.classifier import Classifier, wrap
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotations import Region, region_mask
from clearsight.data.datasets import Pictures, demo_pictures, folder, open_data, open_each, pixels, truth
from clearsight.data.images import open_picture, to_pixels
from clearsight.errors import Refused

SHARED = Path(__file__).parents[3] / "shared/data"
HALF = ((0.5,) * 3, (0.5,) * 3)


def fill(root: Path, *names: str) -> Path:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(file)
    return root


def table(root: Path, text: str, name: str = "labels.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


def found(pictures: Pictures) -> dict[str, tuple[str, ...]]:
    return {picture.name: picture.labels for picture in pictures.pictures}


def model(*labels: str) -> Classifier:
    return wrap(nn.Linear(1, 1), Preprocess(4, *HALF), labels)


def test_class_folders(tmp_path: Path) -> None:
    fill(tmp_path, "dog/b.png", "cat/a.JPG", "cat/deep/c.png", "loose.png")
    read = cs.folder(tmp_path)
    assert found(read) == {"cat/a.JPG": ("cat",), "cat/deep/c.png": ("cat",), "dog/b.png": ("dog",), "loose.png": ()}
    assert [p.name for p in read.pictures] == sorted(p.name for p in read.pictures)
    assert all(p.path == tmp_path / p.name and p.regions is None and p.split == "" for p in read.pictures)
    assert (read.root, read.broken) == (tmp_path, ())
    assert read.notes[0] == "1 of 4 pictures lie in no class folder: unlabelled"
    assert [n[:40] for n in read.notes[1:]] == ["pictures in cat/deep have class cat: the"]


def test_flat_and_single(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    assert found(folder(tmp_path)) == {"a.png": (), "b.png": ()}
    assert folder(tmp_path).notes == ()
    assert found(folder(tmp_path / "a.png")) == {"a.png": ()}


def test_splits(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat/a.png", "train/dog/b.png", "Validation/cat/c.png")
    read = folder(tmp_path)
    assert found(read) == {"Validation/cat/c.png": ("cat",)}
    assert read.pictures[0].split == "Validation"
    assert read.notes == ("split Validation is used, of Validation 1, train 2 pictures: choose another with --split",)
    assert found(folder(tmp_path, split="train")) == {"train/cat/a.png": ("cat",), "train/dog/b.png": ("dog",)}
    assert found(folder(tmp_path, split="val")) == found(read)
    with pytest.raises(Refused, match=r"split 'test': .* has Validation, train"):
        folder(tmp_path, split="test")
    fill(tmp_path, "testing/cat/d.png", "extra/cat/e.png")
    read = folder(tmp_path)
    assert found(read) == {"testing/cat/d.png": ("cat",)}
    assert any(n.startswith("1 pictures in no split are left out: ") for n in read.notes)
    with pytest.raises(Refused, match="has no splits"):
        folder(tmp_path / "train", split="test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, "train/a.png", "bus/b.png")
    assert found(folder(tmp_path)) == {"train/a.png": ("train",), "bus/b.png": ("bus",)}


def test_csv(tmp_path: Path) -> None:
    fill(tmp_path, "x/a.png", "x/b.png", "x/c.png")
    listed = table(tmp_path / "x", "file,label,where\nb.png,cat| dog |cat,home\na.png,,\ngone.png,cat,\n,cat,\n")
    read = folder(listed)
    assert found(read) == {"a.png": (), "b.png": ("cat", "dog")}
    assert read.pictures[1].columns == {"where": "home"}
    assert read.broken == (("gone.png", "missing"), ("row 5", "names no file"))
    by_folder = folder(tmp_path / "x")
    assert found(by_folder) == found(read)
    assert by_folder.notes == (
        "labels from labels.csv, which does not list 1 of the pictures, left out: c.png",
        "labels.csv: files from column file, classes from column label",
    )
    assert found(folder(listed, label_column="where")) == {"a.png": (), "b.png": ("home",)}
    with pytest.raises(Refused, match=r"has the columns file, label, where, and no wher: did you mean where\?"):
        folder(listed, label_column="wher")


def test_csv_columns(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    assert folder(table(tmp_path, "file,imagenet_index\na.png,7\n")).numbered
    assert not folder(table(tmp_path, "file,label,imagenet_index\na.png,cat,7\n")).numbered
    for header in ("file,bird,place", "file,row_index,bird"):
        with pytest.raises(
            Refused, match=f"labels.csv has the columns {header.replace(',', ', ')}: none is known .* --label-column"
        ):
            folder(table(tmp_path, f"{header}\na.png,x,y\n"))
    with pytest.raises(
        Refused, match="has the columns picture, label: none names the pictures; rename the one that does to file"
    ):
        folder(table(tmp_path, "picture,label\na.png,cat\n"))
    with pytest.raises(Refused, match=r"a.png is in rows 2 and 3: list it once, with its classes as one\|other"):
        folder(table(tmp_path, "file,label\na.png,cat\n./a.png,dog\n"))


def test_csv_with_splits_and_an_images_folder(tmp_path: Path) -> None:
    fill(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    table(tmp_path, "file,split,bird\na.png,train,land\nb.png,test,water\nc.png,fold3,land\n")
    read = folder(tmp_path, label_column="bird")
    assert found(read) == {"images/b.png": ("water",)}
    assert read.pictures[0].columns == {"split": "test"}
    assert read.notes[0] == "split test is used, of fold3 1, test 1, train 1 pictures: choose another with --split"
    assert found(folder(tmp_path, label_column="bird", split="fold3")) == {"images/c.png": ("land",)}


def test_other_files_are_skipped_and_counted(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png", "cat/.b.png", ".hidden/c.png", "__MACOSX/cat/a.png")
    for name in ("cat/notes.txt", "cat/Thumbs.db", "model.json", "LICENSE"):
        (tmp_path / name).write_text("x")
    read = folder(tmp_path)
    assert found(read) == {"cat/a.png": ("cat",)}
    assert set(read.notes) == {
        "4 other files skipped (1 LICENSE, 1 .json, 1 .db, 1 .txt)",
        "3 hidden files or folders skipped (.hidden, __MACOSX, cat/.b.png)",
    }


def test_what_cannot_be_a_picture_is_broken_and_named(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png")
    (tmp_path / "cat/empty.jpg").write_bytes(b"")
    (tmp_path / "cat/gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "cat/folder.jpg").mkdir()
    os.mkfifo(tmp_path / "cat/pipe.jpg")
    (tmp_path / "cat/text.jpg").write_text("found out when it is read")
    read = folder(tmp_path)
    assert list(found(read)) == ["cat/a.png", "cat/text.jpg"]
    assert read.broken == (
        ("cat/empty.jpg", "empty (0 bytes)"),
        ("cat/folder.jpg", "a folder, not a file"),
        ("cat/gone.jpg", "a link to a file that does not exist"),
        ("cat/pipe.jpg", "not a file but a pipe, socket or device"),
    )


def test_an_empty_file_among_several_is_broken_and_alone_refused(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "more/b.png")
    (tmp_path / "empty.JPG").touch()
    a, empty, more, demo = open_each([tmp_path / n for n in ("a.png", "empty.JPG", "more")] + ["demo:coffee"])
    assert [found(a), found(more), list(found(demo))] == [{"a.png": ()}, {"b.png": ()}, ["coffee"]]
    assert (empty.root, empty.pictures) == (tmp_path / "empty.JPG", ())
    assert empty.broken == (("empty.JPG", "empty (0 bytes)"),)
    for one in (folder, lambda path: open_each([path])):
        with pytest.raises(Refused, match=r"empty\.JPG is empty \(0 bytes\)$"):
            one(tmp_path / "empty.JPG")
    with pytest.raises(Refused, match="there is no such file"):  # a slip of the hand is no broken picture
        open_each([tmp_path / "a.png", tmp_path / "gone.png"])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(Refused, match="expected pictures in class folders"):
        open_each([tmp_path / "a.png", tmp_path / "nothing"])


def test_links_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path, "set/cat/a.png", "elsewhere/b.png")
    (tmp_path / "set/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/cat/round").symlink_to(tmp_path / "set")
    (tmp_path / "set/ant").symlink_to(tmp_path / "set/cat")
    (tmp_path / "set/zebra").symlink_to(tmp_path / "set/cat")
    (tmp_path / "set/self").symlink_to(tmp_path / "set/self")
    read = folder(tmp_path / "set")
    assert found(read) == {"cat/a.png": ("cat",), "dog/b.png": ("dog",)}
    assert "3 links skipped: their folders were already read" in read.notes


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    try:
        os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    (picture,) = folder(tmp_path).pictures
    assert picture.name == "\\xff.png"
    assert open_picture(picture.path).size == (8, 6)


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no pictures at .*nowhere: there is no such file or folder"):
        folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"no pictures in .*: it is empty; expected pictures in class folders"):
        folder(tmp_path / "empty")
    (tmp_path / "empty/a.dat").write_text("x")
    with pytest.raises(Refused, match=r"no pictures in .*: 1 other file skipped \(1 .dat\)"):
        folder(tmp_path / "empty")
    (tmp_path / "empty/a.jpg").write_text("")
    with pytest.raises(Refused, match=r"no pictures in .*: 1 broken \(a.jpg: empty \(0 bytes\)\)"):
        folder(tmp_path / "empty")
    with pytest.raises(Refused, match=r"a.dat is neither a picture, a table nor a folder"):
        folder(tmp_path / "empty/a.dat")
    with pytest.raises(Refused, match="no pictures in"):
        folder(table(tmp_path, "file,label\n"))
    with pytest.raises(Refused, match="label_column=x needs a table"):
        folder(tmp_path / "empty", label_column="x")


def test_nothing_of_the_users_changes(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png", "dog/b.png")
    (tmp_path / "cat/a.txt").write_text("0 0.5 0.5 0.5 0.5")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in tmp_path.rglob("*")}
    pixels(model("cat", "dog"), folder(tmp_path, boxes=tmp_path / "cat"))
    assert {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in tmp_path.rglob("*")} == before


def test_boxes_of_a_folder(tmp_path: Path) -> None:
    fill(tmp_path, "set/train/cat/a.png", "set/test/cat/b.png", "set/test/dog/a.png")
    objects = [{"image_id": 1, "bbox": [0, 0, 4, 3]}]
    images = [
        {"id": 1, "file_name": "test/dog/a.png"},
        {"id": 2, "file_name": "b.png"},
        {"id": 3, "file_name": "z.png"},
    ]
    boxes = table(tmp_path, json.dumps({"images": images, "annotations": objects}), "coco.json")
    read = folder(tmp_path / "set", boxes=boxes)
    assert {p.name: p.regions for p in read.pictures} == {
        "test/cat/b.png": (),
        "test/dog/a.png": (Region(((0, 0, 4, 3),)),),
    }
    assert read.notes[1:] == (
        "COCO annotations for 2 of 2 pictures",
        "1 COCO annotations fit no picture: z.png",
    )
    images[0]["file_name"] = "a.png"  # in train and in test: not only where the split is looked at
    with pytest.raises(Refused, match=r"'a.png' fits"):
        folder(tmp_path / "set", boxes=table(tmp_path, json.dumps({"images": images, "annotations": []}), "coco.json"))
    with pytest.raises(Refused, match="boxes and masks are both given"):
        folder(tmp_path / "set", boxes=boxes, masks=boxes)


def test_masks_of_a_folder(tmp_path: Path) -> None:
    fill(tmp_path, "set/cat/a.png", "masks/cat/a.png")
    (picture,) = folder(tmp_path / "set", masks=tmp_path / "masks").pictures
    assert picture.regions == (Region(mask=tmp_path / "masks/cat/a.png"),)


def test_truth(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png", "c.png")
    listed = table(tmp_path, "file,label\na.png,cat\nb.png,Dog|bee\nc.png,\n")
    right = truth(folder(listed), model("cat, felis", "ant", "bee", "big_dog, dog"))
    assert right.dtype == torch.bool
    assert right.int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]


def test_numbers_are_numbers_even_where_labels_look_like_them(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    read = folder(table(tmp_path, "file,class_index\na.png,1\n"))
    assert truth(read, model("a", "b", "c")).tolist() == [[False, True, False]]
    with pytest.raises(Refused, match="1 may be the label '1' or the class number 1 counted from 0, '2'"):
        truth(read, model("1", "2", "3"))
    assert truth(folder(table(tmp_path, "file,label\na.png,1\n")), model("1", "2", "3")).tolist() == [
        [True, False, False]
    ]
    with pytest.raises(Refused, match=r"class '1': this model has classes 0 to 0|class '9'.*0 to 1"):
        truth(folder(table(tmp_path, "file,class_index\na.png,9\n")), model("a", "b"))


def test_unknown_words_are_refused_once_with_the_mending(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png", "ant/b.png", "tabbi/c.png")
    with pytest.raises(Refused) as refused:
        truth(folder(tmp_path), model("tabby", "tiger cat", "ant"))
    said = str(refused.value)
    assert said.startswith("class words of the data that the model does not have (2): cat, tabbi (")
    assert "did you mean tabby" in said
    assert said.endswith('--classes FILE, a JSON such as {"cat": ["a label of the model", "another"]}')


def test_classes_say_what_words_mean(tmp_path: Path) -> None:
    fill(tmp_path / "set", "cat/a.png", "ant/b.png")
    meaning = {"cat": ["tabby", "tiger cat"], "cow": "tabby"}
    file = table(tmp_path, json.dumps(meaning), "classes.json")
    for classes in (meaning, file, str(file)):
        read = folder(tmp_path / "set", classes=classes)
        assert found(read) == {"ant/b.png": ("ant",), "cat/a.png": ("cat",)}  # in the words of the data
        assert read.notes == ("words in classes that no picture has: cow",)
        assert truth(read, model("tabby", "tiger cat", "ant")).int().tolist() == [[0, 0, 1], [1, 1, 0]]
    for wrong in ("[]", '{"cat": []}', '{"cat": null}', '"cat"'):
        with pytest.raises(Refused, match="classes must give each word its labels"):
            folder(tmp_path / "set", classes=table(tmp_path, wrong, "classes.json"))
    with pytest.raises(Refused, match="are not JSON"):
        folder(tmp_path / "set", classes=table(tmp_path, "{", "classes.json"))
    with pytest.raises(Refused, match="cannot read the classes in"):
        folder(tmp_path / "set", classes=tmp_path / "nowhere.json")


def test_folders_below_a_class_are_said(tmp_path: Path) -> None:
    """Whoever has a folder too many, or class/split/x.jpg, sees which folder was taken for the class."""
    fill(tmp_path / "set", "animal/cat/a.png", "animal/dog/b.png", "plant/c.png")
    (note,) = folder(tmp_path / "set").notes
    assert note.startswith("pictures in animal/cat, animal/dog have class animal: the first folder is the class")
    fill(tmp_path / "split", "train/cat/a.png", "test/cat/deep/b.png", "test/dog/c.png")
    assert any("pictures in test/cat/deep have class cat" in n for n in folder(tmp_path / "split").notes)
    fill(tmp_path / "plain", "cat/a.png", "dog/b.png")
    assert folder(tmp_path / "plain").notes == ()


def test_splits_of_unknown_names_are_said(tmp_path: Path) -> None:
    """0, 1, 2 as in CelebA and WILDS: none is chosen, and the note says that training pictures may be among them."""
    fill(tmp_path, "a.png", "b.png", "c.png")
    listed = table(tmp_path, "file,label,split\na.png,cat,0\nb.png,dog,1\nc.png,dog,1\n")
    read = folder(listed)
    assert len(read.pictures) == 3
    assert read.notes[0] == (
        "no split is called train, val or test, so all are used (0 1, 1 2 pictures): choose one with --split"
    )
    assert len(folder(listed, split="1").pictures) == 2


def test_the_separator_of_a_csv_is_what_stands_most_often(tmp_path: Path) -> None:
    fill(tmp_path, "a.png")
    for text in ('file;label;"size, in cm"\na.png;cat;1,5\n', "file\tlabel\tscore, note; more\na.png\tcat\t1,5\n"):
        assert found(folder(table(tmp_path, text))) == {"a.png": ("cat",)}
    (tmp_path / "u.csv").write_bytes("file,label\na.png,cat\n".encode("utf-16"))
    with pytest.raises(Refused, match=r"not a CSV in UTF-8.*save it as UTF-8"):
        folder(tmp_path / "u.csv")


def test_pixels_of_pictures(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", "b.png")
    Image.new("RGB", (8, 6), "white").save(tmp_path / "b.png")
    batch = pixels(model("x", "y"), tmp_path)
    assert batch.shape == (2, 3, 4, 4)
    assert batch.mean((1, 2, 3)).tolist() == [0, 1]
    (tmp_path / "b.png").write_text("?")
    with pytest.raises(Refused, match=r"b.png: not a picture$"):
        pixels(model("x", "y"), tmp_path)


def imagenet() -> Classifier:
    data = pytest.importorskip("timm.data")
    info = data.ImageNetInfo()
    return model(*(info.index_to_description(i) for i in range(1000)))


def test_demo_pictures_are_there_and_their_boxes_lie_inside() -> None:
    read = demo_pictures()
    told = json.loads((Path(cs.__file__).parent / "data/demo/pictures.json").read_text())["pictures"]
    assert (len(read.pictures), len(told), read.broken, read.root) == (10, 10, (), "demo")
    assert [p.name for p in read.pictures] == sorted(entry["name"] for entry in told)
    sizes = {entry["name"]: tuple(entry["size"]) for entry in told}
    for picture in read.pictures:
        image = open_picture(picture.path)
        assert image.size == sizes[picture.name]
        assert picture.labels
        assert picture.regions
        for region in picture.regions:
            ((x0, y0, x1, y1),) = region.boxes
            assert 0 <= x0 < x1 <= image.width, picture.name
            assert 0 <= y0 < y1 <= image.height, picture.name
            assert region.label
        assert to_pixels(image, Preprocess(224, *HALF, resize=256)).shape == (3, 224, 224)


def test_demo_classes_are_imagenets() -> None:
    told = json.loads((Path(cs.__file__).parent / "data/demo/pictures.json").read_text())["pictures"]
    net = imagenet()
    for entry, row in zip(sorted(told, key=lambda e: str(e["name"])), truth(demo_pictures(), net), strict=True):
        assert [net.labels[c["index"]] for c in entry["classes"]] == [c["name"] for c in entry["classes"]]
        assert row.nonzero().flatten().tolist() == sorted(c["index"] for c in entry["classes"]), entry["name"]


def test_open_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [p.name for p in open_data("demo:rocket, coffee").pictures] == ["coffee", "rocket"]
    assert len(open_data("demo").pictures) == 10
    with pytest.raises(Refused, match=r"no demo picture 'cofee': did you mean coffee or chelsea\?"):
        open_data("demo:cofee")
    with pytest.raises(Refused, match="have their own boxes"):
        open_data("demo", boxes="x")
    fill(tmp_path / "demo", "cat/a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_data("demo").pictures) == 10
    assert found(open_data("./demo")) == found(open_data(Path("demo"))) == {"cat/a.png": ("cat",)}
    meaning = open_data("demo:flower", classes={"daisy": "dahlia"})
    assert truth(meaning, model("dahlia", "rose")).tolist() == [[True, False]]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_shared_data() -> None:
    photos = folder(SHARED / "imagenet200")
    assert (len(photos.pictures), photos.broken, photos.numbered) == (200, (), True)
    right = truth(photos, imagenet())
    assert right.sum(1).tolist() == [1] * 200
    tench = [p.name for p in photos.pictures].index("n01440764_tench.jpg")
    assert right[tench].nonzero().item() == 0
    boxes = folder(SHARED / "coco_masks/images", boxes=SHARED / "coco_masks/boxes_yolo")
    polygons = folder(SHARED / "coco_masks/images", boxes=SHARED / "coco_masks/polygons_yolo")
    assert len({region.label for p in boxes.pictures for region in p.regions or ()}) == 61  # no names lie beside them
    assert any("61 YOLO classes are named by their numbers" in note for note in boxes.notes)
    masks = folder(SHARED / "coco_masks/images", masks=SHARED / "coco_masks/semantic")
    assert [len(s.pictures) for s in (boxes, polygons, masks)] == [53] * 3
    assert sum(p.regions is None for p in boxes.pictures) == 1  # SOURCE.txt: one image has no boxes
    assert not [note for note in (*boxes.notes, *polygons.notes, *masks.notes) if "left out" in note or "stick" in note]
    preprocess = Preprocess(224, *HALF, resize=256)
    for with_box, with_polygon in zip(boxes.pictures[:8], polygons.pictures[:8], strict=True):
        size = open_picture(with_box.path).size
        inside = region_mask(with_polygon.regions or (), size, preprocess)
        box = region_mask(with_box.regions or (), size, preprocess)
        if with_box.regions is not None and inside.any():
            assert (inside & ~box).sum() <= 0.03 * inside.sum(), with_box.name  # polygons lie in their boxes
