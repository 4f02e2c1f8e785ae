"""Export of detectors and segmenters: boxes and class maps of the file are those of the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import clearsight as cs
from clearsight.cli.app import app
from clearsight.cli.options import DataOptions
from clearsight.cli.truth import open_to_compare
from clearsight.data.box_folders import open_boxes
from clearsight.data.images import to_pixels
from clearsight.data.truth_to_input import box_to_original
from clearsight.engines.facts import facts_of
from clearsight.engines.manifest import Suppression, from_json
from clearsight.errors import Refused
from clearsight.exporting.export import formats
from clearsight.exporting.onnx_detections import detections_graph
from clearsight.exporting.place_parity import reported_by, same_boxes
from clearsight.exporting.whole_file import onnx_session
from clearsight.kinds.detections import detections
from clearsight.kinds.detector import Detector
from clearsight.kinds.segmenter import Segmenter
from clearsight.testing import tiny_detector, tiny_segmenter
from placepictures import with_maps
from thinning import with_slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PRE = cs.Preprocess(
    (32, 32), (0.1, 0.2, 0.3), (0.9, 1.0, 1.1), "bilinear", 32
)  # the middle of the longer side is cut out
SIZES = ((60, 80), (32, 32), (90, 33))


def picture(height: int, width: int) -> np.ndarray:
    """Red and blue patches on grey, of any size."""
    values = np.full((height, width, 3), 60, np.uint8)
    values[height // 4 : height // 2, width // 3 : 2 * width // 3] = (250, 10, 20)
    values[height // 2 : 3 * height // 4, width // 2 : 3 * width // 4] = (10, 20, 250)
    return values


def coarse_segmenter() -> Segmenter:
    """One whose logits are a quarter of the picture."""
    net = torch.nn.Sequential(torch.nn.AvgPool2d(4), *tiny_segmenter().net)
    return replace(tiny_segmenter(), net=net, preprocess=PRE)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return replace(tiny_detector(), preprocess=PRE, floor=0.5, overlap=0.3, most=9)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Pictures of three sizes, with a box in each."""
    folder = tmp_path_factory.mktemp("photos")
    for i, size in enumerate(SIZES):
        Image.fromarray(picture(*size)).save(folder / f"{i}.png")
    images = [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(SIZES)]
    truth = [
        {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": h * w / 12,
         "bbox": [w // 3, h // 4, w // 3, h // 4]}
        for i, (h, w) in enumerate(SIZES)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "class 0"}, {"id": 2, "name": "class 1"}]
    (folder / "truth.json").write_text(
        json.dumps({"images": images, "annotations": truth, "categories": categories}), encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def exported(detector, photos, tmp_path_factory) -> cs.Exported:
    data = open_boxes(photos, photos / "truth.json")
    return cs.export(detector, tmp_path_factory.mktemp("detector"), verify=data)


def reported(model: Detector, values: np.ndarray) -> tuple[torch.Tensor, ...]:
    """What a model reports of a picture, in its pixels."""
    x = to_pixels(Image.fromarray(values), model.preprocess)[None]
    (found,) = model.detect(x)
    boxes = box_to_original(found.boxes, (values.shape[1], values.shape[0]), model.preprocess)
    return boxes, found.scores, found.labels


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_in_pixels_of_the_picture(detector, exported, size) -> None:
    """Floor, suppression and the way back from the resized, cut picture are inside; an empty picture has no boxes."""
    file = formats()["onnx"].open_file(exported.folder)
    values = picture(*size)
    found = file.run(np.stack([values, np.zeros_like(values)]))
    boxes, scores, labels = reported(detector, values)
    rows = found["labels"][0] >= 0
    assert 0 < rows.sum() == len(boxes) <= 9
    assert found["labels"][0][rows].tolist() == labels.tolist()
    assert torch.tensor(found["boxes"][0][rows]) == pytest.approx(boxes, abs=1e-3)
    assert torch.tensor(found["scores"][0][rows]) == pytest.approx(scores, abs=0.02)  # a level of 255, times 8
    assert (found["labels"][1] == -1).all()
    assert not found["boxes"][1].any()
    assert not found["scores"][1].any()


def test_suppression_in_the_graph_is_that_of_detections() -> None:
    """Crowded boxes of three classes, some without an area, in two pictures of twice the input's height."""
    draws = torch.Generator().manual_seed(0)
    corner, sides = (torch.rand(2, 60, 2, generator=draws) * n for n in (40, 24))
    logits = torch.randn(2, 60, 4, generator=draws) * 2
    given = torch.cat([corner, corner + sides.clamp(min=1) - 1, logits], 2)
    limits = Suppression(0.15, 0.4, 25)
    graph = detections_graph(cs.Preprocess((64, 64), (0.5,), (0.5,)), limits, 60, 3)
    for name in ("picture.sides", "picture.size"):
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [2]))
    session = onnx_session(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]))
    words = {"candidates": given.numpy(), "picture.sides": np.array([128, 64]), "picture.size": np.array([64, 64])}
    boxes, scores, labels = session.run(["boxes", "scores", "labels"], words)
    for row, wanted in enumerate(detections(given, 0.15, 0.4, 25)):
        assert len(wanted) == 25
        assert labels[row].tolist() == wanted.labels.tolist()
        assert torch.tensor(scores[row]) == pytest.approx(wanted.scores, abs=1e-6)
        assert torch.tensor(boxes[row]) == pytest.approx(wanted.boxes * torch.tensor([1, 2, 1, 2]), abs=1e-4)


