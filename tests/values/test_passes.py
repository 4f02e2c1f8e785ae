"""How many pictures go through the network at once, and how they are counted."""

import time
from collections import OrderedDict

import pytest
import torch
from torch import nn

from clearsight.core import batching, passes
from clearsight.core.batching import BYTES, MOST, SMALL, at_once, bounded, bytes_kept, pairs
from clearsight.core.classifier import Classifier
from clearsight.core.deadline import OutOfTime, given_up_at
from clearsight.core.preprocess import Preprocess
from clearsight.core.targets import ClassScore
from clearsight.runner.run import attack, explain


def wide(channels: int) -> Classifier:
    """Its ReLU keeps channels * 64 * 64 floats for the way back, its convolution the picture."""
    net = nn.Sequential(nn.Conv2d(1, channels, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(channels, 2))
    return Classifier(net.requires_grad_(False), Preprocess(64, (0.5,), (0.5,)), ("a", "b"))


def test_what_a_pass_keeps_is_counted_in_bytes():
    model = wide(32)
    here = 4 * 64 * 64 * 32
    assert here <= bytes_kept(model, torch.rand(1, 1, 64, 64)) <= 1.1 * here + 4 * 64 * 64 * 2


def test_every_pass_looks_at_the_clock():
    """Through the network, through what was recorded of it, and in another process; the model comes back whole."""
    model = wide(3)
    net, x = model.net.train(), torch.rand(2, 1, 64, 64)
    explain(model, x, "integrated-gradients(steps=2)")
    there = passes.Passes(1)
    for late in (
        lambda: model(x),
        lambda: passes.note(1),
        lambda: passes.note_elsewhere(net, there),
        lambda: explain(model, x, "integrated-gradients(steps=2)"),
        lambda: explain(model, x, "lrp"),
    ):
        with pytest.raises(OutOfTime), given_up_at(time.monotonic() - 1):
            late()
        assert net.training
        with given_up_at(time.monotonic() + 60):
            late()


def test_no_more_pictures_are_bounded_together_than_memory_holds():
    model, x = wide(32), torch.rand(1, 1, 64, 64)
    with bounded(model, x, 16) as size:
        assert size == 16
    big = wide(4096)  # 64 MB for each picture
    with bounded(big, x, 16) as size:
        assert size == BYTES // bytes_kept(big, x)
        assert 5 <= size <= 8
        assert max(len(rows) for rows, _ in pairs(3, 20, backward=True)) == size
        assert max(len(rows) for rows, _ in pairs(3, 20)) == 16
    assert max(len(rows) for rows, _ in pairs(3, 20, backward=True)) == 16


def test_more_pictures_go_through_a_small_network_where_nobody_says_how_many():
    small, middling, big = (wide(c).net for c in (4, 64, 4096))
    found = []
    for net in (small, middling, big):
        model, x = Classifier(net, Preprocess(64, (0.5,), (0.5,)), ("a", "b")), torch.rand(1, 1, 64, 64)
        with bounded(model, x, None) as size:
            both = [max(len(rows) for rows, _ in pairs(3, 300, backward=back)) for back in (False, True)]
            found.append((size, *both))
        assert at_once() == 16
    assert found[0] == (MOST, MOST, MOST)
    assert found[1] == (SMALL // bytes_kept(Classifier(middling, model.preprocess, ("a", "b")), x),) * 3
    assert 16 < found[1][0] < 64
    assert found[2][1] == 16
    assert found[2][0] == found[2][2] < 9
    with bounded(Classifier(small, model.preprocess, ("a", "b")), x, 3) as size:
        assert size == 3  # somebody says it
        assert max(len(rows) for rows, _ in pairs(3, 20)) == 16
    assert at_once() == 16


def test_only_a_small_network_makes_the_process_keep_its_memory(monkeypatch):
    asked = []
    monkeypatch.setattr(batching, "free_one_block", lambda: asked.append(True))
    for channels, size, times in ((4096, None, 0), (4, 3, 0), (4, None, 1)):
        with bounded(wide(channels), torch.rand(1, 1, 64, 64), size):
            assert len(asked) == times


def test_a_network_whose_work_is_not_seen_is_not_taken_for_a_small_one():
    class Hidden(nn.Module):  # as an engine for exported files: nothing of its work is kept by torch
        def forward(self, z):
            return wide(4).net(z.detach())

    model, x = Classifier(Hidden(), Preprocess(64, (0.5,), (0.5,)), ("a", "b")), torch.rand(1, 1, 64, 64)
    with bounded(model, x, None) as size:
        assert size == at_once() == 16
    with bounded(model, x, 64) as size:
        assert size == 64  # somebody says it


def test_what_a_network_keeps_is_remembered_only_where_another_can_be_compared_with_it(monkeypatch):
    monkeypatch.setattr(batching, "kept_alike", OrderedDict())
    plain, opaque = wide(32), wide(33)
    opaque.net.something = object()  # nobody can tell whether another network's is the same
    for model, remembered in ((opaque, 0), (plain, 1), (opaque, 1)):
        with bounded(model, torch.rand(1, 1, 64, 64), None):
            assert len(batching.kept_alike) == remembered


@pytest.mark.parametrize("method", ["pgd(steps=3)", "square(queries=8)", "deepfool", "saliency", "rise(masks=40)"])
def test_how_many_go_together_does_not_show(method):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    model = Classifier(net, Preprocess(8, (0.5,), (0.5,)), ("a", "b", "c"))
    x = torch.rand(40, 1, 8, 8)
    y = model(x).argmax(1)
    sizes: list[int] = []
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    run = {"saliency": explain, "rise(masks=40)": explain}.get(method, attack)
    results = []
    for batch in (None, 16):
        sizes.clear()
        if run is explain:
            results.append(explain(model, x, method, ClassScore(y), batch=batch).maps)
        else:
            results.append(attack(model, x, y, method, batch=batch).x)
        assert (max(sizes) > 16) == (batch is None)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bounded_pictures_are_explained_like_others():
    model = wide(4096)
    x = torch.rand(9, 1, 64, 64)
    e = explain(model, x, "saliency", ClassScore(0))
    assert (e.forwards, e.backwards) == (1, 1)
    torch.testing.assert_close(e.maps[8:], explain(model, x[8:], "saliency", ClassScore(0)).maps)


def test_nested_counts_both_count():
    model = wide(4)
    x = torch.rand(3, 1, 64, 64)
    with passes.counted(model.net) as outer:
        model(x)
        with passes.counted(model.net) as inner:
            model(x[:2].requires_grad_()).sum().backward()
            with passes.uncounted():
                model(x)
    assert (outer.forwards, outer.backwards) == (5, 2)
    assert (inner.forwards, inner.backwards) == (2, 2)
