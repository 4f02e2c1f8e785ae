"""Which activations a network has, and how they are called: by a symbolic trace, or else by what one run shows."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

from torch import Tensor, fx, nn

from clearsight.classifier import Classifier
from clearsight.layers import walk

_RELUS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)
_WORDS = frozenset({"relu", "relu_", "relu6", "leaky_relu", "leaky_relu_"})
_LATER = "methods that change each ReLU's backward pass, such as guided backprop or LRP,"


def activation_notes(model: Classifier, x: Tensor) -> list[str]:
    """What is unusual about the ReLUs, and for whom it matters.  All of it works with today's methods."""
    net = model.net
    in_place = [n for n, m in net.named_modules() if getattr(m, "inplace", False) is True]
    runs, functional, untraced = _traced(net)
    if untraced:
        runs = _counted(model, x)
    relus = {n for n, m in net.named_modules(remove_duplicate=False) if isinstance(m, _RELUS)}
    reused = sorted(n for n in relus if runs[n] > 1)
    notes = []
    if in_place:
        notes.append(
            f"{_some(in_place)} work{'s' if len(in_place) == 1 else ''} in place: fine, layers are read as copies"
        )
    if reused:
        notes.append(f"{_some(reused)} run more than once in a pass: fine, but {_LATER} must tell the runs apart")
    if functional:
        notes.append(f"{functional} ReLUs are functional (F.relu): fine, but not seen by {_LATER.rstrip(',')}")
    if untraced and not notes:
        notes.append(f"forward cannot be traced ({untraced}): whether it calls F.relu is not known")
    return notes


def _traced(net: nn.Module) -> tuple[Counter[str], int, str]:
    """Runs of every module, and functional ReLUs; and why forward cannot be traced, or nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = list(fx.Tracer().trace(net).nodes)
    except Exception as e:  # whatever forward does with a stand-in for a tensor
        return Counter(), 0, type(e).__name__
    runs = Counter(str(n.target) for n in nodes if n.op == "call_module")
    calls = [_word(n.target) for n in nodes if n.op in ("call_function", "call_method")]
    return runs, sum(w in _WORDS for w in calls), ""


def _word(target: str | Callable[..., object]) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", "")


def _counted(model: Classifier, x: Tensor) -> Counter[str]:
    try:
        return Counter(s.name for s in walk(model, x[:1]))
    except Exception:  # a model that does not run was named already
        return Counter()


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} modules ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