def test_the_sheet_of_a_detector(exported) -> None:
    findings = {f.check: f for f in exported.report.findings}
    assert exported.status == 0
    assert findings["agreement"].value == 1
    assert findings["agreement"].n > 3
    assert findings["average precision"].value == 0
    assert findings["preprocessing"].value <= 1
    assert exported.report.facts.data.annotated == 3
    assert "Takes decoded pictures (8 bits) and gives boxes" in exported.lines()[0]


def test_the_manifest_says_what_the_boxes_are(detector, exported) -> None:
    entries = {e.key: e.value for e in onnx.load(exported.path).metadata_props}
    manifest = from_json(entries["clearsight"], exported.path)
    assert manifest == exported.manifest
    record = json.loads(entries["clearsight"])
    assert (record["kind"], record["suppression"]) == ("detector", {"floor": 0.5, "overlap": 0.3, "most": 9})
    assert record["form"].startswith("candidates (N, M, 5 + K)")
    wrong = json.dumps({**record, "suppression": {"floor": 2.0, "overlap": 0.3, "most": 9}})
    with pytest.raises(Refused, match="suppression is not valid"):
        from_json(wrong, "model.onnx")


@pytest.mark.parametrize("to", with_slow(["onnx", "torch-export"], "torch-export"))
def test_it_comes_back_as_the_detector_that_it_was(detector, exported, tmp_path: Path, to) -> None:
    """With its floor and suppression; where the graph is converted, gradients are the network's."""
    result = exported if to == "onnx" else cs.export(detector, tmp_path, to)
    back = cs.load(result.path)
    assert isinstance(back, Detector)
    assert (back.labels, back.floor, back.overlap, back.most) == (detector.labels, 0.5, 0.3, 9)
    x = torch.rand(3, 3, 32, 32, requires_grad=True)
    wanted, given = detector(x), back(x)
    assert given.detach() == pytest.approx(wanted.detach(), abs=1e-4)
    assert any("left" in note or "caller" in note for note in result.notes) == (to != "onnx")
    gradients = [torch.autograd.grad(out[..., 5].sum(), x)[0] for out in (wanted, given)]
    assert gradients[1] == pytest.approx(gradients[0], abs=1e-4)
    square = formats()[to].open_file(result.folder).run(picture(32, 32)[None])  # of which nothing is cut off
    x = to_pixels(Image.fromarray(picture(32, 32)), PRE)[None]
    assert torch.tensor(square["candidates"]) == pytest.approx(detector(x).detach(), abs=1e-4)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_segmenter_and_its_file(photos, tmp_path: Path, to) -> None:
    """Logits are enlarged to the network's input, and the class of each pixel is the largest of them."""
    if to == "openvino":
        pytest.importorskip("openvino")
    model = coarse_segmenter()
    result = cs.export(model, tmp_path, to, verify=photos)
    assert result.status == 0
    assert "mean IoU" not in [f.check for f in result.report.findings]  # nothing is known of these pictures
    found = formats()[to].open_file(tmp_path).run(picture(60, 80)[None])
    x = to_pixels(Image.fromarray(picture(60, 80)), PRE)[None]
    assert torch.tensor(found["logits"]) == pytest.approx(model(x).detach(), abs=0.05)  # a level of 255, times 5
    assert (torch.tensor(found["classes"]) == model.segment(x)).float().mean() > 0.99
    back = cs.load(result.path)
    assert isinstance(back, Segmenter)
    assert back(x).detach() == pytest.approx(model(x).detach(), abs=1e-4)
    facts = facts_of(back.net)
    assert facts is not None
    assert facts.converted == (to == "onnx"), facts.about


