"""Import torchvision and timm without torch's compiler and the client of a model hub, half of the time they would take.

torchvision 0.29 and timm 1.0 import torch._dynamo for two things: the name of a function that says whether a device can
be compiled for, and the mark of functions that are not to be compiled.  Both are given in its place.  timm imports
huggingface_hub for three functions that fetch weights, and for two errors that these raise: it is imported when one of
them is called.
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
_HUB, _HUB_UTILS = "huggingface_hub", "huggingface_hub.utils"
_FETCHING = ("HfApi", "hf_hub_download", "model_info")
_ERRORS = ("EntryNotFoundError", "RepositoryNotFoundError")


class _Utils(ModuleType):
    """torch._dynamo.utils until something else than is_compile_supported is asked of it."""

    def is_compile_supported(self, device: Any) -> Any:
        return importlib.import_module(_UTILS).is_compile_supported(device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _take_back()
        return getattr(importlib.import_module(_UTILS), name)


class _Hub(ModuleType):
    """huggingface_hub, or its utils, until something else than timm takes from them is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == _HUB and name in _FETCHING:
            return _fetching(name)
        if self.__name__ == _HUB_UTILS and name in _ERRORS:
            return type(name, (Exception,), {})  # nobody raises it
        _take_back()
        return getattr(importlib.import_module(self.__name__), name)


def _fetching(name: str) -> Callable[..., Any]:
    """A function of huggingface_hub that is imported when it is called, and then gives timm the errors it raises."""

    def fetch(*args: Any, **options: Any) -> Any:
        hub, errors = importlib.import_module(_HUB), importlib.import_module(_HUB_UTILS)
        for error in _ERRORS:
            setattr(sys.modules["timm.models._hub"], error, getattr(errors, error))
        return getattr(hub, name)(*args, **options)

    return fetch


def _disable(fn: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    """torch.compiler.disable for a function: the mark by which the compiler knows it."""
    fn._torchdynamo_disable = True  # type: ignore[attr-defined]
    return fn


def _take_back() -> None:
    for name in (_UTILS, _HUB, _HUB_UTILS):
        if isinstance(sys.modules.get(name), _Utils | _Hub):
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Inside, torchvision and timm are imported without torch._dynamo and huggingface_hub, unless these are there."""
    if _HUB not in sys.modules and "timm" not in sys.modules:
        sys.modules |= {name: _Hub(name) for name in (_HUB, _HUB_UTILS)}
    light = "torch._dynamo" not in sys.modules
    disable = torch.compiler.disable
    if light:
        torch.compiler.disable = _disable  # type: ignore[assignment]
        sys.modules[_UTILS] = _Utils(_UTILS)
    try:
        yield
    finally:
        _take_back()
        if light:
            torch.compiler.disable = disable
