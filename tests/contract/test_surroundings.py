"""Checkpointing, autocast, default types and the network's own type: none of them makes a map wrong without a word."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import checkpoint as checkpointing
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import clearsight as cs
from clearsight.auditing.diagnosis import inspect
from clearsight.core.catalogue import parse
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.errors import Refused
from clearsight.internals.capture import capture, receptive_fields
from clearsight.internals.probe import probed
from clearsight.internals.target_layer import target_layer
from thinning import paired
from trapnets import ATTACKS, EXPLAINERS, NEEDS_A_LINEAR_HEAD, Net, model, pictures, spelled, untouched

# nets of the traps add a residual by hand, so that everything passes through their first layer and no later one
pytestmark = pytest.mark.filterwarnings("ignore:the layer that is read is first. :clearsight.errors.Notice")

METHODS = ("saliency", "grad-cam", "grad-cam++", "layer-cam", "guided-grad-cam", "lrp", "deep-lift", "score-cam")


class Checkpointed(nn.Module):
    """One or several of its stages are run under a checkpoint of the given kind."""

    def __init__(self, stages: tuple[int, ...], **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.last = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 6 * 8, 3))
        self.stages, self.how = stages, how

    def forward(self, x: Tensor) -> Tensor:
        for i, stage in enumerate((self.stem, self.middle, self.last, self.head)):
            x = checkpoint(stage, x, **self.how) if i in self.stages else stage(x)
        return x


class Sequentially(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        parts = nn.Sequential(*self.stem, *self.middle, *self.last, *self.head)
        return checkpoint_sequential(parts, 3, x, **self.how)


class ThroughTheModule(Checkpointed):
    """As torchvision does: by the module's name, not by one imported from it."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpointing.checkpoint(lambda z: self.head(self.last(self.middle(self.stem(z)))), x, **self.how)


REENTRANT, PLAIN = {"use_reentrant": True}, {"use_reentrant": False}
KINDS = {
    "reentrant": REENTRANT, "not reentrant": PLAIN, "to the end": {**PLAIN, "early_stop": False},
    "without random numbers": {**PLAIN, "preserve_rng_state": False},
}  # fmt: skip


STAGES = [(0,), (1,), (2,), (3,), (1, 2), (0, 1, 2, 3), "sequential", "module"]


@pytest.mark.parametrize(("kind", "stages"), paired([*KINDS], STAGES))
def test_maps_are_those_without_checkpointing(kind: str, stages: Any) -> None:
    how = KINDS[kind]
    if stages == "sequential":
        how = {k: v for k, v in how.items() if k != "early_stop"}
        net: nn.Module = Sequentially((), **how)
    else:
        net = ThroughTheModule((), **how) if stages == "module" else Checkpointed(stages, **how)
    made, right = model(net), model(Checkpointed(()))
    x = pictures()
    was = (checkpointing.CheckpointFunction.apply, vars(checkpointing).copy())
    for name in METHODS:
        for layer in ("", "stem.1", "middle.0", "last.1"):
            call = parse(name, "explainers")
            if layer and "layer" not in call.method.options:
                continue
            call = call.with_options(layer=layer) if layer else call
            with untouched(net, x):
                found = cs.explain(made, x, call, cs.ClassScore([0, 1, 2]))
            wanted = cs.explain(right, x, call, cs.ClassScore([0, 1, 2]))
            assert found.method == wanted.method
            torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-5, atol=1e-7)
    assert (checkpointing.CheckpointFunction.apply, vars(checkpointing).copy()) == was
    assert inspect(made).problems == inspect(right).problems == ()


