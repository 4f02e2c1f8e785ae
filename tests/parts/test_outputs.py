"""Where the scores are in what a network returns: a name, a number, or a path of them; and what advice says, works."""

from __future__ import annotations

import json
import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import clearsight as cs
from clearsight.auditing.diagnosis import inspect
from clearsight.core.classifier import Classifier
from clearsight.core.outputs import paths, pick
from clearsight.core.preprocess import Preprocess
from clearsight.errors import NoGradient, Refused

# nets of the traps add a residual by hand, so that everything passes through their first layer and no later one
pytestmark = pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")


PRE = Preprocess((12, 16), (0.5,) * 3, (0.25,) * 3)
Pair = namedtuple("Pair", ["aux", "logits"])


@dataclass
class Output:
    logits: Tensor
    hidden: Any = None


class Lazy:
    """An object that works its scores out when it is asked for them."""

    def __init__(self, z: Tensor) -> None:
        self._z = z

    @property
    def logits(self) -> Tensor:
        return self._z


class ModelOutput(OrderedDict):
    """As transformers has it: a dict with attributes and numbers."""

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())


class Returns(nn.Module):
    def __init__(self, made: Callable[[Tensor], Any] = lambda z: z) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.made = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3), made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.head(torch.relu(self.conv(x)).mean((2, 3))))


MADE: dict[str, tuple[Callable[[Tensor], Any], str | int]] = {
    "a dict": (lambda z: {"aux": z * 0, "logits": z}, "logits"),
    "a dict in a dict": (lambda z: {"out": {"logits": z}}, "out.logits"),
    "three deep": (lambda z: {"a": {"b": {"c": z}}}, "a.b.c"),
    "a list": (lambda z: [z * 0, z], 1),
    "a list, by a word": (lambda z: [z * 0, z], "1"),
    "from the end": (lambda z: [z * 0, z], -1),
    "a dict in a list": (lambda z: [{"logits": z}], "0.logits"),
    "a list in a dict": (lambda z: {"heads": [z * 0, z]}, "heads.1"),
    "a dict with numbers": (lambda z: {0: z * 0, 1: z}, 1),
    "a dict with numbers as words": (lambda z: {"0": z * 0, "1": z}, 1),
    "a key with a dot": (lambda z: {"head.logits": z, "head": {"logits": z * 0}}, "head.logits"),
    "a path through a key with dots": (lambda z: {"v1.0": {"logits": z}}, "v1.0.logits"),
    "a named tuple": (lambda z: Pair(z * 0, z), "logits"),
    "a named tuple, by its number": (lambda z: Pair(z * 0, z), 1),
    "a dataclass": (lambda z: Output(z), "logits"),
    "a dataclass in a tuple": (lambda z: (Output(z * 0), Output(z)), "1.logits"),
    "in a dataclass": (lambda z: Output(z * 0, {"last": z}), "hidden.last"),
    "an object": (lambda z: SimpleNamespace(scores=z), "scores"),
    "a property": (Lazy, "logits"),
    "what the scores are made of as well": (lambda z: (z, z * 1), 1),
    "a ModelOutput": (lambda z: ModelOutput(loss=z.sum(), logits=z), "logits"),
    "a ModelOutput, by its number": (lambda z: ModelOutput(loss=z.sum(), logits=z), 1),
}


def wrapped(made: Callable[[Tensor], Any], output: str | int | None) -> Classifier:
    return cs.wrap(Returns(made), PRE, list("abc"), output=output)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MADE)
def test_the_part_is_found_and_explained_as_if_it_were_all(name: str, x: Tensor) -> None:
    made, output = MADE[name]
    model, right = wrapped(made, output), wrapped(lambda z: z, None)
    for method in ("saliency", "grad-cam", "lrp", "occlusion(window=6, stride=6)"):
        found, wanted = (cs.explain(m, x, method, cs.ClassScore(1)) for m in (model, right))
        torch.testing.assert_close(found.maps, wanted.maps)
        assert (found.forwards, found.backwards) == (wanted.forwards, wanted.backwards)
        assert found.backwards == 1 or method != "saliency"
    assert inspect(model).problems == ()


