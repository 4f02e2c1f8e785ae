"""What goes wrong inside a network's forward, and what mends it; and the types that are too coarse for gradients."""

from __future__ import annotations

import inspect

import torch
from torch import fx, nn

from clearsight.core.contents import settled_contents
from clearsight.core.module_names import modules_of
from clearsight.core.settled import while_settled

COARSE = (torch.float16, torch.bfloat16)


def coarse_type(net: nn.Module) -> torch.dtype | None:
    """The type of the first parameter that is float16 or bfloat16; None where all are finer."""
    return while_settled(net, "coarse", lambda: _coarse_type(net))


def _coarse_type(net: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in settled_contents(net).parameters if p.dtype in COARSE), None)


def first_type(net: nn.Module) -> torch.dtype:
    """The type of the first parameter that is a floating-point number; float32 where none is."""
    return while_settled(net, "type", lambda: _first_type(net))


def _first_type(net: nn.Module) -> torch.dtype:
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)


def too_coarse(dtype: torch.dtype, what: str) -> tuple[str, str]:
    """The refusal of what needs finer numbers: what is wrong, and what to do about it.

    Measured on the demo network against itself in float32: in float16 saliency maps are off by up to 0.28 of their
    highest value, and those of Grad-CAM, whose gradients stop at a layer, by 0.004 (in bfloat16 by 0.019).
    """
    return (
        f"the network computes in {dtype}, in which {what} are too coarse to be right",
        "wrap net.float(), or use a method that only asks for scores, such as occlusion or rise (of attacks square or "
        "hop-skip-jump)",
    )


def scripts(net: nn.Module) -> list[str]:
    """The names of the outermost parts that torch.jit made, "" for the network itself."""
    return while_settled(net, "scripts", lambda: _scripts(net))


def _scripts(net: nn.Module) -> list[str]:
    found: list[str] = []
    if not _has(net, torch.jit.ScriptModule):
        return found
    for name, m in modules_of(net):
        if isinstance(m, torch.jit.ScriptModule) and not any(f == "" or name.startswith(f"{f}.") for f in found):
            found.append(name)
    return found


def _has(net: nn.Module, kind: type[nn.Module]) -> bool:
    return any(issubclass(t, kind) for t in settled_contents(net).types)


def in_script(net: nn.Module, layer: str = "") -> tuple[str, str] | None:
    """Why a layer cannot be read, or the network not be taken apart (layer ""): torch.jit made it; None where it can.

    What is wrong, and what to do about it.
    """
    made = [f for f in scripts(net) if not layer or not f or f == layer or layer.startswith(f"{f}.")]
    if not made:
        return None
    part = f"its part {made[0]}" if made[0] else "the network"
    return (
        f"{part} is TorchScript, whose layers cannot be read or taken apart",
        "wrap the nn.Module that it was made from, or use a gradient at the pixels or a perturbation method",
    )


def unseen(net: nn.Module) -> tuple[str, str] | None:
    """Why it cannot be seen which of a network's layers is the last with feature maps, and what to do; None: it can."""
    if not _has(net, torch.jit.ScriptModule) and not _has(net, fx.GraphModule):
        return None
    by_name = dict(modules_of(net))
    for part in scripts(net):
        if any("conv" in str(getattr(m, "original_name", "")).lower() for m in by_name[part].modules()):
            return in_script(net, part)
    for m in by_name.values():
        if isinstance(m, fx.GraphModule) and any(
            "conv" in str(n.target) for n in m.graph.nodes if n.op != "call_module"
        ):
            return (
                "torch.export or torch.fx recorded the network as single operations, among which no layers are left",
                "wrap the nn.Module that it was made from, or use a gradient or perturbation method",
            )
    return None


def mended(e: Exception, net: nn.Module) -> str:
    """What to do about an error from inside a network's forward; "" where its kind is not known."""
    message = str(e)
    if isinstance(e, TypeError) and ("required positional argument" in message or "missing a required" in message):
        return (
            f"its forward takes {_arguments_of_forward(net)}, but gets one tensor of pictures: wrap it in a module "
            "whose forward(x) passes it the other arguments"
        )
    if "call numpy() on Tensor that requires grad" in message:
        return (
            "its forward goes through NumPy, where no gradient flows: write that part in torch, or, where forward says "
            "x.detach().numpy(), use a method that only asks for scores, such as occlusion"
        )
    if "Inference tensors cannot be saved for backward" in message:
        return "part of its forward runs under torch.inference_mode(), where no gradient flows: leave that out"
    if "Guard failed" in message and "size()[0]" in message:
        return (
            "torch.export recorded it for that one number of pictures: export it with a batch of any size, "
            "dynamic_shapes=({0: torch.export.Dim('batch', min=1)},)"
        )
    types = sorted({str(p.dtype).removeprefix("torch.") for p in net.parameters() if p.is_floating_point()})
    if len(types) > 1 and ("dtype" in message or "type" in message):
        return f"its parameters are {' and '.join(types)}, and what one part gives does not fit the next: net.float()"
    if "on the same device" in message or "Expected all tensors to be on" in message:
        return "its parts lie on several devices: net.to('cpu'), or to one other"
    return ""


def _arguments_of_forward(net: nn.Module) -> str:
    try:
        return f"({', '.join(inspect.signature(net.forward).parameters)})"
    except (TypeError, ValueError):
        return "several arguments"
