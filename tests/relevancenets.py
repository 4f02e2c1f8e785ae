"""Networks for layer-wise relevance propagation, and a slow replica of its rules, output by output."""

import functools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess

MEAN, STD = (0.5, 0.4), (0.25, 0.5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Run(nn.Module):
    """A network whose forward is the function given, over the modules given."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.how = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


@functools.cache
def made(build, size: tuple[int, ...] = (9, 10), *, bias: bool = True, seed: int = 0) -> tuple[Classifier, Tensor]:
    """A classifier of three classes around a network with random weights, also in its BatchNorm; and pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = build().double().eval()
        for name, p in net.named_parameters():
            if p.dim() == 1:
                p.data = 0.3 * torch.randn_like(p) + (1 if name.endswith("weight") else 0)
                p.data *= bias or name.endswith("weight")
        for name, b in net.named_buffers():
            if b.is_floating_point():
                b.copy_(torch.rand_like(b) + 0.5 if "var" in name else 0.2 * torch.randn_like(b))
        x = torch.rand(3, 2, *size)
    return Classifier(net, Preprocess(size, MEAN, STD), tuple("abc"), "made"), x


def away(z: np.ndarray, share: float = 1e-6) -> np.ndarray:
    size = share * np.sqrt((z**2).mean())
    return np.where(z < 0, z - size, z + size)


def matrix(conv: nn.Conv2d, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """A convolution as weights (outputs, inputs), where it has any, and the shape of what it gives; loop by loop."""
    channels, height, width = shape
    k, s, p, d = conv.kernel_size[0], conv.stride[0], conv.padding[0], conv.dilation[0]
    out = (conv.out_channels, *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n in (height, width)))
    w, there = np.zeros((*out, *shape)), np.zeros((*out, *shape), dtype=bool)
    per_group = channels // conv.groups
    for o in range(out[0]):
        group = o // (conv.out_channels // conv.groups)
        for y in range(out[1]):
            for x in range(out[2]):
                for i in range(per_group):
                    for ky in range(k):
                        for kx in range(k):
                            yy, xx = y * s - p + ky * d, x * s - p + kx * d
                            if 0 <= yy < height and 0 <= xx < width:
                                place = (o, y, x, group * per_group + i, yy, xx)
                                w[place] = conv.weight[o, i, ky, kx].item()
                                there[place] = True
    n = int(np.prod(out))
    return w.reshape(n, -1), there.reshape(n, -1), out


def share_out(rule, x, w, there, b, r, low=None, high=None):
    """One rule, output by output, input by input; x (I,), w (O, I), b and r (O,) -> (I,)."""
    z = w @ x + b
    found = np.zeros_like(x)
    parts = np.zeros_like(w)
    divisor = np.zeros_like(z)
    name, size = rule
    if name == "alpha-beta":
        up = share_out(("plus", 0), x, w, there, b, r)
        down = share_out(("plus", 0), x, -w, there, -b, r)
        return size * up - (size - 1) * down
    for j in range(len(z)):
        for i in range(len(x)):
            c = x[i] * w[j, i]
            if name == "epsilon":
                parts[j, i] = c
            elif name == "plus":
                parts[j, i] = max(c, 0)
            elif name == "gamma":
                parts[j, i] = c * (1 + size) if (c > 0) == (z[j] >= 0) else c
            elif name == "flat":
                parts[j, i] = float(there[j, i])
            elif name == "box":
                parts[j, i] = c - low[i] * max(w[j, i], 0) - high[i] * min(w[j, i], 0)
        bias = {
            "plus": max(b[j], 0),
            "epsilon": b[j],
            "gamma": b[j] * (1 + size) if (b[j] > 0) == (z[j] >= 0) else b[j],
        }
        divisor[j] = parts[j].sum() + bias.get(name, 0.0)
    divisor = away(divisor, size if name == "epsilon" else 1e-6)
    for j in range(len(z)):
        for i in range(len(x)):
            found[i] += parts[j, i] / divisor[j] * r[j]
    return found


def sum_out(parts: list[np.ndarray], r: np.ndarray, *, by_sign: bool) -> list[np.ndarray]:
    """A sum of branches, place by place."""
    z = sum(parts)
    if by_sign:
        parts = [np.where(z >= 0, np.maximum(p, 0), np.minimum(p, 0)) for p in parts]
    divisor = away(sum(parts))
    return [p / divisor * r for p in parts]


def pool_out(x: np.ndarray, r: np.ndarray, *, by_sign: bool) -> np.ndarray:
    """An average over 2 x 2 places with stride 1: x (C, H, W), r (C, H - 1, W - 1)."""
    found = np.zeros_like(x)
    z = (x[:, 1:, 1:] + x[:, :-1, 1:] + x[:, 1:, :-1] + x[:, :-1, :-1]) / 4
    totals = {}
    for sign in (1, -1):
        part = np.maximum(x * sign, 0) * sign
        totals[sign] = away((part[:, 1:, 1:] + part[:, :-1, 1:] + part[:, 1:, :-1] + part[:, :-1, :-1]) / 4)
    plain = away(z)
    for c in range(z.shape[0]):
        for y in range(z.shape[1]):
            for k in range(z.shape[2]):
                for dy in (0, 1):
                    for dx in (0, 1):
                        v = x[c, y + dy, k + dx]
                        sign = 1 if z[c, y, k] >= 0 else -1
                        if not by_sign:
                            found[c, y + dy, k + dx] += v / 4 / plain[c, y, k] * r[c, y, k]
                        elif v * sign > 0:
                            found[c, y + dy, k + dx] += v / 4 / totals[sign][c, y, k] * r[c, y, k]
    return found


RULES = {
    "plus": ("plus", 0),
    "alpha": ("alpha-beta", 1.5),
    "gamma": ("gamma", 0.4),
    "flat": ("flat", 0),
    "box": ("box", 0),
    "epsilon": ("epsilon", 0.01),
}


def stages(model: Classifier, picture: Tensor) -> dict:
    """What stands in the bent network for one picture (C, H, W), and its layers as matrices."""
    net = model.net
    mean, std = (np.array(v).reshape(2, 1, 1) for v in (MEAN, STD))
    pixels = (picture.double().numpy() - mean) / std
    low, high = ((np.full(pixels.shape, v) - mean) / std for v in (0.0, 1.0))
    silu = lambda v: v / (1 + np.exp(-v))  # noqa: E731

    w1, there1, shape1 = matrix(net.a, pixels.shape)
    b1 = net.a.bias.detach().numpy().repeat(shape1[1] * shape1[2])
    drive = w1 @ pixels.ravel() + b1
    h = silu(drive)
    w2, there2, shape2 = matrix(net.b, shape1)
    b2 = net.b.bias.detach().numpy().repeat(shape2[1] * shape2[2])
    branch = w2 @ h + b2
    after = silu(branch + h).reshape(shape2)
    pooled = (after[:, 1:, 1:] + after[:, :-1, 1:] + after[:, 1:, :-1] + after[:, :-1, :-1]) / 4
    w3, b3 = net.c.weight.detach().numpy(), net.c.bias.detach().numpy()
    return {
        "first": (pixels.ravel(), w1, there1, b1), "conv": (h, w2, there2, b2),
        "last": (pooled.ravel(), w3, w3 == w3, b3), "logits": w3 @ pooled.ravel() + b3,
        "box": (low.ravel(), high.ravel()), "drive": drive.reshape(shape1), "branch": branch, "after": after,
        "pooled": pooled.shape, "pixels": pixels.shape,
    }  # fmt: skip


def way_back(at: dict, r: np.ndarray, first, conv, last, *, by_sign: bool) -> tuple[np.ndarray, np.ndarray]:
    """The map, and the relevance of the first layer's output; a rule is given x, w, there, b, r (and low and high)."""
    r = last(*at["last"], r)
    r = pool_out(at["after"], r.reshape(at["pooled"]), by_sign=by_sign).ravel()
    r_branch, r_straight = sum_out([at["branch"], at["conv"][0]], r, by_sign=by_sign)
    inner = r_straight + conv(*at["conv"], r_branch)
    r = first(*at["first"], inner, *at["box"])
    return r.reshape(at["pixels"]).sum(0), inner.reshape(at["drive"].shape)


def rule(word: str):
    return functools.partial(share_out, RULES[word])


def bent() -> nn.Module:
    """Strided, grouped and dilated convolutions, inputs of both signs, a sum of branches and an average."""
    return Run(
        lambda s, x: s.c(F.avg_pool2d(F.silu((h := F.silu(s.a(x))) + s.b(h)), 2, 1).flatten(1)),
        a=nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), b=nn.Conv2d(4, 4, 3, padding=2, dilation=2),
        c=nn.Linear(16, 3),
    )  # fmt: skip


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.hardswish(self.a(x))
        gate = self.c(F.silu(self.b(h.mean((2, 3), keepdim=True)))).sigmoid()
        return self.d((h * gate).mean((2, 3)))


