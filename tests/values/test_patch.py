"""Pictures that differ in a window get the logits of whole passes, although only what the window reaches is run."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import SqueezeExcitation

import clearsight as cs
from clearsight.core.classifier import Classifier
from clearsight.core.first_pass import awaiting
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.internals import forward_with_patch, patch_plan, recording
from clearsight.internals.graph import word
from clearsight.internals.patch_plan import Plan, plan_for
from clearsight.internals.recording import graph_of
from clearsight.runner.run import explain
from networks import NAMES, network, sizes
from relevancenets import Run

SIDES = (26, 31)


def conv(i: int, o: int, k: int | tuple[int, int], **options) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **options)


def residual(s, x):
    h = F.relu(s.a(x))
    h = h + s.b(F.relu(s.c(h)))
    return s.d(F.gelu(torch.cat([h, s.e(h)], 1)))


def past(s, x):
    h = s.a(x)
    return torch.tanh(h + s.b(h))


def scaled(s, x):
    return s.b(s.a(x).mul(torch.arange(1.0, 5.0, dtype=x.dtype).view(4, 1, 1)).clamp(-1, 2))


def by_place(s, x):
    h = s.a(x)
    return s.b(h * torch.linspace(0, 1, h.shape[-1], dtype=x.dtype))


def gated(s, x):
    h = s.a(x)
    return s.c(h * s.b(h))


def mean_taken_off(s, x):
    h = s.a(x)
    return s.b(h - h.mean((2, 3), keepdim=True))


def seq(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


# name -> (its layers before pooling, the operations that can run on patches)
NETS = {
    "strides and paddings": (
        lambda: seq(conv(2, 4, 3, stride=2, padding=1), nn.SiLU(), conv(4, 4, (5, 2), padding=(0, 1), groups=2),
                    conv(4, 4, 1, stride=3), conv(4, 4, 2)),
        "convolution silu convolution convolution convolution",
    ),
    "dilated": (
        lambda: seq(conv(2, 4, 3, dilation=(2, 3), padding=(4, 1)), conv(4, 4, 3, padding="same", dilation=2)),
        "convolution convolution",
    ),
    "batch norm": (
        lambda: seq(conv(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardswish(), nn.MaxPool2d(3, 2, 1),
                    nn.BatchNorm2d(4), nn.PReLU(4), conv(4, 4, 3, padding=1)),
        "convolution hardswish max_pool2d_with_indices affine _prelu_kernel convolution",
    ),
    "pools": (
        lambda: seq(conv(2, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2),
                    conv(4, 4, 1)),
        "convolution max_pool2d_with_indices avg_pool2d avg_pool2d convolution",
    ),
    "a dilated pool": (
        lambda: seq(nn.MaxPool2d(2, 1, 1, dilation=2), conv(2, 4, 3)), "max_pool2d_with_indices convolution",
    ),
    "a mean of fewer at the border": (
        lambda: seq(conv(2, 4, 3), nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(4, 4, 3)), "convolution",
    ),
    "a border of another value": (
        lambda: seq(nn.ConstantPad2d((1, 0, 2, 3), 0.7), conv(2, 4, 3), nn.ZeroPad2d((-2, 1, -1, 0)), conv(4, 4, 3)),
        "constant_pad_nd convolution constant_pad_nd convolution",
    ),
    "a mirrored border": (lambda: seq(conv(2, 4, 3), nn.ReflectionPad2d(1), conv(4, 4, 3)), "convolution"),
    "residual and concatenated": (
        lambda: Run(residual, a=conv(2, 4, 3, stride=2), b=conv(4, 4, 3, padding=1), c=conv(4, 4, 5, padding=2),
                    d=conv(8, 4, 1), e=conv(4, 4, 3, padding=1)),
        "convolution relu convolution relu convolution add convolution cat gelu convolution",
    ),
    "a short way past a convolution": (
        lambda: Run(past, a=conv(2, 4, 3, padding=1), b=conv(4, 4, 3, padding=1)), "convolution convolution add tanh",
    ),
    "constants": (lambda: Run(scaled, a=conv(2, 4, 3), b=conv(4, 4, 3)), "convolution mul clamp convolution"),
    "constants of a place": (lambda: Run(by_place, a=conv(2, 4, 3), b=conv(4, 4, 3)), "convolution"),
    "a gate that sees all": (
        lambda: Run(gated, a=conv(2, 4, 3), b=conv(4, 4, (24, 29)), c=conv(4, 4, 3)), "convolution convolution",
    ),
    "less its mean": (lambda: Run(mean_taken_off, a=conv(2, 4, 3), b=conv(4, 4, 3)), "convolution"),
    "a larger map": (
        lambda: seq(conv(2, 4, 3, stride=2), nn.ConvTranspose2d(4, 4, 2, 2), conv(4, 4, 3)), "convolution",
    ),
    "squeeze and excitation": (
        lambda: seq(conv(2, 4, 3, padding=1), SqueezeExcitation(4, 2), conv(4, 4, 3)), "convolution",
    ),
    "statistics of the picture": (lambda: seq(conv(2, 4, 3), nn.GroupNorm(2, 4), conv(4, 4, 3)), "convolution"),
    "channels last": (
        lambda: seq(conv(2, 4, 3, stride=2), nn.ReLU(), conv(4, 4, 3)).to(memory_format=torch.channels_last),
        "convolution relu convolution",
    ),
}  # fmt: skip


def build(name: str) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = NETS[name][0]()
        for m in body.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.normal_(m.running_mean)
                nn.init.uniform_(m.running_var, 0.5, 2)
                nn.init.normal_(m.weight)
        net = seq(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double().eval()
    return Classifier(net, Preprocess(SIDES, (0.5, 0.4), (0.25, 0.5)), tuple("abc"), name)


def windows_of(sides: tuple[int, int], window: tuple[int, int], stride: int) -> Tensor:
    """Windows in all corners, at all borders and inside."""
    places = [sorted({*range(0, side - w, stride), side - w}) for side, w in zip(sides, window, strict=True)]
    return torch.cartesian_prod(*[torch.tensor(p) for p in places])


def deepest(monkeypatch, model: Classifier, x: Tensor, starts: Tensor, window: tuple[int, int]) -> Plan:
    """The plan that runs as much on patches as it can, whether it is worth it or not."""
    monkeypatch.setattr(patch_plan, "best_cut", lambda _known, steps, _whole: (len(steps), 0.0))
    return plan_for(graph_of(model, x[:1]), model.normalised(x[:1]).to(model.dtype), starts, window)


def both_ways(model: Classifier, x: Tensor, starts: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """The logits of two pictures with noise in each window, by whole passes and by the plan."""
    rows = torch.arange(2).repeat_interleave(len(starts))
    k = torch.arange(len(starts)).repeat(2)
    noise = torch.rand(len(k), x.shape[1], *plan.boxes.sides, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    ways = forward_with_patch.forward_plain(model, x, starts), forward_with_patch.forward_planned(model, x, plan)
    plain, planned = (torch.cat([way(rows[i], k[i], noise[i]) for i in torch.arange(len(k)).split(7)]) for way in ways)
    return plain, planned


@pytest.mark.parametrize(("window", "stride"), [((5, 5), 7), ((26, 3), 6)])
@pytest.mark.parametrize("name", NETS)
def test_patches_give_the_logits_of_whole_passes(monkeypatch, name, window, stride):
    model = build(name)
    x = torch.rand(2, 2, *SIDES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    starts = windows_of(SIDES, window, stride)
    with model.undisturbed(), torch.no_grad():
        plan = deepest(monkeypatch, model, x, starts, window)
        plain, planned = both_ways(model, x, starts, plan)
        changed = (plain != model(x).repeat_interleave(len(starts), 0)).any(1)
    torch.testing.assert_close(planned, plain, rtol=1e-10, atol=1e-10)
    assert int(changed.sum()) > len(changed) / 2  # strides leave out some windows of one pixel


@pytest.mark.parametrize("name", NETS)
def test_all_that_reads_near_places_can_run_on_patches_and_nothing_else_does(monkeypatch, name):
    model, x = build(name), torch.rand(1, 2, *SIDES, dtype=torch.float64)
    with model.undisturbed():
        plan = deepest(monkeypatch, model, x, windows_of(SIDES, (2, 2), 8), (2, 2))
    assert [word(s.node) for s in plan.steps if word(s.node) != "getitem"] == NETS[name][1].split()


def test_one_window_away_from_all_borders_spreads_to_all_sides(monkeypatch):
    model, x = build("a short way past a convolution"), torch.rand(2, 2, *SIDES, dtype=torch.float64)
    starts = torch.tensor([[9, 12]])
    with model.undisturbed(), torch.no_grad():
        plan = deepest(monkeypatch, model, x, starts, (3, 4))
        plain, planned = both_ways(model, x, starts, plan)
    assert [s.boxes.sides for s in plan.steps] == [(5, 6), (7, 8), (7, 8), (7, 8)]
    assert all(s.boxes.starts.tolist() == [[7, 10]] for s in plan.steps[1:])
    torch.testing.assert_close(planned, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_patches_give_the_logits_of_whole_passes_of_networks_of_the_field(monkeypatch, name):
    size = sizes(name)[-1]
    model = network(name, size)
    model = replace(model, net=model.net.double())
    x = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    starts = windows_of(size, (15, 12), 29)
    with model.undisturbed(), torch.no_grad():
        plan = deepest(monkeypatch, model, x, starts, (15, 12))
        plain, planned = both_ways(model, x, starts, plan)
    torch.testing.assert_close(planned, plain, rtol=1e-9, atol=1e-9 * float(plain.abs().max()))


# --- when it is done, and what it saves -------------------------------------------------------------------------------

WINDOWS = windows_of((64, 64), (16, 16), 8)  # 49


def picture(n: int = 1, side: int = 64) -> Tensor:
    low = torch.rand(n, 3, 9, 9, generator=torch.Generator().manual_seed(5))
    return F.interpolate(low, (side, side), mode="bicubic").clamp(0, 1)


def wide(*more: nn.Module, **options) -> Classifier:
    """A network of so much arithmetic that recording it is worth 49 windows."""
    torch.manual_seed(0)
    body = seq(conv(3, 40, 3, padding=1), nn.ReLU(), conv(40, 40, 3, padding=1), nn.ReLU(), *more, conv(40, 4, 1))
    net = seq(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval().requires_grad_(False)
    return Classifier(net, Preprocess(64, (0.5,) * 3, (0.25,) * 3), tuple("abc"), "wide", **options)


COSTS = {name: getattr(forward_with_patch, name) for name in ("RECORD", "RECORD_PASSES")}


@pytest.fixture(autouse=True)
def recording_costs_nothing(monkeypatch) -> None:
    for cost in COSTS:
        monkeypatch.setattr(forward_with_patch, cost, 0)


@pytest.fixture
def nothing_recorded(monkeypatch, recording_costs_nothing) -> None:
    """And recording costs what it costs."""
    monkeypatch.setattr(recording, "recordings", OrderedDict())
    for cost, usual in COSTS.items():
        monkeypatch.setattr(forward_with_patch, cost, usual)


def planned(model: Classifier, x: Tensor, starts: Tensor = WINDOWS, sides: tuple[int, ...] = (16, 16)) -> Plan | None:
    with model.undisturbed(), torch.no_grad():
        return forward_with_patch.worthwhile_plan(model, x, starts, sides)


def recorded(model: Classifier, x: Tensor) -> Classifier:
    """The model, recorded by now."""
    with model.undisturbed(), torch.no_grad():
        graph_of(model, x[:1])
    return model


def by_whole_passes(monkeypatch, model: Classifier, x: Tensor, call: str):
    with monkeypatch.context() as here:
        here.setattr(forward_with_patch, "worthwhile_plan", lambda *_: None)
        return explain(model, x, call)


def test_the_demo_network_does_much_less_for_a_window(monkeypatch):
    model, x = cs.load("demo"), picture(2, 224)
    starts = windows_of((224, 224), (32, 32), 16)
    with model.undisturbed(), torch.no_grad():
        plan = plan_for(graph_of(model, x[:1]), model.normalised(x[:1]), starts, (32, 32))
        rows, k = torch.tensor([0, 0, 1]), torch.tensor([0, 100, 160])
        patches = torch.rand(3, 3, 32, 32)
        with FlopCounterMode(display=False) as whole:
            wanted = forward_with_patch.forward_plain(model, x, starts)(rows, k, patches)
        run = forward_with_patch.forward_planned(model, x, plan)
        run(rows[2:], k[2:], patches[2:])  # what is kept is of the second picture now
        kept_for = run(rows[:1], k[:1], patches[:1]), run(rows[1:2], k[1:2], patches[1:2])
        with FlopCounterMode(display=False) as part:
            assert torch.equal(run(rows[:1], k[:1], patches[:1]), kept_for[0])
        found = torch.cat([*kept_for, run(rows[2:], k[2:], patches[2:])])
        assert torch.equal(run(rows, k, patches).argmax(1), found.argmax(1))
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    assert plan.share < 0.5  # counted with what it takes to write values
    assert part.get_total_flops() < 0.75 * whole.get_total_flops() / 3  # without


def test_occlusion_is_that_of_whole_passes_and_counts_as_many(monkeypatch):
    model, x = wide(), picture(2)
    call = "occlusion(window=16, stride=8)"
    wanted = by_whole_passes(monkeypatch, model, x, call)
    assert planned(model, x) is not None
    with FlopCounterMode(display=False) as part:
        found = explain(model, x, call, batch=5)
    with FlopCounterMode(display=False) as whole:
        by_whole_passes(monkeypatch, model, x, call)
    assert found.forwards == wanted.forwards == 50
    assert torch.equal(found.target.index, wanted.target.index)
    assert part.get_total_flops() < 0.4 * whole.get_total_flops()
    assert float(wanted.maps.abs().max()) > 1e-3
    torch.testing.assert_close(found.maps, wanted.maps, rtol=1e-4, atol=1e-5 * float(wanted.maps.abs().max()))


def test_the_top_class_is_known_from_the_pass_over_the_whole_pictures():
    model, x = wide(), picture(2)
    assert planned(model, x) is not None
    with model.undisturbed(), awaiting(model.net, x) as first:
        logits, _ = forward_with_patch.forward_with_patch(model, x, WINDOWS, (16, 16))
    assert first.logits is not None
    torch.testing.assert_close(first.logits, logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, model(x), rtol=1e-5, atol=1e-6)


def test_nothing_is_recorded_where_less_is_saved(nothing_recorded):
    model, x = wide(), picture(20)
    assert planned(wide(nn.AdaptiveAvgPool2d(1)), x[:2]) is not None
    assert planned(wide(nn.MaxPool2d(2), SqueezeExcitation(40, 4)), x[:2]) is not None
    before = [*recording.recordings]
    for early in (SqueezeExcitation(3, 1), nn.GroupNorm(1, 3)):  # all the rest would run whole
        with_early = wide()
        with_early.net[0].insert(0, early.eval().requires_grad_(False))
        assert planned(with_early, x) is None
    thin = Classifier(
        seq(conv(3, 4, 3), nn.Flatten(), nn.Linear(4 * 62 * 62, 3)).eval(), model.preprocess, model.labels
    )
    assert planned(thin, x) is None
    assert [*recording.recordings] == before


def test_whether_patches_are_made_does_not_hang_on_what_ran_before(monkeypatch):
    model, x = wide(nn.Dropout()), picture()
    assert planned(model, x) is not None
    assert planned(model, x, WINDOWS[:39]) is None  # making a plan takes as long
    monkeypatch.setattr(forward_with_patch, "RECORD", 10**12)
    assert planned(model, x) is None  # though it is recorded by now


def test_whole_passes_are_made_where_patches_would_not_give_the_same(monkeypatch):
    x = picture()
    model = recorded(wide(), x)
    assert planned(model, x) is not None
    monkeypatch.setattr(forward_with_patch, "SAME", 0.0)
    assert planned(model, x) is None


def test_whole_passes_are_made_where_patches_would_take_as_long(monkeypatch):
    x = picture()
    model = recorded(wide(), x)
    assert planned(model, x, WINDOWS * 0, (60, 60)) is None  # nearly all of the picture
    assert planned(model, x) is not None


def test_networks_that_cannot_be_taken_apart_run_whole():
    x = picture()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        scripted = torch.jit.script(wide().net)
    for model in (
        replace(wide(), net=scripted),
        wide(Run(lambda _s, z: z * 1 if float(z.mean()) > 9 else z * 2)),
        wide(Run(lambda _s, z: z + 1e-9 * torch.rand_like(z))),
    ):
        assert planned(model, x) is None
    rows = Classifier(
        seq(nn.Conv1d(2, 64, 9), nn.ReLU(), nn.Conv1d(64, 64, 9), nn.Flatten(), nn.Linear(64 * 496, 3)).eval(),
        Preprocess((512,), (0.5,) * 2, (0.25,) * 2), tuple("abc"),
    )  # fmt: skip
    assert planned(rows, torch.rand(50, 2, 512), torch.arange(0, 500, 5)[:, None], (8,)) is None
    e = explain(rows, torch.rand(1, 2, 512), "occlusion(window=64)", ClassScore(0))
    assert e.maps.shape == (1, 512)
