"""The worked numbers of the lectures on convolution, pooling and shapes, against torch's own operations."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.networks.common.blocks import count, least, side

NINE = torch.arange(9.0).view(1, 1, 3, 3)
TWO = torch.arange(4.0).view(1, 1, 2, 2)


def conv2d(x: Tensor, kernel: Tensor, padding: int = 0, stride: int | tuple[int, int] = 1) -> list[list[float]]:
    return F.conv2d(x, kernel, padding=padding, stride=stride)[0, 0].tolist()


def square(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows)[None, None]


# -- convolution ------------------------------------------------------------------------------------------------------


def test_cross_correlation() -> None:
    assert conv2d(NINE, TWO) == [[19, 25], [37, 43]]
    padded = [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]]
    assert conv2d(NINE, TWO, padding=1) == padded
    assert conv2d(NINE, TWO, padding=1, stride=(3, 2)) == [[0, 8], [6, 8]]


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding", "out"),
    [
        (7, 3, 1, 0, 5), (7, 3, 2, 0, 3), (7, 3, 1, 1, 7), (7, 5, 1, 2, 7), (7, 7, 1, 3, 7), (32, 5, 1, 2, 32),
        (32, 5, 1, 0, 28), (36, 5, 1, 0, 32), (7, 3, 2, 1, 4), (227, 11, 4, 0, 55), (55, 3, 2, 0, 27),
        (27, 5, 1, 2, 27), (27, 3, 2, 0, 13), (13, 3, 2, 0, 6),
    ],
)  # fmt: skip
def test_output_sizes(n: int, kernel: int, stride: int, padding: int, out: int) -> None:
    """floor((N - F + 2P) / S) + 1, as torch has it; P = (F - 1) / 2 keeps the size."""
    assert side(n, (kernel, stride, padding)) == out
    assert F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, kernel), stride=stride, padding=padding).shape[2] == out


def test_a_stride_that_does_not_fit() -> None:
    assert conv2d(torch.ones(1, 1, 7, 7), torch.ones(1, 1, 3, 3), stride=3) == [[9, 9], [9, 9]]  # the rest is not read
    assert side(7, (3, 3, 0)) == 2


def test_the_least_side_is_the_least_on_which_the_layers_run() -> None:
    for layers in [((11, 4, 0), (3, 2, 0)), ((7, 2, 1), (3, 2, 1), (5, 2, 0)), ((3, 1, 0), (2, 2, 0), (3, 1, 1))]:
        net = nn.Sequential(*[nn.Conv1d(1, 1, k, s, p) for k, s, p in layers])
        n = least(*layers)
        assert net(torch.zeros(1, 1, n)).shape[2] == side(n, *layers) >= 1
        with pytest.raises(RuntimeError, match="Kernel size"):
            net(torch.zeros(1, 1, n - 1))
    assert least((3, 2, 1), (3, 2, 1)) == 3  # below, the second one has one place and halves nothing


@pytest.mark.parametrize(
    ("size", "maps", "padding", "shape", "parameters"),
    [
        ((3, 32, 32), 10, 2, (10, 32, 32), 760),
        ((3, 32, 32), 6, 0, (6, 28, 28), 456),
        ((3, 36, 36), 10, 0, (10, 32, 32), 760),
    ],
)
def test_filters_of_5_by_5(size: tuple, maps: int, padding: int, shape: tuple, parameters: int) -> None:
    layer = nn.Conv2d(size[0], maps, 5, padding=padding)
    assert layer(torch.zeros(1, *size)).shape[1:] == shape
    assert count(layer) == (5 * 5 * 3 + 1) * maps == parameters


def test_the_animation_of_two_filters() -> None:
    """A 5 × 5 × 3 picture, padded to 7 × 7, under two 3 × 3 × 3 filters at stride 2."""
    g = torch.Generator().manual_seed(0)
    picture, kernels, bias = (
        torch.rand(3, 5, 5, generator=g),
        torch.rand(2, 3, 3, 3, generator=g),
        torch.tensor([1, 0.0]),
    )
    out = F.conv2d(F.pad(picture, (1, 1, 1, 1))[None], kernels, bias, stride=2)[0]
    assert out.shape == (2, 3, 3)
    by_hand = sum(
        float(picture[c, 2 + i - 1, 2 + j - 1] * kernels[0, c, i, j])
        for c in range(3)
        for i in range(3)
        for j in range(3)
    )
    assert float(out[0, 1, 1]) == pytest.approx(by_hand + 1, rel=1e-5)


def test_the_curve_detector() -> None:
    """A 7 × 7 filter of 30s: (50 · 30) · 4 + 20 · 30 where the curve lies under it, and 0 where it does not."""
    curve = torch.zeros(7, 7)
    for i, j in ((1, 5), (2, 4), (3, 3), (4, 3), (5, 3)):
        curve[i, j] = 30
    patch, elsewhere = curve / 30 * 50, torch.zeros(7, 7)
    patch[1, 5] = 20
    elsewhere[0, :3] = 40
    assert conv2d(patch[None, None], curve[None, None]) == [[6600]]
    assert conv2d(elsewhere[None, None], curve[None, None]) == [[0]]


def test_fixed_kernels() -> None:
    edge = square([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]])
    sharpen = square([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    blur = square([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    flat = torch.full((1, 1, 3, 3), 7.0)
    point = torch.zeros(1, 1, 3, 3)
    point[0, 0, 1, 1] = 16
    assert [conv2d(flat, k) for k in (edge, sharpen, blur)] == [[[0]], [[7]], [[7]]]
    assert conv2d(point, blur, padding=1) == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert [conv2d(point, k) for k in (edge, sharpen)] == [[[128]], [[80]]]


# -- pooling ----------------------------------------------------------------------------------------------------------


def test_the_pooling_quiz() -> None:
    x = square([[12.0, 20, 30, 0], [20, 12, 2, 0], [0, 70, 5, 2], [8, 2, 90, 3]])
    assert nn.MaxPool2d(2)(x)[0, 0].tolist() == [[20, 30], [70, 90]]
    assert nn.AvgPool2d(2)(x)[0, 0].tolist() == [[16, 8], [20, 25]]
    maps = square([[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    assert nn.MaxPool2d(2)(maps)[0, 0].tolist() == [[6, 8], [3, 4]]


def test_pooling_has_no_parameters() -> None:
    assert [count(m) for m in (nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1))] == [0, 0, 0]


# -- what layers cost -------------------------------------------------------------------------------------------------


def test_dense_parameters() -> None:
    assert count(nn.Linear(28 * 28, 10)) == 7850
    assert count(nn.Linear(640 * 480, 10)) == 3_072_010


def seen(layers: int) -> int:
    """How many input pixels in a row one output of so many 3 × 3 layers depends on, by the gradient."""
    x = torch.rand(1, 1, 15, 15, requires_grad=True)
    out = x
    for _ in range(layers):
        out = F.conv2d(out, torch.ones(1, 1, 3, 3), padding=1)
    (g,) = torch.autograd.grad(out[0, 0, 7, 7], x)
    return int((g[0, 0, 7] != 0).sum())


def test_receptive_fields() -> None:
    assert [seen(n) for n in (1, 2, 3)] == [3, 5, 7]
    c = 64
    small = nn.Conv2d(c, c, 3, bias=False)
    assert 3 * count(small) < count(nn.Conv2d(c, c, 7, bias=False))
    assert 2 * count(small) < count(nn.Conv2d(c, c, 5, bias=False))
    narrow = nn.Sequential(
        nn.Conv2d(c, c // 2, 1, bias=False),
        nn.Conv2d(c // 2, c // 2, 3, bias=False),
        nn.Conv2d(c // 2, c, 1, bias=False),
    )
    assert count(narrow) == 3.25 * c**2
    assert count(small) == 9 * c**2


def test_a_kernel_of_rank_one_splits() -> None:
    """N × N as 1 × N after N × 1."""
    g = torch.Generator().manual_seed(0)
    x, column, row = torch.rand(1, 1, 9, 9, generator=g), torch.rand(5, generator=g), torch.rand(5, generator=g)
    whole = F.conv2d(x, (column[:, None] * row)[None, None])
    split = F.conv2d(F.conv2d(x, column.view(1, 1, 5, 1)), row.view(1, 1, 1, 5))
    torch.testing.assert_close(split, whole)


def multiply_adds(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications of the convolutions and dense layers for one input (C, *S)."""
    done: list[int] = []

    def note(m: nn.Module, _: object, out: Tensor) -> None:
        if isinstance(m, nn.Conv2d | nn.Linear):
            places = out[0, 0].numel() if isinstance(m, nn.Conv2d) else 1
            done.append(m.weight.numel() * places)

    handles = [m.register_forward_hook(note) for m in net.modules()]
    net(torch.empty(1, *shape, device="meta"))
    for h in handles:
        h.remove()
    return sum(done)


