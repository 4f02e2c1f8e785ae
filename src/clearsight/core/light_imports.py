"""Import torchvision and timm without torch's compiler, which would take a third of the time.

torchvision 0.29 and timm 1.0 import torch._dynamo for two things: the name of a function that says whether a device can
be compiled for, and the mark of functions that are not to be compiled.  Both are given in its place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_UTILS = "torch._dynamo.utils"


class _Utils(ModuleType):
    """torch._dynamo.utils until something else than is_compile_supported is asked of it."""

    def is_compile_supported(self, device: Any) -> Any:
        return importlib.import_module(_UTILS).is_compile_supported(device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _take_back()
        return getattr(importlib.import_module(_UTILS), name)


def _disable(fn: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    """torch.compiler.disable for a function: the mark by which the compiler knows it."""
    fn._torchdynamo_disable = True  # type: ignore[attr-defined]
    return fn


def _take_back() -> None:
    if isinstance(sys.modules.get(_UTILS), _Utils):
        del sys.modules[_UTILS]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, torchvision and timm are imported without torch._dynamo; nothing is changed where that is there."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    disable, torch.compiler.disable = torch.compiler.disable, _disable  # type: ignore[assignment]
    sys.modules[_UTILS] = _Utils(_UTILS)
    try:
        yield
    finally:
        _take_back()
        torch.compiler.disable = disable
