"""How many pictures go through the network at once, and how they are counted."""

import pytest
import torch
from torch import nn

from clearsight.core import passes
from clearsight.core.batching import BYTES, bounded, bytes_kept, pairs
from clearsight.core.classifier import Classifier, Preprocess
from clearsight.core.targets import ClassScore
from clearsight.runner.run import explain


def wide(channels: int) -> Classifier:
    """Its ReLU keeps channels * 64 * 64 floats for the way back, its convolution the picture."""
    net = nn.Sequential(nn.Conv2d(1, channels, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(channels, 2))
    return Classifier(net.requires_grad_(False), Preprocess(64, (0.5,), (0.5,)), ("a", "b"))


def test_what_a_pass_keeps_is_counted_in_bytes():
    model = wide(32)
    here = 4 * 64 * 64 * 32
    assert here <= bytes_kept(model, torch.rand(1, 1, 64, 64)) <= 1.1 * here + 4 * 64 * 64 * 2


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
