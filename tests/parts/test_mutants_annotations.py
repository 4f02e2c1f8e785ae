"""Damaged annotations: each is read or refused in words, and nothing that they hold is lost without a word.

A format of annotations is one line in FORMATS: how a valid one is made, how it is damaged, and what it holds.
"""

import base64
import csv
import io
import json
import re
import signal
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as cocomask

from brushes import rle_of
from clearsight.core.preprocess import Preprocess
from clearsight.data.annotations import Annotations, read_boxes, region_mask
from clearsight.errors import Refused
from mutants import Mutate, any_file, json_file, text_file, xml_file

QUICK, SLOW = 6, 60  # mutants of each format
SECONDS = 10
Objects = Callable[[Path], list[str]]  # the picture of each object that a file still holds; "" where it says none


@dataclass(frozen=True)
class Format:
    """make: writes a valid annotation of a.png and b.png into a folder and returns its path.

    unused: a pattern for the places of values that say nothing of where an object is and what, which may be anything.
    """

    make: Callable[[Path], Path]
    mutate: Mutate
    objects: Objects
    unused: str = "^$"


BOXES = {"a.png": [(5, 6, 15, 26), (20, 0, 60, 12)], "b.png": [(0, 0, 60, 40)]}


def drawn(box: tuple[int, int, int, int]) -> np.ndarray:
    inside = np.zeros((40, 60), np.uint8)
    inside[box[1] : box[3], box[0] : box[2]] = 1
    return inside


def coco(shape: str) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        objects = []
        for at, (name, (x, y, u, v)) in enumerate((name, box) for name, boxes in BOXES.items() for box in boxes):
            inside = drawn((x, y, u, v))
            rle = cocomask.encode(np.asfortranarray(inside))
            edges = np.flatnonzero(np.diff(inside.ravel(order="F"), prepend=0, append=1 - inside[-1, -1]))
            form = {
                "boxes": {"bbox": [x, y, u - x, v - y]},
                "polygons": {"segmentation": [[x, y, u, y, u, v, x, v]], "bbox": [x, y, u - x, v - y]},
                "runs": {"segmentation": {"counts": np.diff(edges, prepend=0).tolist(), "size": [40, 60]}},
                "text": {"segmentation": {"counts": rle["counts"].decode(), "size": [40, 60]}, "iscrowd": 1},
            }[shape]
            image = list(BOXES).index(name) + 1
            objects.append({"id": 100 + at, "image_id": image, "category_id": at % 2, "iscrowd": 0} | form)
        images = [{"id": i, "file_name": n, "width": 60, "height": 40} for i, n in enumerate(BOXES, 1)]
        categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
        file = place / "coco.json"
        file.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
        return file

    return make


def panoptic(place: Path) -> Path:
    images, objects = [], []
    for i, (name, boxes) in enumerate(BOXES.items(), 1):
        ids = sum((drawn(box).astype(int) * (k * 300 + 9) for k, box in enumerate(boxes, 1)), np.zeros((40, 60), int))
        (place / "coco").mkdir(exist_ok=True)
        Image.fromarray(np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)).save(place / "coco" / name)
        segments = [{"id": k * 300 + 9, "category_id": 1, "area": int(drawn(b).sum())} for k, b in enumerate(boxes, 1)]
        images.append({"id": i, "file_name": name, "width": 60, "height": 40})
        objects.append({"image_id": i, "file_name": name, "segments_info": segments})
    file = place / "coco.json"
    held = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    file.write_text(json.dumps(held))
    return file


def voc(place: Path) -> Path:
    for name, boxes in BOXES.items():
        root = ET.Element("annotation")
        ET.SubElement(root, "filename").text = name
        size = ET.SubElement(root, "size")
        for tag, n in (("width", 60), ("height", 40), ("depth", 3)):
            ET.SubElement(size, tag).text = str(n)
        for box in boxes:
            thing = ET.SubElement(root, "object")
            ET.SubElement(thing, "name").text = "cat"
            bndbox = ET.SubElement(thing, "bndbox")
            for tag, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ET.SubElement(bndbox, tag).text = str(n)
        (place / name).with_suffix(".xml").write_text(ET.tostring(root, "unicode"))
    return place


