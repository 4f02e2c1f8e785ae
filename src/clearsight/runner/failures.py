"""Attribute the failure of a method to the user's own method, to the network, or to clearsight."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from clearsight.core.catalogue import Call
from clearsight.core.model import Model
from clearsight.errors import NoGradient, Refused
from clearsight.internals.layers import gradients
from clearsight.models.dry_run import reason


@contextmanager
def explain_failure(model: Model, call: Call, x: Tensor) -> Iterator[None]:
    """Turn errors inside into Refused where they come from a method's own file or from the network.

    x (B, C, *S): where a method fails, the network's backward pass is tried on it.  Other errors are clearsight's and
    are raised.
    """
    attacks = "eps" in call.method.injected
    instead = "attack without gradients, by square or hop-skip-jump"
    if not attacks:
        instead = "use a perturbation method such as occlusion"
    try:
        yield
    except NoGradient as e:
        if attacks:  # the advice about layers and maps does not apply to attacks
            raise NoGradient(e.what, e.cause, f"let the gradient flow, or {instead}") from e
        raise
    except Refused:
        raise
    except Exception as e:
        file, dotted, _ = call.method.name.rpartition(".py:")
        if dotted:
            frames = traceback.extract_tb(e.__traceback__)
            in_method = [f for f in frames if Path(f.filename).name == Path(file).name + ".py"]
            where = f" ({Path(in_method[-1].filename).name}, line {in_method[-1].lineno})" if in_method else ""
            raise Refused(f"{call.method.name} failed: {type(e).__name__}: {e}{where}") from e
        if isinstance(e, CheckpointError):
            raise Refused(
                "the network recomputes values in its backward pass (checkpointing), which the method cannot follow: "
                f"switch it off (in timm net.set_grad_checkpointing(False)); {reason(e)}"
            ) from e
        _try_alone(model, x[:2], instead)
        raise


def _try_alone(model: Model, x: Tensor, instead: str) -> None:
    z = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            gradients(model(z).sum(1), z)
    except Refused:
        raise
    except Exception as e:
        raise Refused(
            f"the backward pass of {model.source or 'the network'} fails: {reason(e)}; change forward so that "
            f"out.sum().backward() works, or {instead}"
        ) from e