@pytest.mark.parametrize("name", [n for n in MADE if n != "a property"])
@pytest.mark.parametrize("said", [None, "nothing", "out", 7])
def test_the_advice_of_an_error_works_when_it_is_followed(name: str, said: str | int | None, x: Tensor) -> None:
    made, _ = MADE[name]
    with pytest.raises(Refused) as e:
        wrapped(made, said)(x)
    advised = re.search(r"say where the scores are, output=(.+)$", str(e.value))
    assert advised, e.value
    out = wrapped(made, eval(advised[1]))(x)
    assert out.shape == (3, 3)
    problem = next(p for p in inspect(wrapped(made, None)).problems if "the network returns" in p.what)
    python, line = re.fullmatch(r"say where the scores are: output=(.+) \(--output (.+)\)", problem.mend).groups()
    assert str(eval(python)) == line
    assert wrapped(made, eval(python))(x).shape == (3, 3)


def test_rows_of_scores_are_advised_before_anything_else(x: Tensor) -> None:
    with pytest.raises(Refused, match=r"a dict with 'loss': a tensor \(\), 'out': a dict.*output='out.logits'"):
        wrapped(lambda z: {"loss": z.sum(), "out": {"logits": z}}, None)(x)


def test_a_name_that_means_several_parts_is_refused() -> None:
    out = {"a.b": {"c": torch.zeros(1)}, "a": {"b.c": torch.ones(1)}}
    with pytest.raises(Refused, match="means several parts"):
        pick(out, "a.b.c")
    assert paths(out) == []
    twice = torch.zeros(1)
    assert pick({"a.b": {"c": twice}, "a": {"b.c": twice}}, "a.b.c") is twice


@pytest.mark.parametrize("out", [None, "cat", {}, [], {"logits": None}, {"a": {"b": "cat"}}, 3.0, object()])
@pytest.mark.parametrize("output", [None, "logits", "a.b", 0])
def test_where_there_are_no_scores_at_all_forward_is_to_be_mended(out: Any, output: str | int | None) -> None:
    with pytest.raises(Refused, match=r"let forward return one tensor \(B, K\)"):
        pick(out, output)


def test_parts_of_tensors_and_methods_of_objects_are_no_scores(x: Tensor) -> None:
    for made, output in ((lambda z: {"logits": z}, "logits.T"), (lambda z: Output(z), "__class__"), (list, "append")):
        with pytest.raises(Refused, match="no part"):
            wrapped(made, output)(x)


NET = """
import torch
from torch import nn
import clearsight as cs

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x):
        return {"out": {"logits": self.head(torch.relu(self.conv(x)).mean((2, 3)))}}

def bare():
    return Net()

def made():
    return cs.wrap(Net(), cs.Preprocess((12, 16), (0.5,) * 3, (0.25,) * 3), ["red", "green", "blue"])
"""


def test_paths_are_kept_by_run_folders(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    words = f"{tmp_path / 'net.py'}:made"
    model = cs.load(words, output="out.logits")
    folder = cs.save(model, tmp_path / "run", architecture="../net.py:bare")
    assert json.loads((folder / "config.json").read_text())["output"] == "out.logits"
    again = cs.load(folder, trust=True)
    x = torch.rand(2, 3, 12, 16)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    save_file(dict(model.net.state_dict()), folder / "other.safetensors")


@pytest.mark.slow
def test_paths_are_taken_by_the_command_line_and_told_in_the_commands_of_a_report(
    workshop: Path, run: Callable[..., Any]
) -> None:
    Path("deep.py").write_text(NET)
    told = run("inspect", "deep.py:made")
    advised = re.search(r"--output (\S+?)\)", told.out)
    assert advised
    assert advised[1] == "out.logits"
    assert run("inspect", "deep.py:made", "--output", advised[1]).out.count("to mend") == 0
    refused = run("explain", "deep.py:made", "photos", "-m", "saliency", "-o", "maps")
    assert refused.status == 2
    assert "output='out.logits'" in refused.err
    assert (
        run("explain", "deep.py:made", "photos", "-m", "saliency", "-o", "maps", "--output", "out.logits").status == 0
    )
    done = run("audit", "deep.py:made", "photos", "--output", "out.logits", "-o", "report", "--only", "accuracy")
    assert done.status == 0, done.err
    assert "--output out.logits" in Path("report/report.json").read_text()


# other things that a forward may do


class ThroughNumPy(Returns):
    def __init__(self, *, detaches: bool) -> None:
        super().__init__()
        self.detaches = detaches

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.conv(x)).mean((2, 3))
        z = torch.from_numpy((z.detach() if self.detaches else z).cpu().numpy() * 1.0)
        return self.head(z.float())


