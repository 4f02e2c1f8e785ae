"""Export: one file from pictures to answers, which are those of the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
import poolednet
from clearsight.core.classifier import Classifier
from clearsight.engines.manifest import KEY, from_json
from clearsight.errors import Refused
from clearsight.exporting import extras
from clearsight.exporting.built import build
from clearsight.internals.layers import enlarge
from clearsight.testing import linear_text

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def answers(file: Path, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """What the file gives for pictures (N, H, W, C) of 8 bits, by name."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"picture": pictures}), strict=True))


def pictures(n: int = 3, side: int = poolednet.SIDE, channels: int = 3) -> np.ndarray:
    """Pictures of the model's own size, so that nothing is resized."""
    return np.random.default_rng(n).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def pixels(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def head(outputs: int, output_of=None) -> nn.Module:
    """A network of three averaged colours and one dense layer, and what is done with its scores."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.dense = nn.Linear(4, outputs)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.dense(self.features(x).mean((2, 3)))
            return scores if output_of is None else output_of(scores)

    torch.manual_seed(outputs)
    return Net()


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Classifier, cs.Exported]:
    model = poolednet.classifier()
    return model, cs.export(model, tmp_path_factory.mktemp("exported"))


def test_one_file(exported) -> None:
    """The exporter of torch writes the weights beside the graph unless it is told not to."""
    _, result = exported
    assert {p.name for p in result.folder.iterdir()} == {"model.onnx", "export.json"}
    model = onnx.load(result.path, load_external_data=False)
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in model.graph.initializer)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_it_answers_as_the_model_does_for_any_number_of_pictures(exported, n: int) -> None:
    model, result = exported
    given = pictures(n)
    found = answers(result.path, given)
    wanted = model.chances(model(pixels(given)))
    assert list(found) == ["probabilities", "map"]
    assert found["probabilities"].shape == (n, 3)
    assert torch.tensor(found["probabilities"]) == pytest.approx(wanted.detach(), abs=1e-6)


def test_the_map_is_that_of_cam(exported) -> None:
    model, result = exported
    given = pictures(4)
    found = enlarge(torch.tensor(answers(result.path, given)["map"]), model.preprocess.size)
    wanted = cs.explain(model, pixels(given), f"cam(layer={result.manifest.heatmap.layer})").maps
    assert found == pytest.approx(wanted, abs=1e-4 * float(wanted.abs().max()))


def test_the_file_says_what_it_is(exported) -> None:
    model, result = exported
    entries = {e.key: e.value for e in onnx.load(result.path).metadata_props}
    manifest = from_json(entries[KEY], result.path)
    assert manifest == result.manifest
    assert manifest.fingerprint == model.fingerprint()
    assert manifest.preprocess == model.preprocess.as_dict()
    assert entries["names"] == repr({0: "a", 1: "b", 2: "c"})


def test_the_file_names_no_path_of_the_machine_that_wrote_it(exported) -> None:
    _, result = exported
    data = result.path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in data
    assert b"poolednet.py" not in data
    assert b'File "' not in data


def test_the_model_comes_back_as_it_was(new_small) -> None:
    """It is in training mode, its parameters want gradients, and no hook is left."""
    model = new_small()
    before = {k: v.clone() for k, v in model.net.state_dict().items()}
    build(model)
    assert model.net.training
    assert all(p.requires_grad for p in model.net.parameters())
    assert not any(m._forward_hooks for m in model.net.modules())
    assert all((model.net.state_dict()[k] == v).all() for k, v in before.items())


@pytest.mark.parametrize(
    ("scores", "outputs", "labels", "change", "name"),
    [
        ("logits", 3, "abc", None, "probabilities"),
        ("probabilities", 3, "abc", lambda s: s.softmax(1), "probabilities"),
        ("one-logit", 1, "ab", None, "probabilities"),
        ("one-logit", 1, "ab", lambda s: s[:, 0], "probabilities"),
        ("multi-label", 4, "abcd", None, "probabilities"),
        ("values", 1, "a", None, "values"),
    ],
)
def test_every_kind_of_scores(tmp_path: Path, scores, outputs: int, labels: str, change, name: str) -> None:
    preprocess = cs.Preprocess((8, 8), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    model = cs.wrap(head(outputs, change), preprocess, list(labels), scores=scores)
    result = cs.export(model, tmp_path)
    given = pictures(3, side=8)
    found = answers(result.path, given)
    wanted = model.chances(model(pixels(given))).detach()
    assert torch.tensor(found[name]) == pytest.approx(wanted, abs=1e-5)
    assert ("map" in found) == (scores != "probabilities")  # logarithms of them are no sum of channels
    assert (not result.why_no_map) == ("map" in found)
    if "map" in found:
        maps = cs.explain(model, pixels(given), f"cam(layer={result.manifest.heatmap.layer})").maps
        assert torch.tensor(found["map"]) == pytest.approx(maps, abs=1e-4)


def test_grey_pictures_and_no_heatmap(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    model = cs.wrap(net, cs.Preprocess((8, 8), (0.0,), (1.0,)), ["no", "yes"], source="grey")
    result = cs.export(model, tmp_path)
    given = pictures(2, side=8, channels=1)
    found = answers(result.path, given)
    assert list(found) == ["probabilities"]
    assert torch.tensor(found["probabilities"]) == pytest.approx(model(pixels(given)).softmax(1).detach(), abs=1e-6)
    assert "not linear" in result.why_no_map or "weighted" in result.why_no_map
    assert any("No heatmap is inside" in line for line in result.lines())


def test_the_part_of_the_output_that_holds_the_scores(tmp_path: Path) -> None:
    inner = head(3)

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"extra": x.mean((2, 3)), "scores": self.inner(x)}

    model = cs.wrap(Several(), cs.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), list("abc"), output="scores")
    given = pictures(2, side=8)
    found = answers(cs.export(model, tmp_path).path, given)["probabilities"]
    assert torch.tensor(found) == pytest.approx(model(pixels(given)).softmax(1).detach(), abs=1e-6)


def test_weights_of_half_precision_are_written_as_float32(tmp_path: Path) -> None:
    model = cs.wrap(head(3).half(), cs.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), list("abc"))
    result = cs.export(model, tmp_path)
    kinds = {t.data_type for t in onnx.load(result.path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
    assert result.manifest.fingerprint == model.fingerprint()


def test_texts_are_refused(tmp_path: Path) -> None:
    model = linear_text([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]], "a")
    with pytest.raises(Refused, match="export writes models of pictures alone"):
        cs.export(model, tmp_path)


def test_networks_that_torch_cannot_take_are_refused_with_its_reason(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.dense(x.mean((2, 3)))
            return scores * 2 if scores.sum() > 0 else scores

    model = cs.wrap(Branching(), cs.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), ["a", "b"])
    with pytest.raises(Refused, match=r"torch.export cannot take this network \(.*data-dependent"):
        cs.export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_fixed_number_of_pictures_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            n = int(x.shape[0])
            return self.dense(x.mean((2, 3)).reshape(n, 3)) + torch.zeros(2 if n == 2 else n, 2)

    model = cs.wrap(Fixed(), cs.Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), ["a", "b"])
    with pytest.raises(Refused, match=r"torch.export cannot take this network"):
        cs.export(model, tmp_path)


def test_a_missing_library_is_refused_with_the_line_that_installs_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"needs onnx and .* pip install 'clearsight\[export\]'"):
        cs.export(poolednet.classifier(), tmp_path)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="give onnx, "):
        cs.export(poolednet.classifier(), tmp_path, "onxn")


def test_an_export_into_the_folder_of_another_leaves_nothing_of_it(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.fromarray(pictures(1)[0]).save(tmp_path / "photos" / "a.png")
    out = tmp_path / "out"
    cs.export(poolednet.classifier(), out, "triton", verify=tmp_path / "photos")
    (out / "mine.txt").write_text("kept")
    assert (out / "report.html").is_file()
    cs.export(poolednet.classifier(), out)
    assert {p.relative_to(out).as_posix() for p in out.rglob("*")} == {"export.json", "mine.txt", "model.onnx"}


@pytest.mark.parametrize("named", ["../kept.txt", "/etc/hostname", 3, None])
def test_no_file_outside_of_the_folder_is_taken_for_one_of_an_earlier_export(tmp_path: Path, named) -> None:
    from clearsight.exporting.earlier import clear_away, earlier_files

    (tmp_path / "kept.txt").write_text("kept")
    out = tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text(json.dumps({"files": [named]}))
    assert earlier_files(out) <= {"report.html", "report.json"}
    clear_away(out, earlier_files(out))
    assert (tmp_path / "kept.txt").is_file()


def test_pictures_that_do_not_fit_are_refused_before_a_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("no picture")
    with pytest.raises(Refused, match="can be read"):
        cs.export(poolednet.classifier(), tmp_path / "out", verify=tmp_path / "photos")
    assert not (tmp_path / "out").exists()


def test_what_would_change_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="are for int8, and this is fp32: leave calibrate out"):
        cs.export(poolednet.classifier(), tmp_path / "out", calibrate=tmp_path)
    with pytest.raises(Refused, match=r"agree 0\.5 is held against pictures, and none are given: add verify"):
        cs.export(poolednet.classifier(), tmp_path / "out", agree=0.5)


def test_the_command(tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.setattr("clearsight.models.loading.load", lambda *words, **more: poolednet.classifier())
    ran = run("export", "demo", "-o", str(tmp_path / "out"), "--json")
    assert ran.status == 0, ran.err
    assert json.loads(ran.out)["files"] == [str(tmp_path / "out" / "model.onnx")]
    assert not ran.err  # what libraries say does not reach the user


class Pools(nn.Module):
    """Average pooling that divides by numbers of its own."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.pool, self.last = nn.Conv2d(3, 4, 3, padding=1), pool, nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(self.first(x)).flatten(1))


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2, divisor_override=1),
        nn.AvgPool2d((3, 2), 2, (1, 0), count_include_pad=False, divisor_override=5),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    ],
)
def test_pooling_with_a_divisor_of_its_own_answers_as_the_model_does(pool, tmp_path):
    net = Pools(pool).eval()
    net(torch.zeros(1, 3, poolednet.SIDE, poolednet.SIDE))
    preprocess = cs.Preprocess((poolednet.SIDE, poolednet.SIDE), (0.5,) * 3, (0.5,) * 3)
    model = Classifier(net=net, labels=("a", "b", "c"), preprocess=preprocess)
    cs.export(model, tmp_path)
    shown = pictures()
    found = answers(tmp_path / "model.onnx", shown)["probabilities"]
    torch.testing.assert_close(torch.from_numpy(found), model(pixels(shown)).detach().softmax(1), rtol=0, atol=1e-5)


def test_pooling_with_smaller_windows_and_a_divisor_is_refused(tmp_path):
    net = Pools(nn.AvgPool2d(3, 2, ceil_mode=True, divisor_override=1)).eval()
    net(torch.zeros(1, 3, poolednet.SIDE, poolednet.SIDE))
    preprocess = cs.Preprocess((poolednet.SIDE, poolednet.SIDE), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(Refused, match="divisor_override and ceil_mode"):
        cs.export(Classifier(net=net, labels=("a", "b", "c"), preprocess=preprocess), tmp_path)