def test_1_by_1_before_5_by_5() -> None:
    with torch.device("meta"):
        direct = nn.Conv2d(480, 48, 5, padding=2)
        first, second = nn.Conv2d(480, 16, 1), nn.Conv2d(16, 48, 5, padding=2)
    assert multiply_adds(direct, (480, 14, 14)) == 112_896_000
    assert multiply_adds(first, (480, 14, 14)) == 1_505_280
    assert multiply_adds(second, (16, 14, 14)) == 3_763_200
    assert multiply_adds(nn.Sequential(first, second), (480, 14, 14)) == 5_268_480


# -- how convolution is computed --------------------------------------------------------------------------------------


def test_im2col_is_one_matrix_product_and_col2im_goes_back() -> None:
    g = torch.Generator().manual_seed(0)
    x, kernels = torch.rand(1, 3, 4, 4, generator=g), torch.rand(2, 3, 2, 2, generator=g)
    columns = F.unfold(x, 2)
    assert columns.shape == (1, 12, 9)
    product = (kernels.view(2, 12) @ columns[0]).view(2, 3, 3)
    torch.testing.assert_close(product, F.conv2d(x, kernels)[0])
    often = F.fold(torch.ones_like(columns), (4, 4), 2)  # how many patches each pixel lies in
    assert often[0, 0].tolist() == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    torch.testing.assert_close(F.fold(columns, (4, 4), 2) / often, x)


