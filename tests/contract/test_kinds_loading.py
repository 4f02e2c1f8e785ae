"""Detectors and segmenters by words: loaded, saved, loaded again bit by bit; wrong words are refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import clearsight as cs
from clearsight.core.catalogue import catalogue
from clearsight.models import architectures, torchvision_kinds
from clearsight.models.torchvision_kinds import DETECTORS, is_published_file
from clearsight.testing import tiny_detector, tiny_segmenter
from detectornets import as_if_trained

PRE = cs.Preprocess(64, (0.4, 0.5, 0.6), (0.25,) * 3)
LABELS = ["cat", "dog"]
SMALL = {  # the smallest of each network of the catalogue; those of torchvision are as they are
    "fcos": "fcos(backbone=tiny, width=16)",
    "yolo-v1": "yolo-v1(backbone=tiny, grid=3, dense=16)",
    "faster-rcnn": "faster-rcnn(backbone=mobilenet-320, proposals=20)",
    "fcn": "fcn(stride=16, backbone=tiny)",
    "unet": "unet(width=4, depth=2)",
    "heatmaps": "heatmaps(backbone=tiny, width=8)",
}
LARGE = ("retinanet", "torchvision-fcos", "resnet", "fasterrcnn", "clearsight:deeplabv3", "clearsight:lraspp")
WORDS = [f"clearsight:{SMALL.get(n, n)}" for folder in ("detectors", "segmenters") for n in catalogue(folder)]
WORDS += [f"torchvision:{n}" for n in DETECTORS]
WORDS += [f"torchvision:{n}" for n in ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")]
WORDS += [f"torchvision:{n}" for n in ("deeplabv3_resnet50", "fcn_resnet50")]
of_small = "torchvision:ssdlite320_mobilenet_v3_large"


def thinned(words: list[str]) -> list[Any]:
    """The large networks only where slow tests are run."""
    return [pytest.param(w, marks=pytest.mark.slow) if any(n in w for n in LARGE) else w for w in words]


def quiet(_: str) -> None:
    pass


def loaded(words: str, **given: Any) -> cs.Model:
    options: dict[str, Any] = {"weights": "none", "labels": LABELS, "preprocess": PRE}
    return cs.load(words, **{**options, **given}, say=quiet)


def stirred(model: cs.Model) -> cs.Model:
    """The model with other weights and buffers than it was built with, whose outputs tell pictures apart."""
    g = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for v in model.net.state_dict().values():
            if v.is_floating_point():
                v.add_((torch.rand(v.shape, generator=g) - 0.5) * 0.002)
    if model.kind == "detector":
        as_if_trained(model.net, (3, *model.preprocess.size))
    return model


def outputs(model: cs.Model) -> Tensor:
    x = torch.rand(1, 3, *model.preprocess.size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad(), model.undisturbed():
        return model(x)


@pytest.mark.parametrize("words", thinned(WORDS))
def test_every_word_is_loaded_saved_and_read_back_bit_by_bit(words: str, tmp_path: Path) -> None:
    model = replace(stirred(loaded(words)), channels_last=words == WORDS[0])
    if isinstance(model, cs.Detector):
        model = replace(model, floor=0.125, overlap=0.75, most=7)
    assert outputs(model)[..., 5 if model.kind == "detector" else 0 :].unique().numel() > 3
    assert not torch.equal(outputs(loaded(words)), outputs(model))
    folder = cs.save(model, tmp_path / "m")
    again = cs.load(folder)
    assert type(again) is type(model)
    assert again.kind == architectures.kind_of(words)
    assert torch.equal(outputs(again), outputs(model))
    assert outputs(again).shape[-1] == (7 if isinstance(model, cs.Detector) else 64)
    same = ("labels", "preprocess", "output", "channels_last")
    same += ("floor", "overlap", "most") if isinstance(model, cs.Detector) else ()
    assert all(getattr(again, name) == getattr(model, name) for name in same)
    config = json.loads((folder / "config.json").read_text())
    assert config["schema"] == 1
    assert config["kind"] == model.kind
    assert "scores" not in config
    assert ("floor" in config) == (model.kind == "detector")
    third = cs.load(cs.save(again, tmp_path / "n"))
    assert torch.equal(outputs(third), outputs(model))


def test_names_of_the_three_folders_are_each_of_one_kind() -> None:
    names = [n for folder in architectures.KINDS for n in catalogue(folder)]
    assert len({*names}) == len(names)
    known = architectures.names()
    assert {f"clearsight:{n}" for n in names} <= {*known}
    assert {f"torchvision:{n}" for n in DETECTORS} <= {*known}
    assert all(architectures.kind_of(f"torchvision:{n}") == "detector" for n in DETECTORS)
    assert architectures.kind_of("torchvision:resnet18") == architectures.kind_of("timm:resnet18") == "classifier"


def test_a_folder_of_a_classifier_is_as_it_was_before(tmp_path: Path) -> None:
    model = cs.load("clearsight:lenet5", weights="none")
    config = json.loads((cs.save(model, tmp_path) / "config.json").read_text())
    assert [*config] == ["schema", "architecture", "labels", "preprocess", "output", "scores"]


def test_torchvision_names_the_classes_and_says_the_preprocessing() -> None:
    detector = cs.load(of_small, weights="none")
    assert len(detector.labels) == 90
    assert (detector.labels[0], detector.labels[11], detector.labels[12]) == ("person", "N/A", "stop sign")
    assert detector.labels[89] == "toothbrush"  # COCO's number 90, and the background is none
    assert detector.preprocess == cs.Preprocess(320, (0.5,) * 3, (0.5,) * 3)
    segmenter = cs.load("torchvision:lraspp_mobilenet_v3_large", weights="none", preprocess=PRE)
    assert segmenter.labels[0] == "__background__"
    assert len(segmenter.labels) == 21
    pre = architectures.default_preprocess("torchvision:lraspp_mobilenet_v3_large")
    assert pre == cs.Preprocess(520, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pre = architectures.default_preprocess("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn")
    assert pre == cs.Preprocess(320, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_weights_of_torchvision_fit_under_its_names_of_now_and_of_before(tmp_path: Path) -> None:
    """Its files of 2019 call layers otherwise, have no counters of batches, and hold an auxiliary head."""
    from torchvision.models import get_model

    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=3).state_dict()
    old = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    old = {k.replace("_blocks.0.0.", "_blocks.0.").replace("head.conv.0.0.", "head.conv."): v for k, v in old.items()}
    assert len(old.keys() - theirs.keys()) >= 4
    for state in (theirs, old):
        torch.save(state, tmp_path / "w.pth")
        model = loaded(f"torchvision:{name}", weights=tmp_path / "w.pth")
        assert all(torch.equal(v, theirs[k]) for k, v in model.net.net.state_dict().items())
    with pytest.raises(cs.Refused, match="holds weights for 2 classes besides the background, but there are 3 labels"):
        loaded(f"torchvision:{name}", weights=tmp_path / "w.pth", labels=["a", "b", "c"])
    del old["rpn.head.conv.bias"]
    torch.save(old, tmp_path / "w.pth")
    with pytest.raises(cs.Refused, match=r"it lacks rpn\.head\.conv\.0\.0\.bias; check"):
        loaded(f"torchvision:{name}", weights=tmp_path / "w.pth")
    name = "deeplabv3_mobilenet_v3_large"
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=2, aux_loss=True).state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    model = loaded(f"torchvision:{name}", weights=tmp_path / "w.pth")
    assert all(torch.equal(v, theirs[k]) for k, v in model.net.state_dict().items())
    with pytest.raises(cs.Refused, match="holds weights for 2 classes, but there are 3 labels"):
        loaded(f"torchvision:{name}", weights=tmp_path / "w.pth", labels=["a", "b", "c"])


def test_weights_of_a_run_folder_fit_too(tmp_path: Path) -> None:
    model = stirred(loaded(of_small))
    file = cs.save(model, tmp_path) / "model.safetensors"
    assert torch.equal(outputs(loaded(of_small, weights=file)), outputs(model))


def test_a_published_file_is_known_by_its_digest_and_its_batch_norm_is_kept(tmp_path: Path) -> None:
    """torchvision adds nothing to the variance with these weights, and a small number with all others."""
    file = tmp_path / "renamed.pth"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert is_published_file(file, f"https://example.org/net-{digest[:8]}.pth")
    other = digest[:7] + ("1" if digest[7] == "0" else "0")
    assert not is_published_file(file, f"https://example.org/net-{other}.pth")
    assert not is_published_file(file, "https://example.org/net.pth")
    for name in ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"):
        assert torchvision_kinds.runs_without_eps(name, None)
        assert not torchvision_kinds.runs_without_eps(name, file)
    assert not torchvision_kinds.runs_without_eps("fcos_resnet50_fpn", None)
    model = stirred(loaded(of_small))
    before = outputs(model)
    torchvision_kinds.set_norm_eps(model.net, 1e-9)  # PyTorch 2.11 takes 0 in a frozen norm alone
    assert not torch.equal(outputs(model), before)
    again = cs.load(cs.save(model, tmp_path / "m"))
    assert torch.equal(outputs(again), outputs(model))
    assert torch.equal(outputs(cs.load(cs.save(again, tmp_path / "n"))), outputs(model))


def test_a_detector_takes_one_label_and_a_classifier_two() -> None:
    assert loaded(WORDS[0], labels=["cell"]).labels == ("cell",)
    with pytest.raises(cs.Refused, match="two names"):
        loaded("clearsight:lenet5", labels=["cell"])


def test_scores_are_of_classifiers() -> None:
    with pytest.raises(cs.Refused, match=r"scores='probabilities' is of a classifier, and .* is a detector"):
        loaded(WORDS[0], scores="probabilities")


FACTORY = """
import torch
import clearsight as cs
from clearsight.testing import tiny_detector, tiny_segmenter

