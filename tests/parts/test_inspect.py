"""inspect() says what a model is, and names what is wrong with a broken one instead of falling over it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.auditing.diagnosis import Inspection, inspect
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.datasets import Picture, Pictures

PRE = Preprocess((16, 24), (0.5,) * 3, (0.25,) * 3)


def said(found: Inspection) -> str:
    return "\n".join(f"{p.what} -> {p.mend}" for p in found.problems)


def look(
    net: nn.Module, *, labels: tuple[str, ...] = ("a", "b", "c"), pre: Preprocess = PRE, **given: Any
) -> Inspection:
    return inspect(Classifier(net, pre, labels, "broken", **given))


class Net(nn.Module):
    """A sound little network; every broken one below changes one thing."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = act or nn.ReLU()
        self.head = nn.Linear(6, 3)

    def maps(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def scores(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).mean((2, 3)))

    def forward(self, x: Tensor) -> Any:
        return self.scores(x)


def test_a_sound_network_has_no_problems_and_all_its_facts() -> None:
    net = Net().eval()
    found = look(net)
    assert found.problems == ()
    assert found.notes == ()
    assert found.layer == "act"
    assert [(c.name, c.kind, c.shape) for c in found.candidates] == [("act", "ReLU", (6, 16, 24))]
    assert found.parameters == 3 * 6 * 9 + 6 + 12 + 18 + 3
    assert found.buffers == 13
    assert (found.classes, found.first, found.last) == (3, ("a", "b", "c"), ())
    assert (found.size, found.channels, found.device, found.dtype) == ((16, 24), 3, "cpu", "float32")
    assert found.fingerprint == Classifier(net, PRE, ("a", "b", "c")).fingerprint()
    text = "\n".join(found.lines())
    for part in (
        "3 x 16 x 24",
        "squeezed to 16 x 24",
        "mean 0.5 0.5 0.5",
        "target layer act",
        "a, b, c",
        "Nothing stands",
    ):
        assert part in text
    assert json.loads(json.dumps(found.as_dict()))["preprocess"]["std"] == [0.25] * 3


def test_the_model_comes_back_as_it_was(small: Classifier) -> None:
    modes = [m.training for m in small.net.modules()]
    before, rng = {k: v.clone() for k, v in small.net.state_dict().items()}, torch.get_rng_state()
    found = inspect(small)
    assert "training mode" in found.notes[0]
    assert modes == [m.training for m in small.net.modules()]
    assert all(torch.equal(v, before[k]) for k, v in small.net.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.requires_grad and p.grad is None for p in small.net.parameters())
    assert not any(m._forward_hooks for m in small.net.modules())


class Returns(Net):
    """Any function of the scores in place of the scores."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Any:
        return self.made(self.scores(x))


class Blind(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.scores(x)


class Once(Net):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 2:
            raise KeyError("no cable")
        return self.scores(x)


class Never(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise OSError("no cable")


class Single(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).view(1, 6, 16, 24).mean((2, 3)))


class Fixed(Net):
    """Takes 28 by 28 in grey only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.head = nn.Linear(6 * 28 * 28, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).flatten(1))


class Noisy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.scores(x), 0.5, training=True)


class Crowd(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.scores(x) - self.scores(x).mean(0)


class Batchwise(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)
        self.head = nn.Linear(6 * 16 * 24, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).flatten(1))


class Steps(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.scores((x * 4).round())


class Overwrites(Net):
    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).exp()
        z = y.mean((2, 3))
        y.zero_()
        return self.head(z)


class Drifts(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.head.weight.mul_(1.1)
        return self.scores(x)


class Attention(Net):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.maps(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))


def nan(net: Net) -> Net:
    with torch.no_grad():
        net.head.weight[0, 0] = torch.nan
    return net


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        return torch.jit.trace(
            nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(2, 3, 16, 24)
        )