def yolo(place: Path) -> Path:
    (place / "labels").mkdir()
    for name, boxes in BOXES.items():
        rows = []
        for k, (x, y, u, v) in enumerate(boxes):
            corners = [x / 60, y / 40, u / 60, y / 40, u / 60, v / 40, x / 60, v / 40]
            box = [(x + u) / 120, (y + v) / 80, (u - x) / 60, (v - y) / 40]
            rows.append(" ".join([str(k), *(f"{n:.6f}" for n in (corners if k else box))]))
        (place / "labels" / name).with_suffix(".txt").write_text("\n".join(rows))
    (place / "data.yaml").write_text("names: [cat, dog]\ntrain: labels")
    return place / "labels"


def table(place: Path) -> Path:
    rows = [f"{name},{x},{y},{u - x},{v - y}" for name, boxes in BOXES.items() for x, y, u, v in boxes]
    file = place / "boxes.csv"
    file.write_text("\n".join(["file,box_x,box_y,box_w,box_h", *rows]))
    return file


def masks(place: Path) -> Path:
    for name, boxes in BOXES.items():
        Image.fromarray(sum(drawn(box) for box in boxes).astype(np.uint8)).save(place / name)
    return place


def drawn_result(name: str, box: tuple[int, int, int, int], kind: str) -> dict[str, object]:
    """A result of Label Studio: a box, a polygon, an ellipse or a brush in the place of the box."""
    x, y, u, v = box[0] / 0.6, box[1] / 0.4, box[2] / 0.6, box[3] / 0.4
    value: dict[str, object] = {
        "rectangle": {"x": x, "y": y, "width": u - x, "height": v - y, "rotation": 0},
        "polygon": {"points": [[x, y], [u, y], [u, v], [x, v]], "closed": True},
        "ellipse": {"x": (x + u) / 2, "y": (y + v) / 2, "radiusX": (u - x) / 2, "radiusY": (v - y) / 2, "rotation": 30},
        "brush": {"format": "rle", "rle": rle_of(np.repeat(drawn(box).ravel() * np.uint8(255), 4), literal=False)},
    }[kind]
    about = {"id": f"{name}-{kind}", "from_name": kind, "to_name": "image", "type": f"{kind}labels"}
    sizes = {"image_rotation": 0, "original_width": 60, "original_height": 40}
    return about | sizes | {"value": value | {f"{kind}labels": ["cat"]}}


def results() -> dict[str, list[dict[str, object]]]:
    kinds = iter(("rectangle", "polygon", "brush"))
    found = {name: [drawn_result(name, box, next(kinds)) for box in boxes] for name, boxes in BOXES.items()}
    found["b.png"].append(drawn_result("b.png", (10, 10, 50, 30), "ellipse"))
    return found


def label_studio(place: Path) -> Path:
    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/upload/1/0123abcd-{name}"},
            "annotations": [{"id": number, "result": mine, "was_cancelled": False, "ground_truth": False}],
        }
        for number, (name, mine) in enumerate(results().items(), 1)
    ]
    file = place / "label_studio.json"
    file.write_text(json.dumps(tasks))
    return file


def label_studio_rows(place: Path) -> Path:
    rows = []
    for number, (name, mine) in enumerate(results().items(), 1):
        row: dict[str, object] = {"image": f"s3://bucket/photos/{name}", "id": number}
        for result in mine:
            sizes = {key: result[key] for key in ("original_width", "original_height")}
            row[str(result["from_name"])] = [{**result["value"], **sizes}]
        rows.append(row | {"annotator": 1, "annotation_id": number, "updated_at": "2026-01-01", "lead_time": 1.5})
    file = place / "label_studio.json"
    file.write_text(json.dumps(rows))
    return file


def labelme(place: Path) -> Path:
    for name, boxes in BOXES.items():
        png = io.BytesIO()
        Image.fromarray(drawn(boxes[0])[6:26, 5:15]).save(png, "PNG")
        shapes = [
            ("rectangle", [[u, v], [x, y]] if (x, y, u, v) == boxes[0] else [[x, y], [u, v]], None)
            for x, y, u, v in boxes
        ]
        shapes.append(("polygon", [[1.5, 1], [20, 1], [20, 30]], None))
        shapes.append(("circle", [[30, 20], [36, 20]], None))
        shapes.append(("mask", [[5, 6], [14, 25]], base64.b64encode(png.getvalue()).decode()))
        listed = [
            {"label": "cat", "points": points, "group_id": None, "shape_type": kind, "flags": {}, "mask": mask}
            for kind, points, mask in shapes
        ]
        about = {"version": "6.3.1", "imagePath": f"../photos/{name}", "imageWidth": 60, "imageHeight": 40}
        (place / name).with_suffix(".json").write_text(json.dumps(about | {"shapes": listed}))
    return place