def finds():
    return tiny_detector()

def names():
    return tiny_segmenter()

def bare():
    return tiny_detector().net

def number():
    return 3
"""


def test_factories_give_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    x = torch.rand(2, 3, 32, 32)
    for name, known in (("finds", tiny_detector()), ("names", tiny_segmenter())):
        model = cs.load(f"./mine.py:{name}")
        assert type(model) is type(known)
        assert torch.equal(model(x), known(x))
        renamed = cs.load(f"./mine.py:{name}", labels=[f"l{i}" for i in range(len(known.labels))])
        assert renamed.labels[0] == "l0"
        torch.save({k: v + 1 for k, v in known.net.state_dict().items()}, "w.pth")
        assert not torch.equal(cs.load(f"./mine.py:{name}", weights="w.pth")(x), known(x))
        folder = cs.save(model, tmp_path / name, architecture=f"../mine.py:{name}")
        with pytest.raises(cs.Refused, match="code of its own"):
            cs.load(folder)
        assert torch.equal(cs.load(folder, trust=True)(x), known(x))
        assert type(cs.load(folder, trust=True)) is type(known)
    with pytest.raises(cs.Refused, match=r"cs\.Detector or cs\.Segmenter"):
        cs.load("./mine.py:number")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "finder"}, "kind 'finder': a model is a classifier, a detector or a segmenter"),
        ({"kind": 3}, "kind 3"),
        ({"kind": "segmenter"}, "floor is of a detector, and the kind is segmenter"),
        ({"kind": None}, "kind None"),
        ({"floor": 1.5}, "floor is not valid: write it like"),
        ({"floor": "low"}, "floor is not valid"),
        ({"overlap": -0.1}, "overlap is not valid"),
        ({"most": 0}, "most is not valid"),
        ({"most": 2.5}, "most is not valid"),
        ({"scores": "multi-label"}, "scores 'multi-label' is of a classifier"),
        ({"architecture": "clearsight:unet"}, "clearsight:unet is a segmenter, and the kind is detector"),
        ({"architecture": "clearsight:lenet5"}, "clearsight:lenet5 is a classifier, and the kind is detector"),
        ({"architecture": "clearsight:fcoss"}, "did you mean fcos"),
        ({"labels": ["a"]}, "does not fit|holds weights"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = cs.save(loaded(WORDS[0]), tmp_path)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(cs.Refused, match=says):
        cs.load(folder)


def test_a_folder_without_a_kind_is_a_classifier_s(tmp_path: Path) -> None:
    file = cs.save(loaded(WORDS[0]), tmp_path) / "config.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in record.items() if k not in ("kind", "floor", "overlap", "most")}))
    with pytest.raises(cs.Refused, match="does not say scores"):
        cs.load(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "scores": "logits"}))
    with pytest.raises(cs.Refused, match='is a detector, and the kind is classifier: write "kind": "detector"'):
        cs.load(tmp_path)


def test_saving_as_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cs.Refused, match="clearsight:unet is a segmenter, and the model is a detector"):
        cs.save(loaded(WORDS[0]), tmp_path, architecture="clearsight:unet")
    with pytest.raises(cs.Refused, match="it is unknown how"):
        cs.save(tiny_detector(), tmp_path)


@pytest.mark.parametrize("make", [cs.Detector, cs.Segmenter])
@pytest.mark.parametrize(
    ("net", "preprocess", "labels", "says"),
    [
        (lambda z: z, PRE, LABELS, "function is not a torch.nn.Module"),
        (nn.Identity(), None, LABELS, "preprocessing is unknown"),
        (nn.Identity(), PRE, "cat", "takes the names of the classes"),
        (nn.Identity(), PRE, [], "takes the names of the classes"),
    ],
)
def test_what_cannot_be_a_model_is_refused_when_it_is_made(
    make: Callable[..., cs.Model], net: Any, preprocess: Any, labels: Any, says: str
) -> None:
    with pytest.raises(cs.Refused, match=says):
        make(net, preprocess, labels)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_frozen_torchscript_is_refused_when_it_is_made() -> None:
    net = torch.jit.freeze(torch.jit.script(nn.Conv2d(3, 2, 1).eval()))
    for make in (cs.Detector, cs.Segmenter):
        with pytest.raises(cs.Refused, match=r"was frozen by torch\.jit\.freeze"):
            make(net, PRE, LABELS)


def test_a_detector_made_by_hand_is_as_it_is_meant() -> None:
    net = tiny_detector().net
    model = cs.Detector(nn.DataParallel(net), tiny_detector().preprocess, ["red", "blue"])
    assert model.net is net
    assert model.labels == ("red", "blue")
    for wrong in ({"floor": 2.0}, {"overlap": -1.0}, {"most": 0}):
        with pytest.raises(cs.Refused, match="a detector"):
            replace(model, **wrong)


def test_what_takes_a_classifier_alone_says_so() -> None:
    with pytest.raises(cs.Refused, match="features takes a classifier, and the model is a detector"):
        cs.features(tiny_detector(), "demo")
