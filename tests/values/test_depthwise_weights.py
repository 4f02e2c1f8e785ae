"""Gradients of wide depthwise filters, taken three columns at a time, are those of torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clearsight.internals import twice_differentiable as forms
from clearsight.internals.depthwise_weights import depthwise_weights, is_wide_depthwise
from clearsight.internals.twice_differentiable import twice_differentiable


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [
        ((4, 4), (5, 5), (1, 1), (2, 2), (1, 1)),
        ((11, 11), (5, 5), (2, 2), (0, 0), (1, 1)),
        ((9, 12), (3, 4), (1, 2), (1, 3), (1, 1)),
        ((12, 14), (2, 7), (3, 1), (0, 3), (1, 2)),
        ((14, 8), (7, 6), (2, 3), (1, 5), (2, 1)),
        ((6, 2), (3, 10), (1, 1), (0, 4), (1, 1)),
    ],
)
def test_wide_depthwise_filters_have_the_gradient_of_torch(size, kernel, stride, padding, dilation, layout):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 6, *size, generator=generator).to(memory_format=layout)
    weight = torch.randn(6, 1, *kernel, generator=generator).double().requires_grad_()
    out = nn.functional.conv2d(x.double(), weight, None, stride, padding, dilation, 6)
    g = torch.randn(out.shape, generator=generator).to(memory_format=layout)
    (wanted,) = torch.autograd.grad(out, weight, g.double())
    found = depthwise_weights(g, x, weight.detach().float(), stride, padding, dilation)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_only_wide_depthwise_filters_are_taken_in_parts():
    x = torch.zeros(1, 4, 8, 8)
    assert is_wide_depthwise(x, torch.zeros(4, 1, 5, 5), 4)
    assert is_wide_depthwise(x, torch.zeros(4, 1, 1, 4), 4)
    assert not is_wide_depthwise(x, torch.zeros(4, 1, 5, 3), 4)
    assert not is_wide_depthwise(x, torch.zeros(4, 2, 5, 5), 2)
    assert not is_wide_depthwise(x, torch.zeros(8, 1, 5, 5), 4)
    assert not is_wide_depthwise(x.double(), torch.zeros(4, 1, 5, 5).double(), 4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_guided_step_takes_them_so(bias, monkeypatch):
    """Both gradients of a filter, that of the labels and that of the explanation, and those of what stands before."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=bias),
        nn.Softplus(),
        nn.Conv2d(4, 4, 5, stride=2, groups=4, bias=bias),
        nn.Flatten(),
    )
    x, parts = torch.rand(3, 2, 11, 11).requires_grad_(), []

    def slopes() -> tuple[Tensor, ...]:
        out = net(x)
        (g,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum() + out.square().sum(), list(net.parameters()))

    def counted(*args: Tensor) -> Tensor:
        parts.append(args)
        return depthwise_weights(*args)

    plain = slopes()
    monkeypatch.setattr(forms, "depthwise_weights", counted)
    with twice_differentiable():
        cheap = slopes()
    assert len(parts) == 4
    for a, b in zip(cheap, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
