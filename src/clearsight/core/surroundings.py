"""What surrounds a call and must not show in its results: autocast, default types, compiled code, checkpointing.

And the order in memory of what goes through a norm.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from clearsight.core.batch_norm import scaled_back
from clearsight.core.memory_order import lies_last
from clearsight.core.pixel_convolution import widened
from clearsight.core.undoing import Undo, undone

_lock = threading.Lock()
process_undo: Undo = []  # how what was set for the whole process is set back, while anybody is inside
inside_count = 0  # how many are
this_thread = threading.local()  # .depth: how many of them are this thread's


def enter(undo: Undo) -> None:
    """Set what surrounds this thread's work aside; undo gets the steps back.

    autocast is off: a network computes in its own type, not in that of whoever calls.  New tensors are float32.  What
    torch.compile made runs as it was written, because compiled code ignores hooks, or keeps those that are gone.
    torch.utils.checkpoint keeps values instead of working them out again on the way back, where hooks would be gone.
    Batch and instance norm see one picture alone in the usual order of memory, in which alone their gradient is right;
    batch norm's gradient at a large input is the scale that it is (see batch_norm.py).  One thread runs convolutions of
    one pixel as several would (see pixel_convolution.py).
    """
    for kind in ("cpu", "cuda", "mps", "xpu"):
        if torch.is_autocast_enabled(kind):
            off = torch.autocast(kind, enabled=False)
            off.__enter__()  # type: ignore[no-untyped-call]
            undo.append(lambda off=off: off.__exit__(None, None, None))  # type: ignore[misc]
    _enter_process()
    undo.append(_leave_process)
    this_thread.depth = getattr(this_thread, "depth", 0) + 1
    undo.append(_one_less)


def _one_less() -> None:
    this_thread.depth -= 1


def _enter_process() -> None:
    global inside_count
    with _lock:
        if inside_count == 0:
            try:
                norms = (_contiguous_norms, _scaled_batch_norm)
                for set_ in (_float32, _as_written, _without_checkpointing, *norms, _convolutions_of_a_pixel):
                    set_(process_undo)
            except BaseException:
                undone(process_undo)
                raise
        inside_count += 1


def _leave_process() -> None:
    global inside_count
    with _lock:
        inside_count -= 1
        failed = undone(process_undo) if inside_count == 0 else []
    if failed:
        raise failed[0]


def _float32(undo: Undo) -> None:
    was = torch.get_default_dtype()
    if was != torch.float32:
        undo.append(lambda: torch.set_default_dtype(was))
        torch.set_default_dtype(torch.float32)


def _as_written(undo: Undo) -> None:
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and importing it takes seconds
        stance = torch.compiler.set_stance("force_eager")
        undo.append(lambda: stance.__exit__(None, None, None))


def _without_checkpointing(undo: Undo) -> None:
    """Both kinds of checkpointing run the function as it is, in threads that are inside."""
    apply = checkpoint.CheckpointFunction.apply

    def applied(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args) if _is_inside() else apply(function, preserve, *args)

    undo.append(lambda: delattr(checkpoint.CheckpointFunction, "apply"))  # it is inherited
    checkpoint.CheckpointFunction.apply = staticmethod(applied)
    names = ("_checkpoint_without_reentrant_generator_impl", "_checkpoint_without_reentrant_generator")
    for name in names:  # torch 2.14, and those before it
        generator = getattr(checkpoint, name, None)
        if generator is not None:
            undo.append(lambda name=name, was=generator: setattr(checkpoint, name, was))  # type: ignore[misc]
            setattr(checkpoint, name, _unless_inside(generator))


def _contiguous_norms(undo: Undo) -> None:
    """One picture goes through batch and instance norm in the usual order of memory, and so does its gradient.

    PyTorch (2.14.1, on the CPU) takes the values of a single picture in another order for those in the usual one, as
    after ``flatten(2).transpose(1, 2)`` of a layer's maps, or before it of tokens that become maps again, and the
    gradient that comes out is wrong: that of LeViT, EfficientFormer and XCiT among others.  Maps whose channels lie
    last stay so in batch norm with fixed statistics, which is right where their gradient lies in the same way.
    """
    for name, fixed in (("batch_norm", _is_fixed), ("instance_norm", _is_never)):
        norm = getattr(nn.functional, name)
        undo.append(lambda name=name, was=norm: setattr(nn.functional, name, was))  # type: ignore[misc]
        setattr(nn.functional, name, _ordered(norm, fixed))


def _is_fixed(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    *_others: Any,
    **_more: Any,
) -> bool:
    """Whether a call of batch norm, but for its input, is one with fixed statistics."""
    return not training and running_mean is not None and running_var is not None


def _is_never(*_args: Any, **_kwargs: Any) -> bool:
    return False


def _convolutions_of_a_pixel(undo: Undo) -> None:
    conv2d = nn.functional.conv2d
    through_onednn = widened(conv2d)

    def convolution(*args: Any, **kwargs: Any) -> Tensor:
        return (through_onednn if _is_inside() else conv2d)(*args, **kwargs)

    undo.append(lambda: setattr(nn.functional, "conv2d", conv2d))
    nn.functional.conv2d = convolution


def _scaled_batch_norm(undo: Undo) -> None:
    norm = nn.functional.batch_norm
    scaled = scaled_back(norm)

    def batch_norm(*args: Any, **kwargs: Any) -> Tensor:
        return (scaled if _is_inside() else norm)(*args, **kwargs)

    undo.append(lambda: setattr(nn.functional, "batch_norm", norm))
    nn.functional.batch_norm = batch_norm


def _ordered(norm: Callable[..., Tensor], fixed: Callable[..., bool]) -> Callable[..., Tensor]:
    def ordered(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not _is_inside() or input.shape[0] != 1:  # len(input) is slow where a run is seen
            return norm(input, *args, **kwargs)
        form = torch.channels_last if fixed(*args, **kwargs) and lies_last(input) else torch.contiguous_format
        out = norm(input.contiguous(memory_format=form), *args, **kwargs)
        if out.requires_grad:
            out.register_hook(lambda g: g.contiguous(memory_format=form))  # type: ignore[no-untyped-call]
        return out

    return ordered


def _unless_inside(generator: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
    def around(*args: Any, **kwargs: Any) -> Iterator[None]:
        if _is_inside():
            yield
        else:
            yield from generator(*args, **kwargs)

    return around


def _is_inside() -> bool:
    return getattr(this_thread, "depth", 0) > 0