def test_a_file_of_another_network_fails_its_sheet(detector, photos, tmp_path: Path, monkeypatch) -> None:
    """Boxes moved by two pixels of the input agree with none; a class map of other weights names other pixels."""
    onnx_format = formats()["onnx"]
    whole = onnx_format.whole_model

    def moved(graph, manifest, model):
        constants = {t.name: t for t in graph.graph.initializer}
        for tensor in constants.values():
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 4 and values.shape[1:3] == (3, 4):  # the templates: classes change places
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), tensor.name))
        return whole(graph, manifest, model)

    monkeypatch.setattr(onnx_format, "whole_model", moved)
    result = cs.export(detector, tmp_path, verify=photos)
    assert result.status == 1
    assert {b.check for b in result.report.facts.gate if not b.held} == {"agreement", "largest difference of a score"}
    assert result.report.verdict.startswith("The export fails: agreement at least 99.0 %")


def test_the_sheet_of_a_segmenter_holds_both_against_the_truth(tmp_path: Path, monkeypatch) -> None:
    """Left half red, right half green, the true boundary i pixels further right in picture i; then classes change."""
    arrays = [np.zeros((32, 32, 3), np.uint8) for _ in range(8)]
    maps = [np.zeros((32, 32), np.int64) for _ in range(8)]
    for i, (array, truth) in enumerate(zip(arrays, maps, strict=True)):
        array[:, :16, 0] = array[:, 16:, 1] = 255
        truth[:, 16 + i :] = 1
    data = with_maps(tmp_path / "maps", arrays, maps, ("class 0", "class 1", "class 2"))
    onnx_format = formats()["onnx"]
    whole = onnx_format.whole_model

    def moved(graph, manifest, model):
        for tensor in graph.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.ndim == 4 and values.shape[:2] == (3, 3):  # red is said to be class 2
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), tensor.name))
        return whole(graph, manifest, model)

    monkeypatch.setattr(onnx_format, "whole_model", moved)
    wrong = cs.export(tiny_segmenter(), tmp_path / "wrong", verify=data).report
    (f,) = (f for f in wrong.findings if f.check == "mean IoU")
    before, after = (128 / 156 + 100 / 128) / 2, 100 / 128 / 3  # of 8 pictures of 32 columns 156 are of class 0
    assert f.headline.startswith(f"Mean IoU with the truth goes from {before:.1%} to {after:.1%} (".replace("%", " %"))
    assert f.value == pytest.approx(after - before)
    assert f.interval is not None
    assert f.interval[0] < f.value < f.interval[1] < 0
    assert (f.n, f.verdict) == (8, "fail")


