"""Linear layers by oneDNN, in passes without a way back.

PyTorch multiplies float32 matrices by Intel's MKL, which on a processor of AMD (Zen 4, torch 2.14) takes up to 2.2
times as long as oneDNN, PyTorch's library for convolutions.  On other processors it was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clearsight.core.contents import settled_contents

ROWS, PRODUCTS = 4, 2**20  # rows, and multiplications, from which on it is the faster one


@contextmanager
def quick_linear(net: nn.Module) -> Iterator[None]:
    """Inside, the network's large linear layers go by oneDNN where no gradient is wanted; up to rounding the same.

    Which of them do depends on the layer and on what it is given alone.  Layers of classes derived from nn.Linear, with
    a forward of their own, on other devices and in other types than float32 stay as they are.

    >>> net, x = nn.Linear(512, 1000).requires_grad_(False), torch.rand(64, 512)
    >>> usual = net(x)
    >>> with quick_linear(net):
    ...     bool(((net(x) - usual).abs() < 1e-6 * usual.abs().max()).all())
    True
    """
    with ExitStack() as undo:
        for m in settled_contents(net).modules if _is_built() else ():
            if type(m) is nn.Linear and "forward" not in vars(m):
                undo.callback(vars(m).pop, "forward", None)
                vars(m)["forward"] = partial(_run, m)
        yield


@cache
def _is_built() -> bool:
    """Whether this PyTorch has the operation, for a processor on which it was measured or one like it."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    wide = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return built and wide and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _run(m: nn.Linear, x: Tensor) -> Tensor:
    weight, bias = m.weight, m.bias
    if not pays(x, weight) or not all(_is_usual(t) for t in (x, weight, bias) if t is not None):
        return F.linear(x, weight, bias)
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return found


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether x (..., K) is so much for a weight (N, K) that oneDNN is the faster one."""
    rows = x.numel() // max(1, x.shape[-1])
    return x.dim() > 1 and rows >= ROWS and rows * weight.numel() >= PRODUCTS


def _is_usual(t: Tensor) -> bool:
    """A float32 tensor on the CPU, of no class of its own, whose gradient nobody wants; nor is it in a transform."""
    if type(t) not in (Tensor, nn.Parameter) or torch._C._functorch.is_functorch_wrapped_tensor(t):
        return False
    plain = t.layout == torch.strided and t.is_contiguous()
    wanted = t.requires_grad and torch.is_grad_enabled()
    usual = t.dtype == torch.float32 and t.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return plain and usual and not wanted