@pytest.mark.parametrize("how", [REENTRANT, PLAIN], ids=["reentrant", "not reentrant"])
def test_what_stands_inside_is_that_without_checkpointing(how: dict[str, Any]) -> None:
    made, right = model(Checkpointed((0, 1, 2), **how)), model(Checkpointed(()))
    x = pictures()
    for layer in ("middle", "last.0"):
        got = []
        for m in (made, right):
            with m.undisturbed():
                z = x.clone().requires_grad_()
                with torch.enable_grad():
                    caught = capture(m, z, layer)
                    (g,) = torch.autograd.grad(caught.preactivation.sum(), z)
                got.append((caught.out.detach(), g, receptive_fields(m, layer, [(2, 3), (0, 0)])))
        torch.testing.assert_close(got[0][:2], got[1][:2])
        assert got[0][2] == got[1][2]
    with made.undisturbed(), right.undisturbed():
        assert [(s.name, s.shape) for s in probed(made, x).runs] == [(s.name, s.shape) for s in probed(right, x).runs]
        assert target_layer(made, x) == target_layer(right, x) == "last.1"


@pytest.mark.parametrize("name", ["resnet10t", "test_vit"])
@pytest.mark.slow
def test_timms_grad_checkpointing(name: str) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, pretrained=False, num_classes=3, **({"img_size": 64} if "vit" in name else {}))
    pre = Preprocess(64, (0.5,) * 3, (0.25,) * 3)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = {m: cs.explain(cs.wrap(net, pre, list("abc")), x, m, cs.ClassScore(0)) for m in ("saliency", "grad-cam")}
    net.set_grad_checkpointing(True)
    for m, right in wanted.items():
        found = cs.explain(cs.wrap(net, pre, list("abc")), x, m, cs.ClassScore(0))
        assert found.method.rstrip(".0)") == right.method.rstrip(")")  # its last stage is no longer run as a whole
        torch.testing.assert_close(found.maps, right.maps, rtol=1e-4, atol=1e-6 * float(right.maps.abs().max()))
        assert bool(right.maps.any())


@pytest.mark.slow
def test_torchvisions_memory_efficient_densenet() -> None:
    maps = []
    for efficient in (False, True):
        torch.manual_seed(0)
        net = torchvision.models.DenseNet(4, (2, 2), 8, num_classes=3, memory_efficient=efficient)
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        wrapped = cs.wrap(net, Preprocess(64, (0.5,) * 3, (0.25,) * 3), list("abc"))
        calls = ("grad-cam(layer=features.denseblock1.denselayer2)", "grad-cam", "lrp", "saliency")
        maps.append([cs.explain(wrapped, x, c, cs.ClassScore(0)).maps for c in calls])
    torch.testing.assert_close(maps[0], maps[1])
    assert all(bool(m.any()) for m in maps[0])


def test_another_thread_checkpoints_as_before_while_this_one_explains() -> None:
    ran: list[int] = []

    def part(x: Tensor) -> Tensor:
        ran.append(1)
        return x.exp()

    def elsewhere(how: dict[str, Any]) -> None:
        x = torch.zeros(2, requires_grad=True)
        checkpoint(part, x, **how).sum().backward()

    with model(Net()).undisturbed():
        for how in (REENTRANT, PLAIN):
            ran.clear()
            t = threading.Thread(target=elsewhere, args=(how,))
            t.start()
            t.join()
            assert len(ran) == 2  # once forward, once more on the way back
            ran.clear()
            elsewhere(how)
            assert len(ran) == 1


class Homemade(torch.autograd.Function):
    """Checkpointing of one's own, whose second run on the way back meets no hooks."""

    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.run, ctx.x = run, x.detach()
        with torch.no_grad():
            return run(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor]:
        z = ctx.x.requires_grad_()
        with torch.enable_grad():
            out = ctx.run(z)
        return None, torch.autograd.grad(out, z, g)[0]


