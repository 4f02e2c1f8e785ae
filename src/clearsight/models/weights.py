"""Read weights from a file and copy them into a network, without running code from a pickle."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from clearsight.errors import Refused

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state dict that torch.save wrote, by name, on the CPU.

    A state dict inside {"state_dict": ...} or {"model": ...} is taken out, and the "module." that DataParallel puts
    before every name is taken off.  Refused: no such file, a broken file, and a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise Refused(f"there is no weights file {path}")
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as e:
            raise Refused(f"{path} cannot be read as safetensors: {_first_line(e)}") from e
    loaded = _unpickle(path)
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not any(isinstance(v, Tensor) for v in loaded.values()):
        raise Refused(f"{path} holds a {type(loaded).__name__}, not a state dict: torch.save(net.state_dict(), ...)")
    state = {str(k): v for k, v in loaded.items() if isinstance(v, Tensor)}
    for prefix in _PREFIXES:
        if all(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state


def _unpickle(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of a TorchScript archive before it refuses it
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        more = isinstance(e, pickle.UnpicklingError) and "global" in str(e).lower()
        if more or "torchscript" in str(e).lower():
            raise Refused(
                f"{path} holds more than weights (a whole network or other objects), and unpickling those runs code: "
                "export it as safetensors where it comes from, safetensors.torch.save_file(net.state_dict(), "
                "'model.safetensors')"
            ) from e
        raise Refused(f"{path} is not a weights file, or is damaged ({type(e).__name__}: {_first_line(e)})") from e


def put_weights(net: nn.Module, state: Mapping[str, Tensor], source: str, classes: int, *, background: int = 0) -> None:
    """Copy every tensor of ``state`` into the network, in place; refused unless names and shapes agree one by one.

    Names of before are taken where the network itself, by its hooks on loading, knows what they are called now.
    Refused too: numbers that are not finite, and whole numbers where the network has others.

    source: where the weights come from, for the message; classes: how many labels the network was built for;
    background: how many more classes it counts.
    """
    wanted = net.state_dict()
    if state.keys() != wanted.keys():
        state = _named_anew(net, state)
    shapes = {k: tuple(v.shape) for k, v in wanted.items() if isinstance(v, Tensor)}
    counters = {k for k in shapes if k.endswith("num_batches_tracked")}  # checkpoints of before 2018 have none
    differ = {k: tuple(state[k].shape) for k in shapes.keys() & state.keys() if tuple(state[k].shape) != shapes[k]}
    if held := _classes_held(differ, shapes, classes, background):
        besides = " besides the background" if background else ""
        raise Refused(
            f"{source} holds weights for {held} classes{besides}, but there are {classes} labels: give the {held} "
            "names that it was trained with, labels=[...] (--labels FILE)"
        )
    wrong = {
        "lacks": sorted(shapes.keys() - state.keys() - counters),
        "has besides": sorted(state.keys() - wanted.keys()),
        "has in another shape": sorted(f"{k} {s} instead of {shapes[k]}" for k, s in differ.items()),
    }
    if any(wrong.values()):
        differences = "; ".join(f"{what} {_few(names)}" for what, names in wrong.items() if names)
        raise Refused(f"{source} does not fit the network: it {differences}; check that the architecture is the same")
    _check_values(wanted, state, source)
    net.load_state_dict(dict(state), strict=False)


def _classes_held(
    differ: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], classes: int, background: int
) -> int:
    """How many classes weights are for that differ in that number alone; 0 where they differ in something else.

    A head with a background gives some numbers for every class: for each anchor, or for each side of its box.
    """
    if not background:
        of_head = [k for k, s in differ.items() if s[1:] == shapes[k][1:] and shapes[k][:1] == (classes,)]
        return differ[of_head[0]][0] if of_head else 0
    counts = set()
    for k, shape in differ.items():
        numbers, left = divmod(shapes[k][0], classes + background)
        if left or not numbers or shape[0] % numbers or shape[1:] != shapes[k][1:]:
            return 0
        counts.add(shape[0] // numbers - background)
    return counts.pop() if len(counts) == 1 else 0


def _named_anew(net: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights under the names that they have now, where the network's hooks on loading know the older ones.

    They run on a copy of the network that holds no numbers.  What they drop is left out.
    """
    try:
        memo: dict[int, Any] = {
            id(t): nn.Parameter(t.to("meta"), t.requires_grad) if isinstance(t, nn.Parameter) else t.to("meta")
            for t in (*net.parameters(), *net.buffers())
        }
        twin = copy.deepcopy(net, memo)
    except Exception:  # a network of the user's that cannot be copied
        return state
    wanted = twin.state_dict()
    differ = [k for k, v in state.items() if k in wanted and wanted[k].shape != v.shape]  # which the caller says
    try:
        others = twin.load_state_dict(
            dict(state) | {k: wanted[k] for k in differ}, strict=False, assign=True
        ).unexpected_keys
    except Exception:  # an older name has another shape, or a hook of the user's fails
        return state
    placed = {k: v for k, v in twin.state_dict().items() if isinstance(v, Tensor) and not v.is_meta}
    return {k: state[k] for k in (*differ, *others)} | placed


def _check_values(wanted: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse numbers of another type than the network's, which would be converted, and those that are not finite."""
    kinds = {k: (_kind(v), _kind(wanted[k])) for k, v in state.items() if isinstance(wanted[k], Tensor)}
    kinds = {k: pair for k, pair in kinds.items() if not k.endswith("num_batches_tracked")}  # which nothing depends on
    other = sorted(f"{k} ({given} instead of {needed})" for k, (given, needed) in kinds.items() if given != needed)
    if other:
        raise Refused(f"{source} has numbers of another type than the network: {_few(other)}; it may be damaged")
    lost = [k for k in kinds if not _finite(state[k].to(wanted[k].dtype)) and _finite(wanted[k])]
    if lost:
        raise Refused(
            f"{source} holds numbers that are not finite (nan or infinite) in {_few(sorted(lost))}: its training "
            "diverged, or the file is damaged; train it again, or take an earlier checkpoint"
        )


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


def _kind(values: Tensor) -> str:
    if values.is_floating_point():
        return "floating point"
    return "complex" if values.is_complex() else "whole numbers"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [""])[0][:200]
