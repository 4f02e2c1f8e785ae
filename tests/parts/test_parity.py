"""The parity sheet: what it measures, what fails it, and which layer it names."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clearsight as cs
import poolednet
from clearsight.core.classifier import Classifier
from clearsight.errors import Notice, Refused
from clearsight.exporting import to_onnx
from clearsight.exporting.built import build
from clearsight.exporting.int8 import quantise, weighted_nodes
from clearsight.exporting.int8_search import int8_graph, sensitivities
from clearsight.exporting.layers_apart import layer_gaps
from clearsight.exporting.onnx_file import network_graph
from clearsight.exporting.parity import same_answers
from clearsight.exporting.whole_file import onnx_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Deep(nn.Module):
    """Three convolutions with BatchNorm; the second has channels of very different size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
        self.third = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.third(self.second(self.first(x))).mean((2, 3)))
        return scores


def deep() -> Classifier:
    torch.manual_seed(0)
    net = Deep().eval()
    with torch.no_grad():
        net.second[0].weight *= torch.logspace(-3, 1, 8).view(-1, 1, 1, 1)
        net.head.weight *= 10
    return Classifier(net, cs.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3), ("a", "b", "c"), "deep")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Nine pictures of three classes, named after them, of several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(9):
        place = folder / "abc"[i % 3] / f"{i}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)).save(place)
    return folder


@pytest.fixture(scope="module")
def built():
    model = build(deep())
    graph, program = network_graph(model.model, model.head, model.program)
    return model.model, graph, program, torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def by_name(report) -> dict:
    return {f.name: f for f in report.findings}


def test_the_sheet_of_a_right_file(photos: Path, tmp_path: Path) -> None:
    result = cs.export(poolednet.classifier(), tmp_path, verify=photos)
    found = by_name(result.report)
    assert result.status == 0
    assert (found["agreement"].value, found["agreement"].n) == (1.0, 9)
    assert found["agreement"].interval == pytest.approx((0.7009, 1.0), abs=1e-4)  # Wilson of 9 in 9
    assert found["accuracy"].value == 0
    assert found["calibration"].value == pytest.approx(0, abs=1e-3)
    assert found["probabilities"].value < 0.01
    assert found["maps"].value > 0.99
    assert found["preprocessing"].value <= 1
    assert found["precision"].value == 1
    assert "computes 2 in fp32" in found["precision"].headline
    assert found["speed"].tables[0].rows[0]["what"] == "the model on cpu"
    assert "first layer" not in found
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["verdict"] == "The file answers as the model does."
    assert [bar["held"] for bar in written["gate"]] == [True, True]
    assert "Clearsight export" in (tmp_path / "report.html").read_text()
    assert not any("Nothing was compared" in line for line in result.lines())