def labelme_xml(place: Path) -> Path:
    for name, boxes in BOXES.items():
        root = ET.Element("annotation")
        ET.SubElement(root, "filename").text = name
        size = ET.SubElement(root, "imagesize")
        for tag, n in (("nrows", 40), ("ncols", 60)):
            ET.SubElement(size, tag).text = str(n)
        for x, y, u, v in boxes:
            thing = ET.SubElement(root, "object")
            for tag, text in (("name", "cat"), ("deleted", "0")):
                ET.SubElement(thing, tag).text = text
            outline = ET.SubElement(thing, "polygon")
            for corner in ((x, y), (u, y), (u, v), (x, v)):
                point = ET.SubElement(outline, "pt")
                for tag, n in zip("xy", corner, strict=True):
                    ET.SubElement(point, tag).text = str(n)
        (place / name).with_suffix(".xml").write_text(ET.tostring(root, "unicode"))
    return place


def in_label_studio(path: Path) -> list[str]:
    """The results of tasks with one annotation that is not cancelled; those of one id are one."""
    found = []
    for task in json.loads(path.read_text()):
        annotations = task.get("annotations") if isinstance(task, dict) and isinstance(task.get("data"), dict) else None
        if not isinstance(annotations, list) or len(annotations) != 1 or not isinstance(annotations[0], dict):
            continue
        listed = annotations[0].get("result")
        if isinstance(listed, list) and not annotations[0].get("was_cancelled"):
            ids = {str(r.get("id", at)) if isinstance(r, dict) else str(at) for at, r in enumerate(listed)}
            found += [short(next(iter(task["data"].values()), None))] * len(ids)
    return found


def in_rows(path: Path) -> list[str]:
    """What the lists of the four tags hold, in rows that are annotated."""
    found = []
    rows = {str(row.get("id")): row for row in json.loads(path.read_text()) if isinstance(row, dict)}
    for row in rows.values():  # of rows with the same id one is read, and a note says so
        if "annotator" in row and row.get("annotation_id") is not None and "id" in row:
            lists = [row.get(tag) for tag in ("rectangle", "polygon", "ellipse", "brush")]
            held = {json.dumps(each) for one in lists if isinstance(one, list) for each in one if each is not None}
            found += [short(row.get("image", row.get("image again")))] * len(held)
    return found


def short(address: object) -> str:
    """The picture of an address of Label Studio's."""
    address = address[0] if isinstance(address, list) and len(address) == 1 else address
    name = address.rpartition("/")[2] if isinstance(address, str) else ""
    return name.removeprefix("0123abcd-").encode("utf-8", "replace").decode()


def in_labelme(path: Path) -> list[str]:
    """Shapes by file; those of one label and group are one."""
    found = []
    for file in sorted(path.glob("*.json")):
        shapes = json.loads(file.read_text()).get("shapes", [])
        listed = shapes if isinstance(shapes, list) else []
        groups = [s.get("group_id") if isinstance(s, dict) else None for s in listed]
        alone = sum(group is None for group in groups)
        found += [file.stem] * (alone + (len(groups) > alone))
    return found


def in_coco(path: Path) -> list[str]:
    """COCO's objects by the file_name of the image of their image_id, where that is plain."""
    data = json.loads(path.read_text())
    images, listed = ([held for held in data[key] if isinstance(held, dict)] for key in ("images", "annotations"))
    names = {plain(image.get("id")): image.get("file_name") for image in images}
    found = []
    for o in listed:
        segments = o.get("segments_info")
        name = str(names.get(plain(o.get("image_id"))) or "").encode("utf-8", "replace").decode()
        found += [name] * (len(segments) if isinstance(segments, list) else 1)
    return found