@pytest.mark.parametrize("kernel", [3, 7])
def test_fft_gives_the_same(kernel: int) -> None:
    g = torch.Generator().manual_seed(0)
    x, k = (
        torch.rand(16, 16, generator=g, dtype=torch.float64),
        torch.rand(kernel, kernel, generator=g, dtype=torch.float64),
    )
    n = 16 + kernel - 1
    spectrum = torch.fft.rfft2(x, (n, n)) * torch.fft.rfft2(k.flip(0, 1), (n, n))
    full = torch.fft.irfft2(spectrum, (n, n))
    torch.testing.assert_close(full[kernel - 1 : 16, kernel - 1 : 16], F.conv2d(x[None, None], k[None, None])[0, 0])


def strassen(a: Tensor, b: Tensor) -> Tensor:
    """The product of two 2 × 2 matrices with seven multiplications in place of eight."""
    (p, q), (r, s) = a
    (t, u), (v, w) = b
    m1, m2, m3, m4 = (p + s) * (t + w), (r + s) * t, p * (u - w), s * (v - t)
    m5, m6, m7 = (p + q) * w, (r - p) * (t + u), (q - s) * (v + w)
    return torch.stack([torch.stack([m1 + m4 - m5 + m7, m3 + m5]), torch.stack([m2 + m4, m1 - m2 + m3 + m6])])


def test_strassen_and_winograd_multiply_less_often() -> None:
    a, b = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[5.0, 6], [7, 8]])
    assert torch.equal(strassen(a, b), a @ b)
    d, g = torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7])
    m = (  # F(2, 3): two outputs of a filter of three with four multiplications in place of six
        (d[0] - d[2]) * g[0], (d[1] + d[2]) * (g[0] + g[1] + g[2]) / 2,
        (d[2] - d[1]) * (g[0] - g[1] + g[2]) / 2, (d[1] - d[3]) * g[2],
    )  # fmt: skip
    assert [float(m[0] + m[1] + m[2]), float(m[1] - m[2] - m[3])] == F.conv1d(d[None, None], g[None, None])[
        0, 0
    ].tolist()


def test_half_precision_needs_stochastic_rounding() -> None:
    """A small step is lost each time it is rounded to the nearest; rounded by chance, it counts on average."""
    steps, step = 4000, 2**-13
    nearest = torch.tensor(1.0, dtype=torch.float16)
    for _ in range(steps):
        nearest = nearest + torch.tensor(step, dtype=torch.float16)
    assert float(nearest) == 1.0
    rng, by_chance, gap = np.random.default_rng(0), 1.0, 2**-10
    for up in rng.random(steps):
        low = math.floor((by_chance + step) / gap) * gap
        by_chance = low + gap * (up < (by_chance + step - low) / gap)
    assert by_chance == pytest.approx(1 + steps * step, rel=0.05)


def test_binary_products_are_xnor_and_counting() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 2, (64,), generator=g).bool() for _ in range(2))
    signs = (a * 2.0 - 1) @ (b * 2.0 - 1)
    agree = int((~(a ^ b)).sum())
    assert float(signs) == 2 * agree - 64


# -- activations and normalisation ------------------------------------------------------------------------------------


def test_activations() -> None:
    x = torch.tensor([-2.0, 0, 3])
    assert torch.heaviside(x, torch.tensor(1.0)).tolist() == [0, 1, 1]
    assert nn.Sigmoid()(x).tolist() == pytest.approx([1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-3))])
    assert nn.Tanh()(x).tolist() == pytest.approx([math.tanh(-2), 0, math.tanh(3)])
    assert nn.ReLU()(x).tolist() == [0, 0, 3]
    assert nn.LeakyReLU(0.1)(x).tolist() == pytest.approx([-0.2, 0, 3])
    assert nn.ELU()(x).tolist() == pytest.approx([math.exp(-2) - 1, 0, 3])


def test_whose_statistics_are_taken_off() -> None:
    """BatchNorm has one mean for each channel (1 × C × 1 × 1), LayerNorm one for each picture (N × 1 × 1 × 1)."""
    x = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    for layer, axes in ((nn.BatchNorm2d(3), (0, 2, 3)), (nn.GroupNorm(1, 3), (1, 2, 3))):
        mean, var = x.mean(axes, keepdim=True), x.var(axes, unbiased=False, keepdim=True)
        torch.testing.assert_close(layer(x), (x - mean) / (var + 1e-5).sqrt(), rtol=1e-4, atol=1e-5)