class WantsMore(Returns):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(x) * lengths


class Inferring(Returns):
    """Part of its forward, or all of it, runs in inference mode."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            z = torch.relu(self.conv(x)).mean((2, 3))
            if self.whole:
                return self.head(z)
        return self.head(z * 1)


def dynamic(net: nn.Module) -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is deprecated
        return torch.ao.quantization.quantize_dynamic(net.eval(), {nn.Linear})


class Decides(Returns):
    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z * 2 if z.sum().item() > -1e9 else z


class Elsewhere(Returns):
    """Gives its scores in another type."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: ThroughNumPy(detaches=False), "goes through NumPy, where no gradient flows"),
        (lambda: ThroughNumPy(detaches=True), "detaches or goes through NumPy"),
        (lambda: Inferring(whole=True), "no gradient flows back"),
        (lambda: Inferring(whole=False), "inference_mode|no gradient flows back"),
    ],
)
def test_a_forward_without_a_way_back_is_refused_for_gradients_and_works_for_scores(
    make: Callable[[], nn.Module], why: str, x: Tensor
) -> None:
    model = cs.wrap(make(), PRE, list("abc"))
    for name in ("saliency", "integrated-gradients(steps=3)"):
        with pytest.raises(Refused, match=why):
            cs.explain(model, x, name, cs.ClassScore(0))
    with pytest.raises(Refused, match=why):
        cs.attack(model, x, torch.tensor([0, 1, 2]), "pgd(steps=2)", eps=0.1)
    assert re.search(why, " ".join(p.what + p.mend for p in inspect(model).problems))
    right = wrapped(lambda z: z, None)
    if "goes through NumPy, where" not in why:
        for name in ("occlusion(window=6, stride=6)", "rise(masks=12)", "score-cam"):
            found, wanted = (cs.explain(m, x, name, cs.ClassScore(0)).maps for m in (model, right))
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:quantized..linear_dynamic")
def test_a_network_quantised_by_the_range_of_the_batch_is_refused_by_that_cause(x: Tensor) -> None:
    model = cs.wrap(dynamic(Returns()), PRE, list("abc"))
    why = (
        "depend on its neighbours in the batch.* is quantised by the range of the whole batch: give the network unquan"
    )
    for name in ("saliency", "occlusion(window=6, stride=6)"):
        with pytest.raises(Refused, match=why):
            cs.explain(model, x, name, cs.ClassScore(0))
    assert any("quantised by the range" in p.mend for p in inspect(model).problems)


def test_a_forward_that_wants_more_is_refused_with_what_it_wants(x: Tensor) -> None:
    model = cs.wrap(WantsMore(), PRE, list("abc"))
    with pytest.raises(Refused, match=r"forward takes \(x, lengths\), but gets one tensor of pictures: wrap it"):
        cs.explain(model, x, "saliency")
    assert "lengths" in " ".join(p.mend for p in inspect(model).problems)


def test_python_in_forward_is_right_and_keeps_it_from_being_taken_apart(x: Tensor) -> None:
    model, right = cs.wrap(Decides(), PRE, list("abc")), wrapped(lambda z: z * 2, None)
    for name in ("saliency", "grad-cam", "occlusion(window=6, stride=6)"):
        found, wanted = (cs.explain(m, x, name, cs.ClassScore(0)).maps for m in (model, right))
        torch.testing.assert_close(found, wanted)
    with pytest.raises(Refused, match="looks at values of the picture"):
        cs.explain(model, x, "lrp", cs.ClassScore(0))


def test_scores_of_another_type_are_taken_and_complex_ones_refused(x: Tensor) -> None:
    model, right = cs.wrap(Elsewhere(), PRE, list("abc")), wrapped(lambda z: z, None)
    found, wanted = (cs.explain(m, x, "saliency", cs.ClassScore(0)).maps for m in (model, right))
    torch.testing.assert_close(found, wanted)
    with pytest.raises(Refused, match=r"torch\.complex64: let forward return real numbers"):
        cs.explain(wrapped(lambda z: torch.complex(z, z), None), x, "occlusion")


def test_no_gradient_is_still_an_answer_of_its_own_kind(x: Tensor) -> None:
    with pytest.raises(NoGradient):
        cs.explain(cs.wrap(ThroughNumPy(detaches=True), PRE, list("abc")), x, "saliency")