def plain(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def in_voc(path: Path) -> list[str]:
    return [f.stem for f in sorted(path.glob("*.xml")) for _ in ET.fromstring(f.read_bytes()).iter("object")]


def in_texts(path: Path) -> list[str]:
    files = sorted(path.rglob("*.txt"))
    return [f.stem for f in files for line in f.read_bytes().decode("utf-8-sig").splitlines() if line.strip()]


def in_table(path: Path) -> list[str]:
    rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    return [row[0].strip() for row in rows[1:] if "".join(row).strip()]


def in_folder(path: Path) -> list[str]:
    return [f.name for f in sorted(path.glob("*.png"))]


UNUSED = r"^/annotations/\d/(id|iscrowd)"
STUDIO_UNUSED = (
    r"/(id|from_name|to_name|type|format|ground_truth|annotator|annotation_id|updated_at|lead_time|closed|item_index|"
    r"was_cancelled|rle/\d+)$"
)
LABELME_UNUSED = r"^/(version|imagePath|imageData|flags)|/(group_id|flags)$|^/shapes/[0-3]/mask"
FORMATS = {
    "COCO boxes": Format(coco("boxes"), json_file, in_coco, UNUSED),
    "COCO polygons": Format(coco("polygons"), json_file, in_coco, f"{UNUSED}|/bbox"),
    "COCO runs": Format(coco("runs"), json_file, in_coco, UNUSED),
    "COCO text": Format(coco("text"), json_file, in_coco, UNUSED),
    "COCO panoptic": Format(panoptic, json_file, in_coco, "area"),
    "panoptic PNG": Format(lambda place: panoptic(place).parent, any_file, lambda path: in_coco(path / "coco.json")),
    "Pascal VOC": Format(voc, xml_file, in_voc, "depth|filename"),
    "Label Studio": Format(label_studio, json_file, in_label_studio, STUDIO_UNUSED),
    "Label Studio rows": Format(label_studio_rows, json_file, in_rows, STUDIO_UNUSED),
    "LabelMe": Format(labelme, json_file, in_labelme, LABELME_UNUSED),
    "LabelMe XML": Format(labelme_xml, xml_file, in_voc, "filename|deleted"),
    "YOLO": Format(yolo, text_file, in_texts),
    "YOLO yaml": Format(
        lambda place: yolo(place).parent / "data.yaml", text_file, lambda p: in_texts(p.parent), "yaml"
    ),
    "CSV": Format(table, text_file, in_table),
    "masks": Format(masks, any_file, in_folder),
}


def late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def read(path: Path, pictures: dict[str, Path]) -> Annotations | None:
    """What is read, with its masks drawn; None where it is refused in words."""
    found, said = None, ""
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        found = read_boxes(path, pictures)
        for regions in found.regions.values():
            region_mask(regions, (60, 40), Preprocess((40, 60), (0.5,) * 3, (0.5,) * 3))
        said = "\n".join([f"read {path}", *found.notes, *found.left_out, *found.unmatched])
    except Refused as e:
        said = str(e)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert len(said.encode()) > 20, said  # it can be printed, and is more than a word
    return found


def lost(found: Annotations, objects: list[str]) -> list[str]:
    """Pictures with more objects in the file than are in regions, left out or unmatched by name."""
    missing = []
    for called, count in Counter(objects).items():
        name = next((n for n in ("a.png", "b.png") if called and Path(n).stem == Path(called).stem), "")
        out = sum(why.startswith(f"{name} (") for why in found.left_out) if name else 0
        if name and name not in found.regions and out:
            continue  # the whole picture is left out, by name
        there = len(found.regions.get(name, ())) + out
        stray = any(called in unmatched for unmatched in found.unmatched) if called else bool(found.unmatched)
        if there < count and not stray and not (not called and found.left_out):
            missing.append(f"{called or 'without a picture'}: {there} of {count}")
    return missing


def hunt(name: str, number: int, place: Path) -> None:
    form, rng = FORMATS[name], Random(f"{name} {number}")
    pictures = {n: place / "photos" / n for n in BOXES}
    (place / "photos").mkdir(parents=True)
    for file in pictures.values():
        Image.new("RGB", (60, 40)).save(file)
    (place / "set").mkdir()
    path = form.make(place / "set")
    whole = read(path, pictures)
    assert whole is not None
    assert not lost(whole, form.objects(path))
    done = form.mutate(path, rng)
    found = read(path, pictures)
    if found is None:
        return
    if done.place and not re.search(form.unused, done.place):
        assert found != whole, f"{done.said}: it does not show"
    try:
        objects = form.objects(path)
    except (ValueError, ET.ParseError, OSError, LookupError):
        return  # only what can be gone through here in few lines is counted
    assert not lost(found, objects), (done.said, found)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_lost_without_a_word(tmp_path: Path, name: str) -> None:
    for number in range(QUICK):
        hunt(name, number, tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_lost_without_a_word_in_many(tmp_path: Path, name: str) -> None:
    for number in range(QUICK, QUICK + SLOW):
        hunt(name, number, tmp_path / str(number))
