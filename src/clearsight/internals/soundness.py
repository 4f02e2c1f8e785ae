"""Refusals and Notices for networks whose scores do not repeat or whose gradients are not those of the scores.

Explainers are refused, because their maps would be wrong.  Attacks go on with a Notice.
"""

from __future__ import annotations

import warnings

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from clearsight.core.model import Model
from clearsight.errors import Notice, Refused
from clearsight.internals.finite_differences import Slopes
from clearsight.internals.layers import layer_slopes
from clearsight.internals.probe import Probe, probed

Trouble = tuple[str, str]  # what is wrong, and what to do about it


def of_scores(model: Model, probe: Probe) -> Trouble | None:
    """Why the scores of one picture differ between passes; None if they do not."""
    if probe.repeats == "never":
        return (
            f"two passes over the same pictures give scores that differ by up to {probe.apart:.2g}, in eval mode",
            "remove randomness from forward in eval mode: F.dropout(x, training=self.training), no torch.rand",
        )
    if probe.repeats == "by neighbours":
        what = f"a picture's scores depend on its neighbours in the batch, by {probe.apart:.2g}"
        return what, _advice_on_batch(model)
    return None


def _advice_on_batch(model: Model) -> str:
    """What to do about a network that looks at the whole batch."""
    for name, m in model.net.named_modules():
        if isinstance(m, _BatchNorm) and m.running_mean is None:
            return f"{name} normalises by the batch: use BatchNorm with track_running_stats=True, or GroupNorm"
        if ".quantized." in f"{type(m).__module__}.":
            return f"{name} is quantised by the range of the whole batch: give the network unquantised, in float32"
    return "let forward treat each picture alone, without statistics over the batch in eval mode"


def of_gradient(slopes: Slopes, where: str = "the pixels") -> Trouble | None:
    """Why a gradient is not that of the scores; None if it is or cannot be compared."""
    if slopes.flows != "wrong":
        return None
    return (
        f"the gradient at {where} is not that of the scores: finite differences along random directions differ "
        f"from it by {100 * slopes.off:.0f} % of the larger",
        "part of forward runs under torch.no_grad(), behind detach() or through NumPy, or a custom backward gives "
        "another gradient: make the whole forward differentiable, or use a perturbation method such as occlusion",
    )


def must_repeat(model: Model, x: Tensor) -> None:
    """Refuse a network that gives a picture like x (B, C, *S) other scores the next time, or among other pictures."""
    _refuse(model, of_scores(model, probed(model, x)))


def must_flow(model: Model, x: Tensor, layer: str = "") -> None:
    """Refuse a network whose gradient, at a layer or at the pixels of pictures like x (B, C, *S), is not its scores'.

    What runs behind a layer may be whole where what runs before it is not.
    """
    slopes = probed(model, x).slopes
    if slopes.flows == "right" or (slopes.flows != "wrong" and not layer):
        return
    if layer:
        _refuse(model, of_gradient(layer_slopes(model, x, layer), f"layer {layer}"))
    else:
        _refuse(model, of_gradient(slopes))


def alone(model: Model, x: Tensor) -> bool:
    """Whether each picture must be run alone, from the same seed, for the same seed to give the same result.

    A Notice says so.  Refused where the scores of a picture depend on those beside it.
    """
    probe = probed(model, x)
    trouble = of_scores(model, probe)
    if trouble is None:
        return False
    if probe.repeats != "never":
        _refuse(model, trouble)
    warnings.warn(f"{trouble[0]}: each picture is run alone, from the same seed; {trouble[1]}", Notice, stacklevel=3)
    return True


def caution(model: Model, x: Tensor) -> None:
    """Give a Notice for a gradient-based attack on a network whose gradient at the pixels is not that of its scores."""
    trouble = of_gradient(probed(model, x).slopes)
    if trouble is not None:
        what = f"{trouble[0]}, so a gradient-based attack that fails proves little"
        warnings.warn(f"{what}; attack without gradients too, with square or hop-skip-jump", Notice, stacklevel=3)


def _refuse(model: Model, trouble: Trouble | None) -> None:
    if trouble is not None:
        raise Refused(f"{model.source or 'the network'} cannot be explained or attacked: {'; '.join(trouble)}")
