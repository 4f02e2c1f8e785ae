"""Whose defect it is when a method fails: the user's own method, the network's own way back, or ours."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from clearsight.core.catalogue import Call
from clearsight.core.classifier import Classifier
from clearsight.errors import NoGradient, Refused
from clearsight.internals.layers import gradients
from clearsight.models.dry_run import reason


@contextmanager
def explain_failure(model: Classifier, call: Call, x: Tensor) -> Iterator[None]:
    """Errors inside are refused, in words, where they come from a method's own file or from the network.

    x (B, C, *S): where a method fails, the network is tried alone on it.  Others are defects of ours and go on.
    """
    attacks = "eps" in call.method.injected
    instead = "attack without gradients, by square or hop-skip-jump"
    if not attacks:
        instead = "use a perturbation method such as occlusion"
    try:
        yield
    except NoGradient as e:
        if attacks:  # layers and maps, of which the advice is, are no matter of an attack's
            raise NoGradient(e.what, e.cause, f"let it flow, or {instead}") from e
        raise
    except Refused:
        raise
    except Exception as e:
        file, dotted, _ = call.method.name.rpartition(".py:")
        if dotted:
            own = [f for f in traceback.extract_tb(e.__traceback__) if Path(f.filename).name == Path(file).name + ".py"]
            where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
            raise Refused(f"{call.method.name} failed: {type(e).__name__}: {e}{where}") from e
        if isinstance(e, CheckpointError):
            raise Refused(
                "the network works values out again on its way back (checkpointing), which the method cannot follow: "
                f"switch that off (in timm net.set_grad_checkpointing(False)); {reason(e)}"
            ) from e
        _try_alone(model, x[:2], instead)
        raise


def _try_alone(model: Classifier, x: Tensor, instead: str) -> None:
    z = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            gradients(model(z).sum(1), z)
    except Refused:
        raise
    except Exception as e:
        raise Refused(
            f"the backward pass of {model.source or 'the network'} fails: {reason(e)}; mend forward so that "
            f"out.sum().backward() works, or {instead}"
        ) from e
