"""int8: rounding errors that cancel, biases that take up the mean error, and which layers stay in float."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.classifier import Classifier
from clearsight.exporting.built import build
from clearsight.exporting.int8_rounding import bias_shift, rounded

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from clearsight.exporting.int8 import quantise, weighted_nodes  # noqa: E402
from clearsight.exporting.int8_rounding import rounded_layers  # noqa: E402
from clearsight.exporting.int8_search import fewest, int8_graph, multiply_adds  # noqa: E402
from clearsight.exporting.onnx_file import network_graph  # noqa: E402
from clearsight.exporting.whole_file import onnx_session  # noqa: E402

QUIET = lambda *step: None  # noqa: E731


class Mixed(nn.Module):
    """Every shape of layer: strided and padded, depthwise, pointwise, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.depthwise(self.first(x).clamp(0, 6)).clamp(0, 6)).relu()
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


def graph_of(net: nn.Module) -> tuple[Classifier, onnx.ModelProto]:
    labels = tuple("abcde")
    model = build(Classifier(net.eval(), cs.Preprocess((16, 16), (0.5,) * 3, (0.5,) * 3), labels, "mixed"))
    return model.model, network_graph(model.model, model.head, model.program)[0]


def mixed(hard: bool = False) -> tuple[Classifier, onnx.ModelProto, Tensor]:
    """Pictures are smooth, as photographs are; hard: in one layer all weights but one are less than half a step."""
    torch.manual_seed(0)
    net = Mixed()
    if hard:
        with torch.no_grad():  # what weighs most is given nothing but zeros
            net.depthwise.bias[[0, 4]] = -1000
            net.grouped.weight[:, 0, 1, 1] = 500
    x = nn.functional.interpolate(torch.rand(40, 3, 5, 5), size=(16, 16), mode="bilinear")
    with torch.no_grad():  # so that answers differ
        net.head.bias -= net(2 * x - 1).mean(0)
    return *graph_of(net), x


def outputs(graph: onnx.ModelProto, x: Tensor, name: str = "logits") -> Tensor:
    return torch.from_numpy(onnx_session(graph).run([name], {"pixels": x.numpy()})[0])


def test_rounding_beats_the_nearest_and_comes_near_the_best_of_all() -> None:
    """Against every whole number within one step, for filters of four weights."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, generator=g) + 0.3 * torch.randn(200, 4, generator=g)
    h = (x.T @ x / 200)[None].double()
    w = torch.randn(1, 50, 4, generator=g).double() * 3
    step = torch.full((1, 50), 1.0)

    def cost(q: Tensor) -> Tensor:
        e = w - q
        return ((e @ h) * e).sum(-1)

    choices = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0, 2.0])] * 4).double()
    best = torch.stack([cost(w.floor() + c) for c in choices]).amin(0)
    found, nearest = cost(rounded(w, step, h)), cost(w.round())
    assert found.mean() < 0.5 * nearest.mean()
    assert found.mean() < 1.6 * best.mean()
    assert (found >= best - 1e-9).all()


def test_rounding_with_independent_inputs_is_to_the_nearest() -> None:
    w = torch.linspace(-3, 3, 40).reshape(1, 8, 5) + 0.01
    assert torch.equal(rounded(w, torch.ones(1, 8), torch.eye(5)[None]).float(), w.round())


def test_a_bias_takes_up_the_mean_error_of_a_linear_layer() -> None:
    """In closed form: the mean of W x + b is W E[x] + b."""
    torch.manual_seed(1)
    w, b, x = torch.randn(1, 4, 6), torch.randn(1, 4), torch.rand(1000, 6) + 1
    q = (w * 4).round() / 4
    shift = bias_shift(w, q, x.mean(0, keepdim=True))
    before, after = x @ w[0].T + b[0], x @ q[0].T + b[0] + shift[0]
    assert (before - (x @ q[0].T + b[0])).mean(0).abs().max() > 0.05
    torch.testing.assert_close(before.mean(0), after.mean(0), atol=1e-4, rtol=0)


def test_each_shape_of_layer_is_rounded_for_what_it_is_given() -> None:
    """Each layer's own error, with its float inputs, is less than to the nearest: so the inputs are the right ones."""
    _, graph, x = mixed()
    names = weighted_nodes(graph)
    found = rounded_layers(graph, names, x)
    assert set(found) == set(names)
    constants = {t.name: t for t in graph.graph.initializer}
    for node in graph.graph.node:
        if node.name not in names:
            continue
        errors, means = [], []
        for ours in (True, False):
            one = onnx.ModelProto()
            one.CopyFrom(graph)
            there = {t.name: t for t in one.graph.initializer}
            w = onnx.numpy_helper.to_array(constants[node.input[1]])
            flat = tuple(range(1, w.ndim))
            s = np.abs(w).max(flat, keepdims=True) / 127
            q = found[node.name].weights.numpy() if ours else np.round(w / s)
            assert np.abs(q * s - w).max() <= 3 * s.max()
            there[node.input[1]].CopyFrom(onnx.numpy_helper.from_array((q * s).astype(np.float32), node.input[1]))
            if ours:
                b = onnx.numpy_helper.to_array(constants[node.input[2]]) + found[node.name].shift.numpy()
                there[node.input[2]].CopyFrom(onnx.numpy_helper.from_array(b.astype(np.float32), node.input[2]))
            for m in (one, graph):
                if node.output[0] not in {o.name for o in m.graph.output}:
                    m.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
            gap = outputs(one, x, node.output[0]) - outputs(graph, x, node.output[0])
            errors.append(float(gap.square().mean()))
            means.append(float(gap.transpose(0, 1).flatten(1).mean(1).abs().max()))
        assert errors[0] < 0.7 * errors[1], (node.name, errors)
        assert means[0] < 0.5 * means[1], (node.name, means)


