"""Export to formats beside ONNX: what each must get right so that it answers as the model does."""

from __future__ import annotations

import ast
import importlib.util
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
import poolednet
from clearsight.core.classifier import Classifier
from clearsight.data.images import to_bytes
from clearsight.engines.manifest import FILE, KEY, from_json
from clearsight.errors import Refused
from clearsight.exporting import to_openvino, to_tensorrt, to_torch_export, to_triton
from clearsight.exporting.export import formats
from thinning import with_slow

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def model_of(interpolation="bicubic", resize: int | None = 20) -> Classifier:
    preprocess = cs.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, interpolation, resize)
    return replace(poolednet.classifier(), preprocess=preprocess)


def noise(height: int, width: int) -> Image.Image:
    """Black and white, which overshoots between the two passes of a resize."""
    values = np.random.default_rng(height).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255
    return Image.fromarray(values)


def levels_apart(file, model: Classifier, sizes) -> list[float]:
    found = []
    for size in sizes:
        picture = noise(*size)
        levels = np.round(file.pixels(np.asarray(picture)[None])[0] * 255)
        found.append(float(np.abs(levels - to_bytes(picture, model.preprocess).numpy()).max()))
    return found


def answers_apart(file, model: Classifier, n: int) -> float:
    """The largest difference of a probability, for n pictures of the model's own proportions at once."""
    picture = noise(33, 40)
    found = file.run(np.repeat(np.asarray(picture)[None], n, 0))
    x = to_bytes(picture, model.preprocess)[None].float() / 255
    wanted = model.chances(model(x)).detach().numpy()
    assert found["probabilities"].shape == (n, 3)
    assert found["map"].shape == (n, 16, 16)
    return float(np.abs(found["probabilities"] - wanted).max())


def test_the_formats_are_the_files_that_are_there() -> None:
    assert set(formats()) == {"onnx", "openvino", "tensorrt", "torch-export", "triton"}


def test_torch_export(tmp_path: Path) -> None:
    """Any number of pictures of any size: an example of one picture would make a program that refuses two."""
    model = model_of()
    result = cs.export(model, tmp_path, "torch-export")
    file = to_torch_export.open_file(tmp_path)
    assert result.files == ("model.pt2", "model.pixels.pt2")
    assert max(answers_apart(file, model, n) for n in (1, 2, 5)) < 1e-3
    assert max(levels_apart(file, model, ((40, 50), (33, 21), (64, 16), (10, 90), (2, 3)))) <= 1
    inner = torch.export.load(tmp_path / "model.pixels.pt2", extra_files=(extra := {FILE: ""})).module()
    x = torch.rand(3, 3, 16, 16)
    assert inner(x).detach() == pytest.approx(model(x).detach(), abs=1e-5)
    assert from_json(extra[FILE], "model.pixels.pt2") == result.manifest
    with zipfile.ZipFile(tmp_path / "model.pt2") as whole:
        assert not any(b"poolednet.py" in whole.read(name) for name in whole.namelist())


@pytest.mark.parametrize("interpolation", with_slow(["nearest", "bilinear"], "nearest"))
def test_torch_export_resizes_as_pillow_does(tmp_path: Path, interpolation) -> None:
    model = model_of(interpolation, None)
    cs.export(model, tmp_path, "torch-export")
    apart = levels_apart(to_torch_export.open_file(tmp_path), model, ((40, 50), (33, 21), (64, 16)))
    assert max(apart) <= (0 if interpolation == "nearest" else 1)


@pytest.fixture(scope="module")
def openvino_file(tmp_path_factory) -> tuple[Classifier, cs.Exported]:
    pytest.importorskip("openvino")
    model = model_of()
    return model, cs.export(model, tmp_path_factory.mktemp("openvino"), "openvino")


def test_openvino_answers_in_float32(openvino_file) -> None:
    model, result = openvino_file
    file = to_openvino.open_file(result.folder)
    assert max(answers_apart(file, model, n) for n in (1, 3)) < 1e-3
    assert file.computes_in == {"fp32": 2}


def test_openvino_pixels_are_those_of_pillow(openvino_file) -> None:
    """What OpenVINO makes of ONNX's own antialiased Resize is off by up to 58 of 255."""
    model, result = openvino_file
    file = to_openvino.open_file(result.folder)
    assert max(levels_apart(file, model, ((40, 50), (33, 21), (64, 16), (10, 90), (1, 1), (1, 30)))) <= 1


def test_openvino_weights_are_saved_as_they_are(openvino_file) -> None:
    import openvino

    model, result = openvino_file
    saved = openvino.Core().read_model(result.path)
    weight = model.net.features[0].weight.detach().numpy()
    constants = [op.data for op in saved.get_ops() if op.get_type_name() == "Constant"]
    assert any(c.shape == weight.shape and c.dtype == np.float32 for c in constants)
    assert not any(c.dtype == np.float16 for c in constants)