def test_fp16_int8_and_tensorrt(detector, photos, tmp_path: Path) -> None:
    half = cs.export(detector, tmp_path, precision="fp16", verify=photos)
    assert half.status == 0
    assert any(t.data_type == onnx.TensorProto.FLOAT16 for t in onnx.load(half.path).graph.initializer)
    with pytest.raises(Refused, match=r"int8 leaves .* and the model is a detector: give precision fp16"):
        cs.export(detector, tmp_path, precision="int8", verify=photos)
    with pytest.raises(Refused, match=r"tensorrt takes a classifier, and the model is a detector: give onnx, open"):
        cs.export(detector, tmp_path, "tensorrt")


def test_triton_says_the_shapes_of_all_outputs(detector, tmp_path: Path) -> None:
    result = cs.export(detector, tmp_path, "triton")
    text = (result.folder / result.files[2]).read_text(encoding="utf-8")
    (whole,) = [onnx.load(tmp_path / name) for name in result.files if name.endswith(".onnx")]
    for output in whole.graph.output:
        sides = [d.dim_value for d in output.type.tensor_type.shape.dim][1:]
        assert f'name: "{output.name}"' in text
        assert f"dims: [ {', '.join(map(str, sides))} ]" in text


def test_candidates_are_suppressed_for_files_that_leave_it_to_the_caller(detector) -> None:
    values = picture(60, 80)
    outputs = detector(to_pixels(Image.fromarray(values), PRE)[None]).detach()
    found = reported_by(detector, {"candidates": outputs.numpy()}, (80, 60))
    for given, wanted in zip(found, reported(detector, values), strict=True):
        assert given.tolist() == wanted.tolist()


def test_boxes_have_one_partner_each() -> None:
    box = torch.tensor([[0.0, 0, 100, 100]])
    near = torch.tensor([[0.0, 0, 100, 96], [0, 0, 100, 94]])
    label = torch.tensor([1])
    assert same_boxes(box, label, near[:1], label) == 1
    assert same_boxes(box, label, near[1:], label) == 0
    assert same_boxes(box, label, near[:1], label + 1) == 0
    assert same_boxes(box.repeat(2, 1), label.repeat(2), near[:1], label) == 1
    thin = torch.tensor([[5.0, 5, 5, 50]])  # without an area, so without an IoU
    assert [same_boxes(thin, label, thin + by, label) for by in (0.4, 0.6)] == [1, 0]
    assert same_boxes(box[:0], label[:0], near, label.repeat(2)) == 0


def test_a_number_of_regions_that_the_picture_decides_is_refused(detector, tmp_path: Path) -> None:
    """As Faster R-CNN, whose boxes are those of its proposals."""

    class Proposing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = (x[:, :1].flatten() > 0).nonzero()
            return x.new_zeros(x.shape[0], 4, 7) + (1.0 if seen.numel() > 100 else 0.0)

    with pytest.raises(Refused, match="how much it computes depends on what the picture shows"):
        cs.export(replace(detector, net=Proposing()), tmp_path)


def test_the_command_line_compares_with_boxes_only_where_they_are_named(detector, photos) -> None:
    with_boxes = open_to_compare(detector, str(photos), DataOptions(boxes=str(photos / "truth.json")))
    without = open_to_compare(detector, str(photos), DataOptions())
    assert [[p.boxes is not None for p in data.pictures] for data in (with_boxes, without)] == [[True] * 3, [False] * 3]


def test_pictures_without_boxes_prove_nothing(detector, tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / "grey" / "a.png")
    result = cs.export(detector, tmp_path / "out", verify=tmp_path / "grey")
    assert result.status == 1
    assert "nothing is proved" in result.report.findings[0].headline


def test_an_exported_detector_is_audited_from_the_command_line(exported, photos, tmp_path: Path) -> None:
    words = ["audit", str(exported.path), str(photos), "--boxes", str(photos / "truth.json")]
    result = CliRunner().invoke(app, [*words, "--only", "detection-accuracy", "-o", str(tmp_path / "out"), "--json"])
    report = json.loads(result.stdout)
    assert any("within" in note and "of those of ONNX Runtime" in note for note in report["data"]["notes"])
    assert (report["model"]["kind"], report["findings"][0]["name"]) == ("detector", "detection-accuracy")
