"""What every kind of model is: a network with its preprocessing and its labels, and the guard around it."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from clearsight.core import first_pass, memory_order, passes
from clearsight.core.fingerprint import known_hash
from clearsight.core.forwards import COARSE, coarse_type, first_type, mended, too_coarse
from clearsight.core.guard import guarded
from clearsight.core.label_names import finder, first_name, is_number, label_numbers, names, plain, position
from clearsight.core.outputs import pick
from clearsight.core.preprocess import Preprocess, normalised
from clearsight.core.remembered import once
from clearsight.core.stand_ins import outputs_instead
from clearsight.errors import Notice, Refused, TooCoarse, nearest


@dataclass(frozen=True, eq=False)
class Model(ABC):
    """A network, its preprocessing and its labels: what `Classifier`, `Detector` and `Segmenter` have in common.

    Called with pixels (B, C, *S) in [0, 1] it returns outputs (B, ...), a tensor.  What they mean is known to targets,
    goals, metrics and checks alone, so explainers and attacks that take a Model work on every kind.

    Args:
        net: the network, from normalised pictures (B, C, *S) to outputs.
        preprocess: how a picture file becomes what the network takes.
        labels: names of the classes, in the order of the outputs.
        source: words that load it again ("demo", "timm:resnet18", a folder).
        output: which part of a tuple or dict that the network returns holds the outputs: its number or name, or a path
            of them, "out.logits" (see outputs.py).
        channels_last: always pass pictures in that memory order, in which convolutions are faster; not for networks
            that call .view() on feature maps.  Explainers and attacks do so where a network gives the same.
    """

    net: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...]
    source: str = ""
    output: str | int | None = None
    channels_last: bool = field(default=False, kw_only=True)

    kind: ClassVar[str] = "model"

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (B, ...) of pixels x (B, C, *S) in [0, 1]; differentiable in x."""
        out = self.from_normalised(self.normalised(x))
        first_pass.note(self.net, x, out)
        return out

    def normalised(self, x: Tensor) -> Tensor:
        """What the network is given for pixels x (B, C, *S) in [0, 1]: the mean taken off, divided by the std."""
        return normalised(self.preprocess, x)

    def from_normalised(self, z: Tensor) -> Tensor:
        """Outputs (B, ...) of normalised pictures z (B, C, *S), in their type."""
        instead = outputs_instead(self.net, z)
        if instead is not None:
            return instead
        out = pick(self.returned(z), self.output)
        passes.note_of(self.net, out, len(z) if isinstance(self.net, torch.jit.ScriptModule) else 0)
        if out.is_complex():
            raise Refused(f"the network's scores are {out.dtype}", "let forward return real numbers, such as out.abs()")
        if out.is_inference():  # made under torch.inference_mode() inside forward: only a copy can be written to
            out = out.clone()
        given, out = out.dtype, out.to(z)
        if out.requires_grad:
            self._fine_enough(z, out, given)
        return self.read(z, out)

    @abstractmethod
    def read(self, z: Tensor, out: Tensor) -> Tensor:
        """The outputs in the form that this kind of model gives them, of what the network returned for z (B, C, *S).

        Refused: another shape than this kind has.
        """

    @property
    def reading(self) -> Hashable:
        """All that decides, besides the network and its preprocessing, what the outputs are."""
        return self.kind, self.output

    def returned(self, z: Tensor) -> Any:
        """Whatever the network itself returns for normalised pictures z (B, C, *S), which it gets in its own type."""
        if (self.channels_last and z.dim() == 4) or memory_order.is_laid_last(self.net, z):
            z = memory_order.last(z)
        try:
            out = self.net(z.to(self.dtype))
        except (Refused, torch.OutOfMemoryError):
            raise
        except Exception as e:
            message = str(e).strip().partition("\n")[0]
            fix = mended(e, self.net) or "clearsight inspect MODEL says what it takes"
            raise Refused(
                f"the network failed on an input of shape {tuple(z.shape)}", f"{type(e).__name__}: {message}; {fix}"
            ) from e
        return out

    def _fine_enough(self, z: Tensor, out: Tensor, given: torch.dtype) -> None:
        """Refuse, once they come, gradients too coarse to be right: z went in, out came of it, of the type given.

        At the pixels in float16 and bfloat16; at a layer where float16 cannot hold the slope that the target has.
        """
        coarse = given if given in COARSE else coarse_type(self.net)
        if coarse is None:
            return

        def refuse(_gradient: Tensor) -> None:
            raise TooCoarse(*too_coarse(coarse, "gradients at the pixels"))

        def refuse_small(gradient: Tensor) -> None:
            steepest = gradient.abs().amax(tuple(range(1, gradient.dim())))
            if bool(((steepest > 0) & (steepest < torch.finfo(torch.float16).tiny)).any()):
                raise TooCoarse(*too_coarse(torch.float16, "slopes as small as this target's"))

        if z.requires_grad:
            z.register_hook(refuse)  # type: ignore[no-untyped-call]
        if coarse == torch.float16:
            out.register_hook(refuse_small)  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in: that of its first floating-point parameter."""
        return first_type(self.net)

    def fingerprint(self) -> str:
        """16 hex digits of a hash over the names and values of all weights and buffers."""
        return once(self.net, "fingerprint", lambda: known_hash(self.net))

    def index(self, label: str | int) -> int:
        """The number of a class given by label, by one of a label's comma-separated names, or by number.

        A label goes before a number, and where labels are numbers ("1" to "10") a number is a label and nothing else: a
        Notice says so where the class of that number would be another.
        """
        text = str(label).strip()
        matches = finder(self.labels)(str(label))
        number = position(text, len(self.labels))
        if len(matches) == 1:
            if number is not None and number != matches[0]:
                warnings.warn(
                    f"class {text} is the one labelled {text}, number {matches[0]} of the model counted from 0, and "
                    f"not its number {text}, {self.labels[number]!r}: labels go before numbers",
                    Notice,
                    stacklevel=2,
                )
            return matches[0]
        if matches:
            raise Refused(f"class {text!r} names several classes: give the number, {' or '.join(map(str, matches))}")
        if is_number(text) and (numbers := label_numbers(self.labels)):
            raise Refused(
                f"the model has no class {text!r}: its labels have numbers of their own, "
                f"{', '.join(self.labels[i] for i in list(numbers.values())[:12])}: give one of the labels"
            )
        if number is not None:
            return number
        if is_number(text):
            raise Refused(f"class {shorten(text, 40)}: this model has classes 0 to {len(self.labels) - 1}")
        raise Refused(f"the model has no class {text!r}: {nearest(plain(text), names(self.labels))}")

    def name(self, k: int) -> str:
        """What class k is called in a sentence or a table: the first of its label's comma-separated names."""
        return first_name(self.labels[k])

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Eval mode and frozen parameters inside; on leaving, also by an exception, everything as it was.

        Modes, requires_grad, .grad, buffers, hooks and replaced parameters and modules are put back, each whatever
        becomes of the others (see guard.py).  Parameters changed in place and, where nothing else went wrong, forgotten
        hooks are an error, because then the method inside is wrong.  One thread at a time works on a network; the
        others wait.  Inside, autocast is off, new tensors are float32, compiled parts run as they were before, and
        nothing is checkpointed (see surroundings.py).

        Refused: networks that are frozen by torch.jit, recorded in training mode, or not initialised.
        """
        with guarded(self.net):
            yield
