"""Every network of the field at three sizes and in half precision: gradients against finite differences, layers
against a moved spot.

The second table in docs/method-by-network.md is written by ``pytest -m slow tests/values/test_sweep.py -n 0``, in about
half an hour.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import halves
import networks
import slopecheck
import spots
from clearsight.core.classifier import Classifier
from clearsight.internals.places import Layout
from clearsight.internals.probe import Probe, probed
from clearsight.internals.target_layer import target_layer
from networkpage import checked, share, size_words, write_checked

EXACT = 1e-4  # of finite differences, in double precision
DOUBT = 1e-3  # the same in single precision: from which on double precision is asked as well
OFF = 0.05  # and at most, for single precision turns ReLUs on that double turns off
EPS = 64  # times the precision of a type: how far maps of deep networks may be off
QUICK = ("resnet18", "shufflenet_v2_x1_0")


@dataclass(frozen=True)
class Found:
    """What came of one network at one size."""

    probe: Probe
    notices: list[str]
    pixels: dict[str, float]
    residual: float
    layer: str
    layers: float
    exact: float | None
    places: Counter[str]
    wrong: list[str]

    def cells(self) -> tuple[str, ...]:
        said = f"{'repeats' if self.probe.repeats == 'yes' else self.probe.repeats}, {self.probe.slopes.flows}"
        shares = share(max(self.pixels.values())), share(self.residual), share(self.layers)
        counts = (str(self.places[v]) for v in ("right", "untold", "wrong", "not read"))
        return (said, *shares, f"`{self.layer}`", *counts)

    def holds(self) -> None:
        assert (self.probe.repeats, self.probe.slopes.flows, self.notices) == ("yes", "right", [])
        assert max(self.pixels.values()) < OFF, self.pixels
        assert self.exact is None or self.exact < EXACT
        assert self.residual < 1e-4
        assert self.layers < OFF
        assert not self.wrong
        assert self.places["right"] > 0


def swept(name: str, size: tuple[int, int], fold: bool = True) -> Found:
    model = networks.network(name, size)
    x = networks.pictures(model)[:1]
    with model.undisturbed(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        probe = probed(model, x)
        layer = target_layer(model, x)
        said_of = spots.verdicts(model, x, probe.runs)
    read = (layer, middle(probe))
    if "wrong" in said_of:
        again = redrawn(name, size)
        said_of = [b if a == "wrong" else a for a, b in zip(said_of, again, strict=True)]
    wrong = [f"{s.name} {s.shape} read as {s.layout}" for s, v in zip(probe.runs, said_of, strict=True) if v == "wrong"]
    places = Counter(v for v in said_of if v is not None)
    layers = max(slopecheck.at_layer(model, x, at) for at in read)
    pixels, residual = slopecheck.at_pixels(model, x, fold), slopecheck.residual_off(model, x, 8)
    doubt = max(layers, *pixels.values()) > DOUBT
    exact = slopecheck.exact(model, x, read) if doubt else None
    return Found(probe, [str(w.message) for w in said], pixels, residual, layer, layers, exact, places, wrong)


def redrawn(name: str, size: tuple[int, int]) -> list[str | None]:
    """The verdicts with other random weights: of the many ways to read a layer, one follows a spot by their chance."""
    model = networks.network(name, size, seed=1)
    x = networks.pictures(model)[:1]
    with model.undisturbed():
        return spots.verdicts(model, x, probed(model, x).runs)


def middle(probe: Probe) -> str:
    """A layer in the middle of the network with places, that runs once."""
    runs = Counter(s.name for s in probe.runs)
    behind = probe.runs[len(probe.runs) // 2 :]
    return next(s.name for s in behind if s.layout is not None and s.layout.spatial and runs[s.name] == 1)


def halved(name: str, dtype: torch.dtype, methods: Sequence[str] = halves.AT_PIXELS[:2]) -> tuple[str, str]:
    """The cells of one network in half precision: scores and maps; anything that does not hold is an error."""
    model = networks.network(name)
    x = networks.pictures(model)[:1]
    half, twin = halves.in_half(model, dtype)
    with half.undisturbed(), warnings.catch_warnings():
        warnings.simplefilter("error")
        found = probed(half, x)
    assert (found.repeats, found.slopes.flows) == ("yes", "right")
    assert all("gradients at the pixels are too coarse" in why for _, why in halves.refusals(half, x, methods))
    scores, occluded = halves.scores_off(half, twin, x)
    maps, refused = halves.layers_off(half, twin, x)
    least = torch.finfo(dtype).eps
    assert occluded <= 2 * scores + 1e-6
    assert maps < EPS * least
    assert all("cancel here to what torch" in why or "too coarse" in why for why in refused.values())
    assert len(refused) < len(halves.AT_LAYERS)
    return share(scores), share(maps) + "".join(f", {m} refused" for m in refused)


def test_the_page_says_what_was_checked_of_every_network_and_size():
    said = checked()
    assert set(said) == {(n, size_words(s)) for n in networks.NAMES for s in networks.sizes(n)}
    for key, row in said.items():
        assert (row[0], row[7]) == ("repeats, right", "0"), key


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.slow
def test_what_was_checked_holds(name):
    size = networks.sizes(name)[2]
    found = swept(name, size, fold=False)  # recording takes longer than all the rest
    found.holds()
    said = checked()[name, size_words(size)]
    assert said[4] == f"`{found.layer}`"
    assert sum(map(int, said[5:9])) == sum(found.places[v] for v in ("right", "untold", "wrong", "not read"))


@pytest.mark.slow
def test_half_precision_is_right_or_refused():
    halved(QUICK[1], torch.bfloat16, halves.AT_PIXELS)


@pytest.mark.slow
@pytest.mark.parametrize("name", networks.NAMES)
def test_all_is_checked(name):
    found = {size: swept(name, size, fold=i == 0) for i, size in enumerate(networks.sizes(name))}
    half = [cell for dtype in (torch.float16, torch.bfloat16) for cell in halved(name, dtype)]
    rows = {
        (name, size_words(size)): (*f.cells(), *(half if i == 0 else ["–"] * len(half)))
        for i, (size, f) in enumerate(found.items())
    }
    write_checked(rows)
    for f in found.values():
        f.holds()


@pytest.fixture(scope="module")
def small() -> tuple[Classifier, Tensor]:
    model = networks.network("shufflenet_v2_x1_0", (64, 80))
    return model, networks.pictures(model)[:1]


def tokens(out: Tensor) -> tuple[Tensor, Layout]:
    """Maps (B, C, h, w) as tokens in a row behind one that stands for no place, and their layout."""
    row = torch.cat([out.mean((2, 3))[:, None], out.flatten(2).mT], 1)
    return row, Layout(tuple(out.shape[2:]), before=1, row=True)


def test_the_spot_catches_every_wrong_reading(small):
    model, x = small
    out, points = spots.one_layer(model, x, "stage3.1")
    h, w = out.shape[2:]
    row, layout = tokens(out)
    last = out.movedim(1, -1).contiguous()
    right = [(out, Layout((h, w), first=True)), (last, Layout((h, w))), (row, layout)]
    wrong = [
        (out, Layout(tuple(out.shape[1:3]))),  # channels first, read as places
        (last, Layout(tuple(last.shape[2:]), first=True)),
        (row, Layout((w, h), before=1, row=True)),  # across
        (row, Layout((h, w), after=1, row=True)),  # one token too early
        (row, Layout((h - 1, w - 1), before=1, after=h + w - 1, row=True)),  # a narrower grid
    ]
    assert [spots.verdict(z, at, points) for z, at in right] == ["right"] * 3
    assert [spots.verdict(z, at, points) for z, at in wrong] == ["wrong"] * 5
    assert spots.verdict(out, Layout((h, w), first=True), points, lambda z, _: z.flip(3)) == "wrong"
    assert spots.verdict(out, None, points) == "not read"


def test_a_spot_that_every_place_sees_says_nothing(small):
    model, x = small
    out, points = spots.one_layer(model, x, "stage3.1")
    same = out.mean((2, 3), keepdim=True).expand_as(out)
    shuffled = out.flatten(2)[:, :, torch.randperm(20, generator=torch.Generator().manual_seed(1))].view_as(out)
    for z in (same, shuffled):
        assert spots.verdict(z, Layout(tuple(out.shape[2:]), first=True), points) == "untold"


@pytest.mark.slow
def test_finite_differences_catch_a_gradient_that_is_a_twentieth_off(small):
    model, x = small
    handles = []

    def lessen(_module: object, _args: object, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda g: 0.95 * g)

    assert slopecheck.at_layer(model, x, "stage2.1") < OFF
    handles.append(model.net.stage3.register_forward_hook(lessen))
    try:
        assert min(slopecheck.at_pixels(model, x, fold=False).values()) > OFF
        assert slopecheck.at_layer(model, x, "stage2.1") > OFF
        assert slopecheck.at_layer(model, x, "stage4.1") < OFF  # behind it all is well
    finally:
        handles[0].remove()