BROKEN: dict[str, tuple[Any, list[str]]] = {
    "raises": (Never, ["cannot run on an input of (3, 16, 24): OSError: no cable", "Preprocess(size="]),
    "other input": (
        Fixed,
        ["cannot run on an input of (3, 16, 24)", "it runs on (1, 28, 28): Preprocess(size=(28, 28)"],
    ),
    "one picture at a time": (Single, ["runs on one picture but not on 3", "x.flatten(1)"]),
    "fails later": (Once, ["ran once, but then failed on the same pictures: KeyError: 'no cable'"]),
    "tuple": (
        lambda: Returns(lambda z: (z.mean(), z)),
        ["returns a tuple of 0: a tensor (), 1: a tensor (3, 3)", "output=1"],
    ),
    "dict": (lambda: Returns(lambda z: {"aux": z[:, :2], "logits": z}), ["returns a dict", "output='logits'"]),
    "nothing": (lambda: Returns(lambda z: None), ["returns a NoneType", "one tensor (B, K)"]),
    "string": (lambda: Returns(lambda z: "cat"), ["returns a str", "one tensor (B, K)"]),
    "pixels": (lambda: Returns(lambda z: z[:, :, None, None]), ["the scores have shape (3, 3, 1, 1)"]),
    "mean": (lambda: Returns(lambda z: z.mean()), ["the scores have shape ()"]),
    "one score": (lambda: Returns(lambda z: z[:, :1]), ["gives 1 scores, but 3 labels", 'scores="one-logit"']),
    "more scores": (lambda: Returns(lambda z: torch.cat([z, z], 1)), ["gives 6 scores, but 3 labels", "with 6 names"]),
    "probabilities": (lambda: Returns(lambda z: z.softmax(1)), ["look like probabilities", 'scores="probabilities"']),
    "not finite": (lambda: Returns(lambda z: z / 0), ["the scores are not finite"]),
    "broken weights": (lambda: nan(Net()), ["head.weight holds values that are not finite"]),
    "constant": (lambda: Returns(lambda z: z * 0 + 1), ["different pictures of noise get the same scores"]),
    "no gradient": (Blind, ["no gradient flows back to the pixels", "no_grad"]),
    "zero gradient": (Steps, ["the gradient is zero at every pixel", "occlusion"]),
    "overwritten": (Overwrites, ["the backward pass fails: RuntimeError"]),
    "random": (Noisy, ["the same pictures give scores that differ", "training=self.training"]),
    "neighbours": (Crowd, ["depend on its neighbours"]),
    "batch statistics": (Batchwise, ["depend on its neighbours", "norm normalises by the batch"]),
    "drifts": (Drifts, ["parameters were changed: head.weight"]),
    "attention": (Attention, ["continues with attention", "use a gradient or perturbation method"]),
    "no convolution": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, 3)),
        ["no convolution with more than one place", "use a gradient or perturbation method"],
    ),
    "half": (
        lambda: Net().half(),
        ["in torch.float16, in which gradients at the pixels are too coarse", "net.float()"],
    ),
    "bfloat16": (lambda: Net().bfloat16(), ["computes in torch.bfloat16", "net.float()"]),
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), ["1.weight has no shape yet"]),
    "scripted": (scripted, ["TorchScript", "nn.Module that it was made from"]),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of lazy layers
def test_every_trouble_is_named_with_what_mends_it(name: str) -> None:
    make, parts = BROKEN[name]
    found = look(make())
    for part in parts:
        assert part in said(found)
    assert all(p.what and p.mend for p in found.problems)
    text = "\n".join(found.lines())
    assert f"{len(found.problems)} to mend:" in text
    assert all(p.what in text and p.mend in text for p in found.problems)
    json.dumps(found.as_dict())


def test_what_a_wrong_output_hides_is_found_in_the_same_go() -> None:
    found = look(Returns(lambda z: (z.detach(), 0)), labels=("a", "b"))
    assert "output=0" in said(found)
    assert "gives 3 scores, but 2 labels" in said(found)
    assert "no gradient flows back" in said(found)