def test_a_wrong_file_fails_and_its_layer_is_named(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """What is written is damaged in one layer: the bars are missed, the status is 1, and the file is whole."""
    real = network_graph

    def damaged(*words):
        graph, program = real(*words)
        weight = next(t for t in graph.graph.initializer if t.name == "net.second.0.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        values[-1] *= -30
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return graph, program

    monkeypatch.setattr("clearsight.exporting.export.network_graph", damaged)
    result = cs.export(deep(), tmp_path, verify=photos)
    found = by_name(result.report)
    assert result.status == 1
    assert result.report.verdict.startswith("The export fails: ")
    assert "The first to disagree is second.1 (Conv)" in found["first layer"].headline
    assert "carry the name" in found["first layer"].notes[0]
    onnx.checker.check_model(str(result.path))


def test_a_file_that_resizes_otherwise_fails(photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("clearsight.exporting.onnx_pixels.PILLOW_CUBIC", -0.75)
    model = replace(poolednet.classifier(), preprocess=cs.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3, "bicubic"))
    found = by_name(cs.export(model, tmp_path, verify=photos).report)
    assert found["preprocessing"].verdict == "fail"


def test_layers_are_matched_by_name(built) -> None:
    _, graph, program, x = built
    gaps = layer_gaps(graph, program, x)
    assert gaps.matched >= 0.75 * gaps.of
    assert max(gap.error for gap in gaps.gaps) < 1e-5
    assert {gap.layer for gap in gaps.gaps} >= {"first.1", "second.1", "third.0", "head"}


def test_int8_has_a_scale_for_each_channel(built) -> None:
    """One for all would leave nothing of channels a ten-thousandth of the largest."""
    _, graph, _, x = built
    quantised = quantise(graph, x)
    made = {out: node for node in quantised.graph.node for out in node.output}
    sizes = {t.name: t.dims for t in quantised.graph.initializer}
    convolutions = [node for node in quantised.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 3
    for node in convolutions:
        back = made[node.input[1]]
        assert back.op_type == "DequantizeLinear"
        assert list(sizes[back.input[1]]) == [8]
    names = {name for node in quantised.graph.node for name in (*node.input, *node.output)}
    assert {"pixels", "logits"} <= names


def test_entropy_calibration_is_no_other(built, monkeypatch) -> None:
    """It writes the very scales of the smallest and largest values, so there is no option for it."""
    from onnxruntime.quantization import CalibrationMethod, quantize_static

    _, graph, _, x = built
    usual = quantise(graph, x)
    monkeypatch.setattr(
        "onnxruntime.quantization.quantize_static",
        lambda *words, **more: quantize_static(*words, **more | {"calibrate_method": CalibrationMethod.Entropy}),
    )
    other = quantise(graph, x)
    assert {t.name: t.raw_data for t in usual.graph.initializer} == {
        t.name: t.raw_data for t in other.graph.initializer
    }


def test_a_layer_in_float_stays_in_float(built) -> None:
    """ONNX Runtime quantises the weights of a layer that is given 8-bit numbers, unless something stands before it."""
    from clearsight.exporting.whole_file import onnx_precision

    _, graph, _, x = built
    second = weighted_nodes(graph)[1]
    quantised = quantise(graph, x, [second])
    kept = onnx_precision(quantised)
    before = next(n for n in quantised.graph.node if n.name == f"{second}.keep_in_float")
    for node in quantised.graph.node:
        if node.name == second:
            node.input[0] = before.input[0]
    quantised.graph.node.remove(before)
    assert kept.get("fp32", 0) > onnx_precision(quantised).get("fp32", 0)


def test_each_reader_of_8_bit_weights_has_its_own(built) -> None:
    """The map reads those of the last layer too: what it is told must be the same numbers."""
    _, graph, _, x = built
    quantised = quantise(graph, x)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in quantised.graph.initializer}
    turned = {n.output[0]: n.input[0] for n in quantised.graph.node if n.input and n.op_type == "DequantizeLinear"}
    of_weights = {name: given for name, given in turned.items() if given in constants}
    read = [name for n in quantised.graph.node for name in n.input if name in of_weights]
    assert len(read) == len(set(read)) == len(of_weights)
    of_head = [constants[of_weights[name]] for name in read if "head.weight" in name]
    assert len(of_head) == 2
    assert np.array_equal(*of_head)


def test_a_file_whose_layers_share_8_bit_weights_is_opened(built) -> None:
    """By sums that saturate where ONNX Runtime can open it in no other way, which a Notice says."""
    _, graph, _, x = built
    quantised = quantise(graph, x)
    wanted = onnx_session(quantised).run(["logits"], {"pixels": x.numpy()})[0]
    own = [n for n in quantised.graph.node if n.op_type == "DequantizeLinear" and ".of." in n.output[0]]
    for node in own:  # as ONNX Runtime's own quantiser leaves it
        for reader in quantised.graph.node:
            reader.input[:] = [n.partition(".of.")[0] if n == node.output[0] else n for n in reader.input]
        quantised.graph.node.remove(node)
    assert own
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", Notice)
        session = onnx_session(quantised)
    found = session.run(["logits"], {"pixels": x.numpy()})[0]
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    if not np.array_equal(found, wanted):
        assert ["no VNNI" in str(w.message) for w in said if w.category is Notice] == [True]


def test_what_follows_a_layer_in_float_is_in_float_too() -> None:
    """The sum of a residual block, whose few large channels would set the scale of all."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            a = self.first(x).relu()
            scores: Tensor = self.head((a + self.second(a)).mean((2, 3)))
            return scores

    torch.manual_seed(0)
    model = build(Classifier(Residual(), cs.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), ("a", "b", "c")))
    graph, _ = network_graph(model.model, model.head, model.program)
    x = torch.rand(8, 3, 8, 8)
    kinds = [[n.op_type for n in quantise(graph, x, kept).graph.node] for kept in ([], weighted_nodes(graph))]
    assert kinds[0].count("QuantizeLinear") > 3
    assert "QuantizeLinear" not in kinds[1]


def test_the_search_leaves_the_worst_layers_in_float(built) -> None:
    model, graph, _, x = built
    steps = []
    chosen = int8_graph(model, graph, x, 1.1, lambda *step: steps.append(step))  # more than can be reached
    assert [t.in_float for t in chosen.tries][:4] == [0, 1, 2, 3]  # all but one of four
    order = sorted(chosen.moved, key=lambda layer: -chosen.moved[layer])
    assert list(chosen.in_float) == order[: len(chosen.in_float)]
    assert steps
    easy = int8_graph(model, graph, x, 0.0, lambda *step: None)
    assert (easy.in_float, easy.moved, len(easy.tries)) == ((), {}, 1)


def test_sensitivity_is_that_of_one_layer_alone(built) -> None:
    _, graph, _, x = built
    moved = sensitivities(graph, quantise(graph, x), x, lambda *step: None)
    assert set(moved) == set(weighted_nodes(graph))
    assert all(0 < v < 0.5 for v in moved.values())


@pytest.mark.slow
def test_int8_and_fp16_of_the_whole_way(photos: Path, tmp_path: Path) -> None:
    result = cs.export(deep(), tmp_path / "8", precision="int8", verify=photos, agree=0.5)
    found = by_name(result.report)
    assert result.manifest.precision == "int8"
    assert "calibrated on these pictures" in " ".join(found["agreement"].notes)
    assert "layers are in 8 bits" in found["quantisation"].headline
    half = cs.export(deep(), tmp_path / "16", precision="fp16", verify=photos)
    found = by_name(half.report)
    assert half.status == 0
    assert "in fp32" in found["precision"].headline  # this processor has no float16 of its own in ONNX Runtime
    assert found["precision"].verdict == "warn"
    file = to_onnx.open_file(tmp_path / "16")
    assert file.run(np.zeros((2, 20, 20, 3), np.uint8))["probabilities"].dtype == np.float32


def test_a_bar_that_is_missed_is_said(photos: Path, tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.setattr("clearsight.models.loading.load", lambda *words, **more: deep())
    ran = run("export", "demo", "--precision", "int8", "--verify", photos, "--agree", "1", "-o", tmp_path / "out")
    assert ran.status in (0, 1), ran.err
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert ran.status == written["status"]
    assert (tmp_path / "out/model.onnx").exists()


def test_int8_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="give --calibrate DATA, or --verify DATA"):
        cs.export(deep(), tmp_path, precision="int8")


def test_without_verify_it_says_that_nothing_was_proved(tmp_path: Path) -> None:
    lines = cs.export(poolednet.classifier(), tmp_path).lines()
    assert "Nothing was compared: `clearsight export pooled --to onnx --verify DATA`" in lines[-2]


@pytest.mark.parametrize(
    ("scores", "before", "after", "same"),
    [
        ("logits", [[0.6, 0.4], [0.6, 0.4]], [[0.51, 0.49], [0.4, 0.6]], [True, False]),
        ("multi-label", [[0.6, 0.4], [0.6, 0.4]], [[0.9, 0.1], [0.9, 0.6]], [True, False]),
        ("values", [[0.0], [10.0]], [[0.09], [10.2]], [True, False]),
    ],
)
def test_what_the_same_answer_is(scores, before, after, same) -> None:
    model = replace(poolednet.classifier(), scores=scores)
    assert same_answers(model, torch.tensor(before), torch.tensor(after)).tolist() == same