def dense_block(s, x):
    h = s.a(x).relu()
    h = torch.cat([h, s.b(s.n(h).relu())], 1)
    return s.d(F.adaptive_avg_pool2d(h, 2).flatten(1))


NETS = {
    "biases": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 9), nn.ReLU(), nn.Linear(9, 3))),
    "batch norm": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3))),
    "sums": (9, 10, lambda: Run(
        lambda s, x: s.c(F.relu((h := s.a(x)) - 0.5 * F.leaky_relu(s.b(h))).mean((2, 3))),
        a=nn.Conv2d(2, 4, 3), b=nn.Conv2d(4, 4, 3, padding=1), c=nn.Linear(4, 3))),
    "silu": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Conv2d(4, 5, 3), nn.GELU(), nn.AvgPool2d(3, 2, 1), nn.Flatten(),
        nn.Linear(45, 3))),
    "squeeze and excitation": (9, 10, Squeeze),
    "concatenation": (9, 10, lambda: Run(
        dense_block, a=nn.Conv2d(2, 4, 3), n=nn.BatchNorm2d(4), b=nn.Conv2d(4, 3, 3, padding=1), d=nn.Linear(28, 3))),
    "grouped, dilated, strided": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU6(), nn.Conv2d(4, 8, 3, groups=4, dilation=2, padding=1),
        nn.ELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))),
    "ceil mode": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Softplus(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3))),
    "no dense layer": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.PReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 3, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten())),
    "layers normalised": (9, 10, lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(2), nn.LayerNorm(56), nn.Flatten(),
        nn.Linear(224, 3))),
    "sequence": (20, None, lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(4, 3))),
    "clip": ((4, 6, 5), None, lambda: nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(4, 3))),
}  # fmt: skip


def built(name: str) -> tuple[Classifier, Tensor]:
    first, second, build = NETS[name]
    size = first if isinstance(first, tuple) else (first,) if second is None else (first, second)
    return made(build, size)