def test_the_file_holds_the_rounded_weights_and_scores_in_float() -> None:
    _, graph, x = mixed()
    names = weighted_nodes(graph)
    found = rounded_layers(graph, names, x)
    quantised = quantise(graph, x, names[:1], found)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in quantised.graph.initializer}
    for node in graph.graph.node:
        if node.name in names[1:]:
            assert np.array_equal(stored[f"{node.input[1]}_quantized"], found[node.name].weights.numpy())
    first = next(node for node in graph.graph.node if node.name == names[0])
    bias = next(t for t in graph.graph.initializer if t.name == first.input[2])
    assert np.array_equal(stored[first.input[2]], onnx.numpy_helper.to_array(bias))  # in float: nothing to take up
    made = {out: node for node in quantised.graph.node for out in node.output}
    assert made["logits"].op_type == "Gemm"


def test_sums_of_products_of_8_bits_are_exact() -> None:
    """127 times 127, eight of them: where x86 has no VNNI, ONNX Runtime by itself stops pairs of them at 32,767."""
    scale, zero = np.float32(1), np.int8(0)
    constants = {"s": scale, "z": zero, "w": np.full((4, 8, 1, 1), 127, np.int8), "t": np.float32(2000)}
    nodes = [
        onnx.helper.make_node(op, given, [made])
        for op, given, made in (
            ("QuantizeLinear", ["pixels", "s", "z"], "a"),
            ("DequantizeLinear", ["a", "s", "z"], "b"),
            ("DequantizeLinear", ["w", "s", "z"], "c"),
            ("Conv", ["b", "c"], "d"),
            ("QuantizeLinear", ["d", "t", "z"], "e"),
            ("DequantizeLinear", ["e", "t", "z"], "logits"),
        )
    ]
    ends = [onnx.helper.make_tensor_value_info(n, 1, [1, k, 4, 4]) for n, k in (("pixels", 8), ("logits", 4))]
    kept = [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = onnx.helper.make_graph(nodes, "sums", ends[:1], ends[1:], kept)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    found = outputs(model, torch.full((1, 8, 4, 4), 127.0))
    torch.testing.assert_close(found, torch.full((1, 4, 4, 4), 8.0 * 127**2), rtol=0, atol=1000)  # half a step of 2000


def test_the_hard_layer_is_the_one_left_in_float() -> None:
    model, graph, x = mixed(hard=True)
    chosen = int8_graph(model, graph, x, 0.8, QUIET)
    assert chosen.tries[0].agreement < 0.8
    assert chosen.in_float == ("grouped",)
    assert chosen.tries[-1].agreement >= 0.9  # half as many may change as 0.8 allows
    work = multiply_adds(graph, x)
    assert chosen.work == pytest.approx(1 - max(work.values()) / sum(work.values()))


def found_by(agreements: dict[int, float], agree: float) -> tuple[int, list[int]]:
    """How many of 49 layers are left in float where so many give such agreement, and what was tried."""
    asked = []

    def tried(kept: list[str]) -> tuple[float, str]:
        asked.append(len(kept))
        return max(v for k, v in agreements.items() if k <= len(kept)), f"{len(kept)}"

    worst = [str(k) for k in range(49)]
    kept, graph = fewest(worst, (agreements[0], "0"), agree, tried)  # type: ignore[arg-type]
    assert graph == str(len(kept))
    return len(kept), asked


def test_as_few_layers_stay_in_float_as_hold() -> None:
    assert found_by({0: 0.9, 5: 1.0}, 0.99) == (5, [1, 2, 4, 8, 6, 5])
    assert found_by({0: 0.9, 3: 0.99, 40: 1.0}, 0.99) == (3, [1, 2, 4, 8, 3])  # the margin would cost too much
    assert found_by({0: 0.9, 30: 0.99}, 0.99)[0] == 32  # beyond half where it must
    assert found_by({0: 0.9, 7: 0.95}, 0.99)[0] == 7  # none holds: the best of those
    assert found_by({0: 0.9}, 0.99)[1][-1] == 48  # all but one


def test_multiply_adds_are_those_of_the_shapes() -> None:
    _, graph, x = mixed()
    assert list(multiply_adds(graph, x).values()) == [8 * 64 * 27, 8 * 64 * 9, 12 * 64 * 36, 12 * 5]
