"""Whose defect it is when a method fails: the user's own method, the network's own way back, or ours."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from clearsight.classifier import Classifier
from clearsight.errors import Refused
from clearsight.methods import Call


@contextmanager
def blamed(model: Classifier, call: Call, x: Tensor) -> Iterator[None]:
    """Errors inside are refused, in words, where they come from a method's own file or from the network.

    x (B, C, *S): where a method fails, the network is tried alone on it.  Others are defects of ours and go on.
    """
    try:
        yield
    except Refused:
        raise
    except Exception as e:
        file, dotted, _ = call.method.name.rpartition(".py:")
        if dotted:
            own = [f for f in traceback.extract_tb(e.__traceback__) if Path(f.filename).name == Path(file).name + ".py"]
            where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
            raise Refused(f"{call.method.name} failed: {type(e).__name__}: {e}{where}") from e
        _try_alone(model, x[:2])
        raise


def _try_alone(model: Classifier, x: Tensor) -> None:
    from clearsight.dryrun import reason

    z = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            torch.autograd.grad(model(z).sum(), z)
    except Exception as e:
        raise Refused(
            f"the backward pass of {model.source or 'the network'} fails: {reason(e)}; mend forward so that "
            "out.sum().backward() works, or use a perturbation method such as occlusion"
        ) from e