def test_openvino_names_and_manifest(openvino_file) -> None:
    import openvino

    _, result = openvino_file
    saved = openvino.Core().read_model(result.path)
    names = {name for op in saved.get_ops() for port in op.outputs() for name in port.get_names()}
    assert {"picture", "pixels", "logits", "probabilities", "map"} <= names
    assert from_json((result.folder / FILE).read_text(), FILE) == result.manifest
    assert from_json(saved.get_rt_info(KEY).astype(str), "model.xml") == result.manifest


def test_the_user_of_openvino_is_told_how_to_compile_it(openvino_file) -> None:
    assert any("INFERENCE_PRECISION_HINT" in line for line in openvino_file[1].lines())


def test_float16_is_refused_where_the_format_has_none(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--to torch-export has no fp16: it has fp32"):
        cs.export(model_of(), tmp_path, "torch-export", precision="fp16")


def test_triton(tmp_path: Path) -> None:
    """A repository: the configuration, a label on each line, the model in a folder for its version."""
    model = replace(model_of(), source="timm:resnet18.x", labels=("a b", "c\nd", "é"))
    result = cs.export(model, tmp_path, "triton")
    home = tmp_path / "repository/timm-resnet18.x"
    assert result.path == home / "1/model.onnx"
    assert (home / "labels.txt").read_text(encoding="utf-8").splitlines() == ["a b", "c d", "é"]
    config = (home / "config.pbtxt").read_text()
    assert 'name: "timm-resnet18.x"' in config
    assert "dims: [ -1, -1, 3 ]" in config
    assert "dims: [ 16, 16 ]" in config
    assert config.count("{") == config.count("}")
    assert config.count("[") == config.count("]")
    assert answers_apart(to_triton.open_file(tmp_path), model, 2) < 1e-3


def described_by(package: str, file: str):
    """A module of a package by its file, without what the package around it would import."""
    spec = importlib.util.find_spec(package)
    place = Path(spec.submodule_search_locations[0], file) if spec else None
    if place is None or not place.exists():
        pytest.skip(f"{package} is not installed")
    found = importlib.util.spec_from_file_location("described", place)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_configuration_is_what_the_server_reads(tmp_path: Path) -> None:
    """Parsed by the server's own description of it, where tritonclient brings that."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    described = described_by("tritonclient", "grpc/model_config_pb2.py")
    cs.export(model_of(), tmp_path, "triton")
    found = text_format.Parse(next(tmp_path.rglob("config.pbtxt")).read_text(), described.ModelConfig())
    assert found.max_batch_size == 32
    assert found.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(found.input[0].dims) == [-1, -1, 3]
    assert [(o.name, list(o.dims)) for o in found.output] == [("probabilities", [3]), ("map", [16, 16])]
    assert found.output[0].label_filename == "labels.txt"
    assert found.model_warmup[0].inputs["picture"].random_data


def test_tensorrt(tmp_path: Path) -> None:
    """A script that Python can read, for this very model, and a sheet that says that it was not run."""
    result = cs.export(model_of(), tmp_path, "tensorrt", precision="fp16")
    script = (tmp_path / to_tensorrt.SCRIPT).read_text()
    found = {n.targets[0].id: ast.literal_eval(n.value) for n in ast.parse(script).body if isinstance(n, ast.Assign)}
    assert (found["PRECISION"], found["CHANNELS"], found["SIZE"]) == ("fp16", 3, (16, 16))
    assert "**This was not run where it was written.**" in (tmp_path / "TENSORRT.md").read_text()
    assert any("No engine was built here" in line for line in result.lines())
    kinds = {t.data_type for t in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


def test_what_the_engine_says_of_its_layers_is_counted(tmp_path: Path) -> None:
    """The part of the script that reads the precision back, on layers as TensorRT describes them."""
    cs.export(model_of(), tmp_path, "tensorrt")
    space: dict = {"__name__": "script"}
    exec(compile((tmp_path / to_tensorrt.SCRIPT).read_text(), "build_engine.py", "exec"), space)

    def layer(kind: str, words: str) -> dict:
        return {"Name": kind, "LayerType": kind, "Inputs": [{"Format/Datatype": words}]}

    layers = [
        layer("CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
        layer("CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format"),
        layer("CaskGemmMatrixMultiply", "Row major linear FP32"),
        layer("Reformat", "Row major linear FP32"),
    ]
    assert space["computes_in"](layers) == {"fp16": 1, "int8": 1, "fp32": 1}
    assert json.dumps(layers)