class OfItsOwn(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(Homemade.apply(self.last, self.middle(self.stem(x))))


@pytest.mark.parametrize("name", ["saliency", "grad-cam", "grad-cam(layer=last.0)", "grad-cam(layer=middle)", "lrp"])
def test_checkpointing_of_ones_own_is_right_or_refused(name: str) -> None:
    made, right, x = model(OfItsOwn(())), model(Checkpointed(())), pictures()
    refused = ""
    try:
        found = cs.explain(made, x, name, cs.ClassScore(0))
    except Refused as e:
        refused = str(e)
    if refused:
        assert "no gradient flows back" in refused or "taken apart" in refused
    else:
        wanted = cs.explain(right, x, found.method, cs.ClassScore(0))
        torch.testing.assert_close(found.maps, wanted.maps)


# the network's own type, and the caller's


SCORES_ONLY = {  # what asks only for scores, or not even those
    "centre", "edge", "random", "occlusion", "rise", "lime", "kernel-shap", "partition-shap",
}  # fmt: skip
AT_LAYERS = {  # what takes gradients, if any, no further back than to a layer
    "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "xgrad-cam", "eigen-cam", "score-cam", "ablation-cam",
}  # fmt: skip
BLIND = {n for n in ATTACKS if "black-box" in cs.catalogue("attacks")[n].claims} | {"spatial"}


TYPES = [torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(("name", "dtype"), paired(EXPLAINERS, TYPES))
def test_explainers_of_networks_of_every_type_are_right_or_refused(dtype: torch.dtype, name: str) -> None:
    made, right, x = model(Net().to(dtype)), model(Net()), pictures()
    target = cs.ClassScore([0, 1, 2])
    refused = ""
    with untouched(made.net, x):
        try:
            found = cs.explain(made, x, spelled(name), target)
        except Refused as e:
            refused = str(e)
    if NEEDS_A_LINEAR_HEAD & cs.catalogue("explainers")[name].claims:
        assert "not linear" in refused or str(dtype) in refused
        return
    if refused:
        assert dtype != torch.float64
        assert str(dtype) in refused
        assert "net.float()" in refused
        assert name not in SCORES_ONLY | AT_LAYERS or "positive and negative parts cancel" in refused
        return
    assert dtype == torch.float64 or name in SCORES_ONLY | AT_LAYERS, f"{name} works: say so"
    wanted = cs.explain(right, x, spelled(name), target).maps
    if dtype == torch.float64:
        torch.testing.assert_close(found.maps, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))
        return
    if name in AT_LAYERS:
        torch.testing.assert_close(
            found.maps, wanted, rtol=0.0, atol=12 * torch.finfo(dtype).eps * float(wanted.abs().max())
        )
        return
    with right.undisturbed(), torch.no_grad():  # a difference of two scores is as fine as the scores are
        height = float(right(x).abs().max())
    torch.testing.assert_close(found.maps, wanted, rtol=0.0, atol=4 * torch.finfo(dtype).eps * max(height, 1.0))


@pytest.mark.parametrize(("name", "dtype"), paired(ATTACKS, TYPES))
@pytest.mark.filterwarnings("ignore:auto-attack:clearsight.errors.Notice")
def test_attacks_on_networks_of_every_type_are_right_or_refused(dtype: torch.dtype, name: str) -> None:
    made, right, x = model(Net().to(dtype)), model(Net()), pictures()
    with right.undisturbed(), torch.no_grad():
        y = right(x).argmax(1)
    refused = ""
    try:
        found = cs.attack(made, x, y, spelled(name), eps=0.5, other=right)
    except Refused as e:
        refused = str(e)
    if refused:
        assert dtype != torch.float64
        assert str(dtype) in refused
        assert "net.float()" in refused
        assert name not in BLIND
        return
    assert dtype == torch.float64 or name in BLIND | {"transfer"}, f"{name} works: say so"
    with made.undisturbed(), torch.no_grad():  # recounted by the network itself
        assert torch.equal(made(found.x).argmax(1) != y, found.fooled | found.already)
    if dtype == torch.float64:
        wanted = cs.attack(right, x, y, spelled(name), eps=0.5, other=right)
        assert torch.equal(found.fooled, wanted.fooled)


def test_a_slope_that_float16_cannot_hold_is_refused_instead_of_lost() -> None:
    loud = Net()
    with torch.no_grad():
        loud.head.bias.copy_(torch.tensor([16.0, 0.0, 0.0]))  # sure of the first class: its probability hardly moves
    x, target = pictures(), cs.ClassScore(0, of="prob")
    assert bool(cs.explain(model(loud), x, "hires-cam(layer=first)", target).maps.any())
    with pytest.raises(Refused, match=r"torch\.float16, in which slopes as small as this target's.*net\.float\(\)"):
        cs.explain(model(loud.half()), x, "hires-cam(layer=first)", target)
    cs.explain(model(loud), x, "hires-cam(layer=first)", cs.ClassScore(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_inspect_says_of_types_what_the_methods_say(dtype: torch.dtype) -> None:
    found = inspect(model(Net().to(dtype)))
    assert found.dtype == str(dtype).removeprefix("torch.")
    told = " ".join(p.what + p.mend for p in found.problems)
    assert "cannot run" not in told
    assert (str(dtype) in told and "net.float()" in told) == (dtype != torch.float64)
    assert any("pixels are converted" in n for n in found.notes)


class Mixed(Net):
    """Its head is coarser than its body, and forward converts between them."""

    def __init__(self, *, converts: bool = True) -> None:
        super().__init__()
        self.head.half()
        self.converts = converts

    def forward(self, x: Tensor) -> Tensor:
        z = self.features(x).mean((2, 3))
        return self.head(z.half() if self.converts else z)


def test_networks_of_mixed_types() -> None:
    x, right = pictures(), model(Net())
    found = cs.explain(model(Mixed()), x, "occlusion(window=6, stride=6)", cs.ClassScore(0)).maps
    wanted = cs.explain(right, x, "occlusion(window=6, stride=6)", cs.ClassScore(0)).maps
    torch.testing.assert_close(found, wanted, rtol=0.0, atol=4e-3)
    with pytest.raises(Refused, match=r"torch\.float16.*net\.float"):
        cs.explain(model(Mixed()), x, "saliency", cs.ClassScore(0))
    with pytest.raises(Refused, match=r"parameters are float16 and float32.*net\.float\(\)"):
        cs.explain(model(Mixed(converts=False)), x, "occlusion", cs.ClassScore(0))
    assert "net.float()" in " ".join(p.mend for p in inspect(model(Mixed(converts=False))).problems)


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    was = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(was)


AROUND: dict[str, Callable[[], Any]] = {
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
    "autocast to half": partial(torch.autocast, "cpu", torch.float16),
    "float64 by default": partial(default_type, torch.float64),
    "no_grad": torch.no_grad,
    "nothing": nullcontext,
}


@pytest.mark.parametrize(("name", "around"), paired([*EXPLAINERS, *ATTACKS], [*AROUND]))
def test_what_stands_around_the_call_does_not_show_in_its_result(around: str, name: str) -> None:
    trap, x = model(Net()), pictures()
    y = torch.tensor([0, 1, 2])

    def run() -> Tensor:
        if name in EXPLAINERS:
            return cs.explain(trap, x, spelled(name), cs.ClassScore(y)).maps
        return cs.attack(trap, x, y, spelled(name), eps=0.1, other=trap).x

    results = []
    for context in (nullcontext, AROUND[around]):
        with context():
            try:
                results.append(run())
            except Refused as e:
                results.append(str(e))
    assert type(results[0]) is type(results[1])
    if isinstance(results[0], str):
        assert results[0] == results[1]
    else:
        assert results[1].dtype == torch.float32
        torch.testing.assert_close(results[1], results[0], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("around", AROUND)
def test_inspect_is_the_same_whatever_stands_around_it(around: str) -> None:
    trap = model(Net())
    found = inspect(trap)
    with AROUND[around]():
        assert inspect(trap) == found


# what forward does to its input, and what it shares


class WritesIntoItsInput(Net):
    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.1).mul_(2)
        return super().forward(x)


class TakesCare(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - 0.1) * 2)


class Shares(Net):
    """Two convolutions, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Conv2d(6, 6, 3, padding=1)
        self.third.weight = self.second.weight

    def features(self, x: Tensor) -> Tensor:
        return self.act(self.third(super().features(x)))


class Repeats(Shares):
    def __init__(self) -> None:
        super().__init__()
        self.third.weight = nn.Parameter(self.second.weight.detach().clone())


TWINS = {"writes into its input": (WritesIntoItsInput, TakesCare), "shares parameters": (Shares, Repeats)}


@pytest.mark.parametrize(
    ("name", "twins"), paired([n for n in EXPLAINERS if n not in ("centre", "edge", "random")], [*TWINS])
)
def test_networks_that_write_into_their_input_or_share_parameters(name: str, twins: str) -> None:
    trap, clean = TWINS[twins]
    torch.manual_seed(3)
    made = model(trap())
    torch.manual_seed(3)
    right = model(clean())
    x = pictures()
    if NEEDS_A_LINEAR_HEAD & cs.catalogue("explainers")[name].claims:
        with pytest.raises(Refused, match="not linear"):
            cs.explain(made, x, spelled(name), cs.ClassScore(0))
        return
    with untouched(made.net, x):
        found = cs.explain(made, x, spelled(name), cs.ClassScore(0)).maps
    wanted = cs.explain(right, x, spelled(name), cs.ClassScore(0)).maps
    learned = "perturbation" in name
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=5e-3 if learned else 1e-6)


def test_a_classifier_made_by_hand_is_guarded_too() -> None:
    wrong = Classifier(torch.nn.LazyLinear(3), Preprocess(2, (0.5,) * 3, (0.5,) * 3), tuple("abc"))
    with pytest.raises(Refused, match="not initialised"), wrong.undisturbed():
        pass


class AsTokens(nn.Module):
    """A hybrid: a norm's maps become tokens, or tokens become maps that a norm takes."""

    def __init__(self, norm: type[nn.Module], into_norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.into_norm = nn.Conv2d(3, 6, 4, stride=4), norm(6, affine=True), into_norm
        self.mlp, self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 3)
        self.weights = nn.Parameter(torch.randn(12, 6))
        for name, b in self.norm.named_buffers():
            if name.startswith("running"):
                nn.init.uniform_(b, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.stem(x)
        if self.into_norm:
            tokens = self.mlp(maps.flatten(2).transpose(1, 2)).transpose(1, 2)
            return self.head(self.norm(tokens.reshape(maps.shape)).square().mean((2, 3)))
        tokens = self.norm(maps).flatten(2).transpose(1, 2)
        return self.head((tokens * self.weights).mean(1).tanh())


@pytest.mark.parametrize("into_norm", [False, True])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
@pytest.mark.parametrize("n", [1, 3])
def test_the_gradient_of_a_picture_alone_is_right_behind_a_norm(norm: type[nn.Module], into_norm: bool, n: int) -> None:
    """PyTorch 2.14.1 gives another where the values of one picture lie in the order of tokens."""
    made = model(AsTokens(norm, into_norm))
    x = pictures()[:n]
    functions = (F.batch_norm, F.instance_norm)
    found = cs.explain(made, x, "gradient-x-input", cs.ClassScore(1)).maps
    at_stem = cs.explain(made, x, "hires-cam(layer=stem)", cs.ClassScore(1))
    assert (F.batch_norm, F.instance_norm) == functions
    with made.undisturbed():
        assert probed(made, x).slopes.flows == "right"
    double = model(copy.deepcopy(made.net).double().eval())
    step = 1e-6
    for i in range(n):  # the derivative along the picture itself is the sum of its map
        ahead, back = (double(x[i : i + 1].double() * (1 + s))[0, 1] for s in (step, -step))
        torch.testing.assert_close(found[i].sum().double(), (ahead - back).detach() / (2 * step), rtol=1e-3, atol=1e-6)
    twice = cs.explain(made, x[:1].expand(2, -1, -1, -1), "hires-cam(layer=stem)", cs.ClassScore(1)).maps
    torch.testing.assert_close(at_stem.maps[0], twice[0], rtol=1e-4, atol=1e-7)
