"""A file of `clearsight export --to onnx` is served by ONNX Runtime with the answers of the network itself."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

import clearsight as cs
from clearsight.errors import Refused
from clearsight.serving.onnx_backend import onnx_backend
from clearsight.serving.serve import backend_of, reference_answers, serve
from clearsight.serving.service import Service
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

pytest.importorskip("onnxruntime", reason="the extra `export` brings ONNX Runtime")
pytest.importorskip("onnxscript", reason="the extra `export` brings onnxscript")
from clearsight.exporting.export import export, formats

onnx = pytest.importorskip("onnx")

MODEL = pooled_model()
PIXELS = np.stack([np.asarray(picture(k, (24, 16))).transpose(2, 0, 1) for k in range(5)])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return export(MODEL, tmp_path_factory.mktemp("export")).path


def test_it_answers_as_torch_does(file):
    found, right = onnx_backend(file), torch_backend(MODEL)
    assert (found.engine, found.map_shape, found.features) == ("onnxruntime", right.map_shape, right.features)
    assert found.about() | {"source": "", "engine": ""} == right.about() | {"source": "", "engine": ""}
    for n, ask in ((1, found.run), (5, found.run), (1, found.run_alone), (5, found.run_alone)):
        a, b = ask(PIXELS[:n]), right.run(PIXELS[:n])
        for name in ("values", "logits", "maps", "features"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed in /proc")
def test_threads_of_a_pass_are_tied_to_no_core(file):
    before = set(os.listdir("/proc/self/task"))
    backends = [onnx_backend(file), onnx_backend(file, threads=2)]
    new = set(os.listdir("/proc/self/task")) - before
    assert len(new) >= 2
    assert all(os.sched_getaffinity(int(thread)) == os.sched_getaffinity(0) for thread in new)
    assert all(len(b.run_alone(PIXELS[:1]).values) == 1 for b in backends)


def test_features_are_found_behind_a_last_layer_of_8_bits(tmp_path):
    for k in range(24):
        (tmp_path / f"{k}.png").write_bytes(as_file(picture(k)))
    pictures = cs.folder(tmp_path)
    file = export(MODEL, tmp_path / "out", precision="int8", calibrate=pictures).path
    found, right = onnx_backend(file), torch_backend(MODEL)
    assert found.features == right.features
    a, b = found.run(PIXELS).features, right.run(PIXELS).features
    assert np.abs(a - b).max() < 0.05 * np.abs(b).max()
    assert reference_answers(found, pictures).method == "knn"


def test_it_is_served_and_explained(file, tmp_path):
    loaded = cs.load(str(file))
    backend = backend_of(loaded)
    assert backend.engine == "onnxruntime"
    (tmp_path / "x.jpg").write_bytes(as_file(picture(), "JPEG"))
    x = cs.pixels(MODEL, tmp_path / "x.jpg")
    with served(Service(backend)) as address:
        body = (tmp_path / "x.jpg").read_bytes()
        answers = httpx.post(f"{address}/predict", content=body).json()
        cam = httpx.post(f"{address}/explain", content=body).json()
        other = httpx.post(f"{address}/explain", params={"method": "saliency", "target": "b"}, content=body).json()
    assert answers["model"] == "model"
    right = MODEL.chances(MODEL(x))[0].tolist()
    assert [a["probability"] for a in answers["answers"]] == pytest.approx(sorted(right, reverse=True), abs=1e-5)
    torch.testing.assert_close(torch.tensor(cam["map"]), cs.explain(MODEL, x, "cam").maps[0], rtol=1e-3, atol=1e-4)
    saliency = cs.explain(MODEL, x, "saliency", cs.ClassScore(1)).maps[0]
    torch.testing.assert_close(torch.tensor(other["map"]), saliency, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("wrong", [False, True])
def test_a_file_that_missed_a_bar_is_served_with_a_warning(wrong, tmp_path, monkeypatch):
    for k in range(12):
        (tmp_path / f"{k}.png").write_bytes(as_file(picture(k)))
    onnx_format = formats()["onnx"]
    whole = onnx_format.whole_model

    def against(graph, manifest, model):
        for tensor in graph.graph.initializer:
            if list(tensor.dims) == [5, 7] and wrong:  # the last layer's weights: the answers change places
                tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        return whole(graph, manifest, model)

    monkeypatch.setattr(onnx_format, "whole_model", against)
    found = export(MODEL, tmp_path / "out", verify=cs.folder(tmp_path))
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if "is served at" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(cs.load(str(found.path)), port=0, say=stop)
    assert found.status == wrong
    assert [line.startswith("The export fails: agreement at least ") for line in said[:-1]] == [True] * wrong


def test_what_is_no_exported_file_is_refused(tmp_path):
    for name, content, words in (("a.onnx", b"hello", "cannot be read|no graph"), ("b.onnx", None, "b.onnx")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(Refused, match=words):
            onnx_backend(tmp_path / name)


def test_a_file_without_a_manifest_is_refused(file, tmp_path):
    model = onnx.load(str(file))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "x.onnx"))
    with pytest.raises(Refused, match="does not say what it takes"):
        onnx_backend(tmp_path / "x.onnx")
