"""Exported files are run as the network that they were exported from, and say what they are."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from torch import nn

import clearsight as cs
import exportednets
from clearsight import ClassScore, Refused
from clearsight.engines.converted.convert import convert
from clearsight.engines.facts import facts_of
from clearsight.engines.signal_stack import kept_signal_stack, signal_stack
from clearsight.errors import NoGradient
from exportednets import LABELS, PRE, our_onnx, small, write

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
STATED = {"labels": LABELS, "preprocess": PRE}


@pytest.fixture
def x():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def opaque(folder, batch=None):
    """The small network in a file with an operator that is not converted: its scores are rounded to bytes and back."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(exportednets.onnx_bytes(batch=batch))
    graph, out = model.graph, model.graph.output[0].name
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "grain"))
    graph.initializer.append(numpy_helper.from_array(np.int8(0), "none"))
    graph.node.append(helper.make_node("QuantizeLinear", [out, "grain", "none"], ["whole"]))
    graph.node.append(helper.make_node("DequantizeLinear", ["whole", "grain", "none"], ["rounded"]))
    graph.output[0].name = "rounded"
    onnx.save(model, folder / "opaque.onnx")
    return folder / "opaque.onnx"


def unconvertible(folder, batch=None):
    """The small network with an operator that torch has not here, and which changes nothing: Hardmax times nothing."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(exportednets.onnx_bytes(batch=batch))
    graph, out = model.graph, model.graph.output[0].name
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    graph.node.append(helper.make_node("Hardmax", [out], ["top"], axis=1))
    graph.node.append(helper.make_node("Mul", ["top", "nothing"], ["zero"]))
    graph.node.append(helper.make_node("Add", [out, "zero"], ["same"]))
    graph.output[0].name = "same"
    onnx.save(model, folder / "closed.onnx")
    return folder / "closed.onnx"


def gradient(model, x):
    z = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(ClassScore(torch.tensor([0, 1, 2]))(model(z)).sum(), z)
    return g


def check_equal(model, x, act=nn.SiLU):
    with torch.no_grad():
        assert (model(x) - small(act)(x)).abs().max() < 1e-4
    assert model.labels == LABELS
    assert model.preprocess == PRE


@pytest.mark.parametrize("act", [nn.SiLU, nn.ReLU, nn.GELU, nn.Hardswish])
def test_a_converted_file_has_the_scores_and_the_gradients_of_its_network(tmp_path, x, act):
    model = cs.load(write(tmp_path, exportednets.onnx_bytes(act)), **STATED)
    check_equal(model, x, act)
    assert (gradient(model, x) - gradient(small(act), x)).abs().max() < 1e-4
    facts = facts_of(model.net)
    assert facts.converted
    assert facts.engine.startswith("ONNX Runtime")
    for name in ("grad-cam(layer=act)", "lrp", "integrated-gradients(steps=4)"):
        here, there = (cs.explain(m, x, name.replace("act", layer), ClassScore(1)).maps
                       for m, layer in ((model, "down"), (small(act), "down")))  # fmt: skip
        assert (here - there).abs().max() < 1e-4 * max(1, there.abs().max())


def test_a_file_of_ours_says_by_itself_what_it_is_and_normalises_once(tmp_path, x):
    for words in (write(tmp_path, our_onnx()), tmp_path):
        model = cs.load(words)
        check_equal(model, x)
        assert (gradient(model, x) - gradient(small(), x)).abs().max() < 1e-4
    with pytest.raises(Refused, match="does its preprocessing by itself"):
        cs.load(tmp_path, preprocess=PRE)
    with pytest.raises(Refused, match="has 5 classes, but 2 labels"):
        cs.load(tmp_path, labels=["a", "b"])
    assert cs.load(tmp_path, labels=list("abcde")).labels == tuple("abcde")


@pytest.mark.parametrize("batch", [None, 1, 2])
def test_a_file_that_is_not_converted_gives_scores_and_no_gradients(tmp_path, x, batch):
    model = cs.load(unconvertible(tmp_path, batch), **STATED)
    check_equal(model, x)
    facts = facts_of(model.net)
    assert not facts.converted
    assert "the operator Hardmax cannot be converted" in facts.about
    with pytest.raises(NoGradient, match=r"ONNX Runtime runs closed\.onnx, which gives scores only.*occlusion"):
        gradient(model, x)
    with pytest.raises(NoGradient, match="ONNX Runtime runs"):
        cs.explain(model, x, "saliency")
    maps, there = (cs.explain(m, x, "occlusion(window=4)", ClassScore(0)).maps for m in (model, small()))
    assert (maps - there).abs().max() < 1e-4
    assert cs.attack(model, x, model(x).argmax(1), "square(queries=5)", eps=0.1).x.shape == x.shape


def test_copies_and_other_processes_open_the_file_anew(tmp_path, x):
    model = cs.load(unconvertible(tmp_path), **STATED)
    for twin in (copy.deepcopy(model.net), pickle.loads(pickle.dumps(model.net))):
        assert torch.equal(twin(model.normalised(x)), model.net(model.normalised(x)))
    assert len(pickle.dumps(model.net)) < 5000  # its path, not its weights
    data = pickle.dumps(model.net)
    write(tmp_path, exportednets.onnx_bytes(), "closed.onnx")
    with pytest.raises(Refused, match=r"closed\.onnx has changed since it was loaded"):
        pickle.loads(data)(x)


def test_fingerprints_are_those_of_the_files(tmp_path):
    one, again = (cs.load(unconvertible(tmp_path), **STATED) for _ in range(2))
    other = cs.load(unconvertible(tmp_path, batch=1), **STATED)
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()


def test_a_changed_weight_is_seen_by_the_engine_itself(tmp_path):
    """The converted graph is checked: with another weight it would be left out, and the engine would answer."""
    from clearsight.engines.converted import convert

    file = write(tmp_path, exportednets.onnx_bytes())
    right = convert.convert

    def wrong(*args):
        net = right(*args)
        with torch.no_grad():
            net.get_submodule("head").bias += 0.01
        return net

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clearsight.models.exported.convert", wrong)
        facts = facts_of(cs.load(file, **STATED).net)
    assert not facts.converted
    assert "gives other scores" in facts.about


def test_a_quantised_file_answers_by_the_engine(tmp_path, x):
    facts = facts_of(cs.load(opaque(tmp_path), **STATED).net)
    assert (facts.converted, facts.precision) == (False, "int8")
    assert "through which no exact gradient flows" in facts.about


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    file = write(tmp_path, exportednets.onnx_bytes())
    with pytest.raises(Refused, match=r"does not say its labels and preprocessing: give labels.*--preprocess FILE"):
        cs.load(file)
    with pytest.raises(Refused, match=r"states pictures \(N, 3, 32, 32\)"):
        cs.load(file, labels=LABELS, preprocess=cs.Preprocess(32, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(Refused, match="leave weights out"):
        cs.load(file, weights="x.pth", **STATED)
    model = cs.load(file, labels=["a", "b"], preprocess=PRE)
    with pytest.raises(Refused, match="gives 5 scores per picture but 2 labels"):
        model(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"no model at all", "no ONNX file, or is damaged"),
        (lambda: exportednets.onnx_bytes()[:2000], "no ONNX file, or is damaged"),
        (lambda: our_onnx().replace(b"pixels", b"pixils"), "no tensor 'pixels' inside"),
        (lambda: our_onnx().replace(b'"scores"', b'"scares"'), "its manifest does not say scores"),
    ],
)
def test_a_broken_file_is_named(tmp_path, data, told):
    write(tmp_path, data if isinstance(data, bytes) else data())
    with pytest.raises(Refused, match=told) as e:
        cs.load(tmp_path)
    assert str(tmp_path / "model.onnx") in str(e.value)


@pytest.mark.parametrize(
    ("place", "told"), [("../w.bin", "outside its folder"), ("w.bin", None), ("v.bin", "copy that")]
)
def test_weights_beside_a_file_are_read_and_others_are_not(tmp_path, x, place, told):
    import onnx
    from onnx.external_data_helper import convert_model_to_external_data

    model = onnx.load_from_string(exportednets.onnx_bytes())
    convert_model_to_external_data(model, location="w.bin", size_threshold=0)
    (tmp_path / "in").mkdir()
    onnx.save(model, tmp_path / "in" / "model.onnx")
    read = onnx.load(tmp_path / "in" / "model.onnx", load_external_data=False)
    for tensor in read.graph.initializer:
        for entry in tensor.external_data:
            entry.value = place if entry.key == "location" else entry.value
    (tmp_path / "in" / "model.onnx").write_bytes(read.SerializeToString())
    (tmp_path / "w.bin").write_bytes((tmp_path / "in" / "w.bin").read_bytes())
    if told is None:
        check_equal(cs.load(tmp_path / "in", **STATED), x)
        weights = (tmp_path / "in" / "w.bin").read_bytes()
        (tmp_path / "in" / "w.bin").write_bytes(weights[: len(weights) // 2])
        told = r"w\.bin is shorter than it says"
    with pytest.raises(Refused, match=told):
        cs.load(tmp_path / "in", **STATED)


def test_a_program_of_torch_export_has_gradients(tmp_path, x):
    model = cs.load(write(tmp_path, exportednets.pt2_bytes(), "model.pt2"), **STATED)
    check_equal(model, x)
    assert (gradient(model, x) - gradient(small(), x)).abs().max() < 1e-4
    for twin in (copy.deepcopy(model.net), pickle.loads(pickle.dumps(model.net))):
        assert torch.equal(twin(x), model.net(x))
    with pytest.raises(Refused, match="among which no layers are left"):
        cs.explain(model, x, "grad-cam")


class Runs:
    """What runs code as it is unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def changed(data, name, change):
    """An archive with one of its parts changed, or added."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as new:
        top = old.namelist()[0].partition("/")[0]
        for part in old.namelist():
            content = old.read(part)
            new.writestr(part, change(content) if part == f"{top}/{name}" else content)
        if f"{top}/{name}" not in old.namelist():
            new.writestr(f"{top}/{name}", change(b""))
    return out.getvalue()


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("data/sample_inputs/model.pt", lambda _: pickle.dumps(Runs()), "pickle of more than tensors"),
        ("models/model.json", lambda b: b.replace(b"torch.ops.aten.silu.default", b"torch.os.system"), "calls torch"),
        ("models/model.json", lambda b: b.replace(b"Symbol('", b"eval('"), "more than arithmetic"),
        ("models/model.json", lambda b: b.replace(b'"guards_code": []', b'"guards_code": ["print(1)"]'), "run as code"),
        ("data/aotinductor/model/x.so", lambda _: b"x", "compiled code"),
        ("data/constants/model_constants_config.json",
         lambda _: b'{"config": {"c": {"path_name": "opaque_obj_0", "use_pickle": true}}}', "an object"),
    ],
)  # fmt: skip
def test_a_program_that_could_run_code_is_refused(tmp_path, capsys, part, change, told):
    data = changed(exportednets.pt2_bytes(), part, change)
    assert data != changed(exportednets.pt2_bytes(), part, lambda b: b)
    with pytest.raises(Refused, match=f"{told}.*could run code of a stranger: .*--trust"):
        cs.load(write(tmp_path, data, "model.pt2"), **STATED)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("data", [b"", b"PK no archive", lambda: exportednets.pt2_bytes()[:3000]])
def test_a_broken_program_is_named(tmp_path, data):
    with pytest.raises(Refused, match=r"model\.pt2"):
        cs.load(write(tmp_path, data if isinstance(data, bytes) else data(), "model.pt2"), **STATED)


def openvino_of(folder, data):
    ov = pytest.importorskip("openvino")
    ov.save_model(ov.convert_model(write(folder, data)), folder / "model.xml", compress_to_fp16=False)
    (folder / "model.onnx").unlink()
    return folder / "model.xml"


def test_openvino_runs_in_float32_and_says_so(tmp_path, x):
    model = cs.load(openvino_of(tmp_path, exportednets.onnx_bytes()), **STATED)
    check_equal(model, x)
    assert facts_of(model.net).precision == "float32"
    with pytest.raises(NoGradient, match=r"OpenVINO runs model\.xml"):
        gradient(model, x)
    for twin in (copy.deepcopy(model.net), pickle.loads(pickle.dumps(model.net))):
        assert torch.equal(twin(x), model.net(x))
    (tmp_path / "model.bin").unlink()
    with pytest.raises(Refused, match="has no weights"):
        cs.load(tmp_path, **STATED)


def test_openvino_of_ours_is_cut_where_its_names_lie(tmp_path, x):
    openvino_of(tmp_path, our_onnx())
    (tmp_path / "clearsight.json").write_text(exportednets.manifest().to_json(), encoding="utf-8")
    check_equal(cs.load(tmp_path), x)


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are those of Linux")
def test_openvino_leaves_the_stack_for_signals_alone(tmp_path, x):
    """It puts its own there and frees it with its last model: the next signal then ends the process without a word."""
    before = signal_stack()
    model = cs.load(openvino_of(tmp_path, exportednets.onnx_bytes()), **STATED)
    model.net(x)
    with kept_signal_stack():
        memory = ctypes.create_string_buffer(1 << 16)
        ctypes.CDLL(None).sigaltstack(struct.pack("@PiN", ctypes.addressof(memory), 0, len(memory)), None)
        assert signal_stack() == (ctypes.addressof(memory), 0, 1 << 16)
    assert signal_stack() == before
    del model
    gc.collect()
    assert signal_stack() == before


def test_a_folder_of_several_is_asked_which(tmp_path):
    write(tmp_path, b"x")
    write(tmp_path, b"x", "model.pt2")
    with pytest.raises(Refused, match=r"several exported models, model\.onnx and model\.pt2: name one"):
        cs.load(tmp_path)


def test_a_layer_may_be_named_as_the_graph_names_its_own_things():
    """`outputs`, `steps`: those of a file come from the network, as the head of fcos does."""
    onnx = pytest.importorskip("onnx")
    kind, weight = onnx.TensorProto.FLOAT, torch.rand(2, 3, 1, 1)
    nodes = [onnx.helper.make_node("Conv", ["x", "outputs.weight"], ["y"])]
    x, y = (
        onnx.helper.make_tensor_value_info(name, kind, ["n", channels, 4, 4]) for name, channels in (("x", 3), ("y", 2))
    )
    graph = onnx.helper.make_graph(
        nodes, "one", [x], [y], [onnx.numpy_helper.from_array(weight.numpy(), "outputs.weight")]
    )
    net = convert(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]))
    z = torch.rand(1, 3, 4, 4)
    assert net(z).detach() == pytest.approx(torch.nn.functional.conv2d(z, weight), abs=1e-6)
    assert "outputs" in dict(net.named_modules())
