"""Taking from a network what it has learnt, layer by layer (Adebayo et al. 2018, arXiv:1810.03292)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from clearsight.classifier import Classifier
from clearsight.probe import probed


def reinitialise(layer: nn.Module) -> None:
    """Fresh values for a layer's own parameters and running statistics, from the global generator."""
    reset = getattr(layer, "reset_parameters", None)
    if callable(reset):
        with torch.no_grad():
            reset()
        return
    for p in layer.parameters(recurse=False):
        with torch.no_grad():
            p.normal_(0, float(p.float().square().mean().sqrt()))


def from_output_to_input(model: Classifier, x: Tensor) -> list[str]:
    """The modules that hold parameters themselves, the last one to finish first; those never run stand at the end."""
    with model.undisturbed():
        finished = {seen.name: k for k, seen in enumerate(probed(model, x.to(model.device)).seen)}
    own = [name for name, m in model.net.named_modules() if _learns(m)]
    return sorted(own, key=lambda name: -finished.get(name, -1))


def fresh(seed: int, stage: int) -> int:
    """A seed with which nobody's training began: manual_seed(0) and a reset would give back its first weights."""
    return int.from_bytes(hashlib.sha256(f"sanity {seed} {stage}".encode()).digest()[:7], "big")


def _learns(m: nn.Module) -> bool:
    """Does the module itself hold parameters, or statistics that it gathered?"""
    return any(True for _ in m.parameters(recurse=False)) or getattr(m, "running_mean", None) is not None


def cuts(layers: int, stages: int) -> list[int]:
    """How many layers are random after each stage: the output layer alone, then equal portions.

    >>> cuts(9, 5)
    [1, 3, 5, 7, 9]
    """
    if stages == 1:
        return [layers]
    return [round(1 + (layers - 1) * k / (stages - 1)) for k in range(stages)]