def test_said_to_be_probabilities_but_are_not() -> None:
    assert 'scores="logits"' in said(look(Net(), scores="probabilities"))
    assert look(Returns(lambda z: z.softmax(1)), scores="probabilities").problems == ()


def test_labels_that_stand_twice_are_named_with_their_numbers() -> None:
    found = look(Net(), labels=("crane", "b", "crane"))
    assert "'crane' is 0 and 2" in said(found)
    assert "by number" in said(found)


class Functional(Net):
    def maps(self, x: Tensor) -> Tensor:
        return torch.relu(F.relu(self.conv(x)) + 0.1)


class Reuses(Net):
    def maps(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.act(self.conv(x))))


class Branches(Reuses):
    """Its forward asks what the numbers are, and so cannot be traced."""

    def maps(self, x: Tensor) -> Tensor:
        return super().maps(x) if x.sum() > -1e9 else x


@pytest.mark.parametrize(
    ("net", "part"),
    [
        (Branches().eval(), "cannot be taken apart into its operations"),
        (Branches().eval(), "DeepLIFT and guided gradients are refused"),
        (Net(nn.SiLU()).eval(), "its activations are silu: guided-backprop, deconvnet and guided-grad-cam"),
        (Net().requires_grad_(False), "all parameter tensors are frozen: fine"),
        (Net().train(), "is in training mode: it is run in eval mode"),
        (Net().eval().double(), "it computes in float64: pixels are converted"),
    ],
)
def test_what_is_unusual_but_works_is_a_note(net: nn.Module, part: str) -> None:
    found = look(net)
    assert found.problems == ()
    assert part in "\n".join(found.notes)
    assert f"note: {found.notes[0]}" in found.lines()


@pytest.mark.parametrize(
    "net", [Net(nn.ReLU(inplace=True)), Reuses(), Functional()], ids=["in place", "reused", "F.relu"]
)
def test_relus_of_every_kind_are_no_matter(net: nn.Module) -> None:
    assert look(net.eval()).notes == ()


def test_sequences_and_one_channel() -> None:
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    found = look(net, labels=("no", "yes"), pre=Preprocess((40,), (0.5,), (0.5,)))
    assert found.problems == ()
    assert found.layer == "1"
    short = look(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), labels=("no", "yes"), pre=Preprocess((40,), (0.5,), (0.5,))
    )
    assert "it runs on (1, 64)" in said(short)


def test_pictures_are_counted_and_words_that_the_model_does_not_know_named() -> None:
    folder = Path("photos")
    pictures = tuple(Picture(folder / f"{w}.jpg", f"{w}.jpg", (w,)) for w in ("cat", "cat", "dgo", "dog"))
    found = inspect(Classifier(Net().eval(), PRE, ("cat", "dog", "hat"), "three"), Pictures(folder, pictures))
    assert found.pictures == 4
    assert len(found.problems) == 1
    assert "dgo" in found.problems[0].what
    assert "did you mean dog" in found.problems[0].what
    assert "--classes" in found.problems[0].mend
    assert "pictures     4" in found.lines()


@pytest.mark.slow
def test_the_demo_is_sound_but_for_the_crane() -> None:
    from clearsight.models.loading import load

    found = inspect(load("demo"))
    assert [p.what for p in found.problems] == ["labels name several classes: 'crane' is 134 and 517"]
    assert found.layer
    assert found.parameters == 4_652_008


class Residual(Net):
    """Adds by hand what it was given to what the last layer makes of it."""

    def maps(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return torch.relu(self.norm(h) + h)


def test_a_later_layer_that_is_not_read_is_noted() -> None:
    found = look(Residual().eval())
    assert found.problems == ()
    assert found.layer == "conv"
    (note,) = found.notes
    assert note.startswith(
        "the layer that is read is conv: norm, which comes later (BatchNorm2d, 6 x 16 x 24), is one way"
    )
