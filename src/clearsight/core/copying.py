"""Copies of a network: whole, and with every weight as its layer uses it."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from clearsight.errors import Refused


def copied(net: nn.Module, *, sharing_weights: bool = False) -> nn.Module:
    """A deep copy, also where a hook left a weight that it computed: a tensor with a history, which PyTorch refuses.

    sharing_weights: the copy has modules and hooks of its own, and the very parameters of the network.

    Refused: a network that holds something that cannot be copied, such as a lock or an open file.
    """
    memo: dict[int, Tensor] = {
        id(v): v.detach().clone()
        for m in net.modules()
        for v in vars(m).values()
        if isinstance(v, Tensor) and not v.is_leaf
    }
    if sharing_weights:
        memo |= {id(p): p for p in net.parameters()}
    try:
        return copy.deepcopy(net, memo)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError) as e:
        message = str(e).partition("\n")[0]
        raise Refused(
            f"the network cannot be copied ({type(e).__name__}: {message}): keep objects that cannot be copied outside "
            "its modules"
        ) from e


def plain(net: nn.Module) -> nn.Module:
    """A copy in eval mode, in which every weight that is computed from others is one itself, with the value it has.

    So are those under weight_norm and spectral_norm, as hooks and as parametrizations, under any other parametrization,
    and pruned ones: a layer drawn anew would else compute its old weight again.
    """
    net = copied(net).eval()
    for p in net.parameters():
        if p.is_floating_point() or p.is_complex():
            p.requires_grad_()  # what is computed from frozen weights would become a buffer
    for m in list(net.modules()):
        if parametrize.is_parametrized(m):
            _unshare_class(m)
            for name in list(m.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(m, name, leave_parametrized=True)
                weight = m.get_parameter(name)
                weight.data = weight.data.contiguous()  # numbers are drawn in the order of memory
        for hook in list(m._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(m, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(m, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(m, hook._tensor_name)  # type: ignore[no-untyped-call]
    for p in net.parameters():
        p.requires_grad_(False)
    return net


def _unshare_class(m: nn.Module) -> None:
    """PyTorch takes a parametrization off the class that a module shares with its copies: give this one its own."""
    shared = type(m)
    attributes = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
    m.__class__ = type(shared.__name__, shared.__bases__, attributes)
