"""The model under audit: a network with its normalisation and its labels, and the guard around it."""

from __future__ import annotations

import hashlib
import math
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from textwrap import shorten
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from clearsight.core import first_pass, passes
from clearsight.core.forwards import COARSE, coarse_type, mended, too_coarse
from clearsight.core.guard import able, guarded
from clearsight.core.label_names import finder, first_name, is_number, label_numbers, names, position
from clearsight.core.label_names import plain as plain
from clearsight.core.outputs import pick
from clearsight.core.remembered import once
from clearsight.core.score_kinds import Scores as Scores
from clearsight.core.stand_ins import logits_instead
from clearsight.core.weight_digest import Digest, weight_digest
from clearsight.errors import Notice, Refused, TooCoarse, nearest

Interpolation = Literal["nearest", "bilinear", "bicubic"]

_hashes: weakref.WeakKeyDictionary[nn.Module, tuple[Digest, str]] = weakref.WeakKeyDictionary()  # see `fingerprint`


def outputs_for(labels: Sequence[str], scores: Scores) -> int:
    """How many numbers the network itself gives for each picture."""
    return 1 if scores == "one-logit" else len(labels)


@dataclass(frozen=True)
class Preprocess:
    """How a picture file becomes pixels in [0, 1], and what is subtracted and divided inside the model.

    Args:
        size: (height, width) of the network's input in pixels; an int is a square, (L,) a sequence.
        mean: one number per channel, in units of pixels in [0, 1]; the number of them says grey (1) or RGB (3).
        std: one number per channel, above 0, in units of pixels in [0, 1].
        interpolation: how pictures are resized: "nearest", "bilinear" or "bicubic".
        resize: the shorter side is first resized to this many pixels, then the centre of size is cut out; None squeezes
            the whole picture to size, whatever its proportions.
        alphabet: for texts of size (L,), the characters that have a channel of their own; one more channel stands for
            all others, see `text_preprocess`.  "" for pictures.

    Refused: sides below 1 pixel, mean and std of different lengths or not finite, a std of 0 or less, another
    interpolation, a resize below the size, and an alphabet that does not fit the channels.
    """

    size: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    resize: int | None = None
    alphabet: str = ""

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else tuple(int(n) for n in self.size)
        object.__setattr__(self, "size", size)
        for name in ("mean", "std"):
            value = getattr(self, name)
            value = (value,) if isinstance(value, int | float) else value
            object.__setattr__(self, name, tuple(float(v) for v in value))
        if not size or min(size) < 1:
            raise Refused(f"preprocess size {size}: give at least 1 pixel for every side")
        if len(self.mean) != len(self.std) or not self.mean:
            raise Refused(f"preprocess has {len(self.mean)} means, {len(self.std)} stds: give one of each per channel")
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise Refused(f"preprocess mean {self.mean}, std {self.std}: give finite numbers")
        if min(self.std) <= 0:
            raise Refused(f"preprocess std {self.std}: give numbers above 0")
        if self.interpolation not in ("nearest", "bilinear", "bicubic"):
            raise Refused(f"interpolation {self.interpolation!r}: give nearest, bilinear or bicubic")
        if self.resize is not None and self.resize < max(size):
            raise Refused(f"preprocess resize {self.resize} is smaller than the size {size}: give at least that")
        if self.alphabet and (len(size) != 1 or len(self.alphabet) + 1 != self.channels):
            raise Refused(
                f"an alphabet of {len(self.alphabet)} characters, size {size} and {self.channels} channels do not fit",
                "a text has size (L,), a channel for each character, and one for all others",
            )
        if len(set(self.alphabet)) < len(self.alphabet):
            twice = next(c for c in self.alphabet if self.alphabet.count(c) > 1)
            raise Refused(f"the alphabet names {twice!r} twice: give each character once")

    @property
    def channels(self) -> int:
        return len(self.mean)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON files hold them; one of pictures has no alphabet."""
        return {name: value for name, value in asdict(self).items() if value or name != "alphabet"}


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network, its preprocessing and its labels.  Everything outside sees pixels in [0, 1] and logits.

    Called with pixels (B, C, *S) in [0, 1] it returns logits (B, K).  `wrap` makes one of a network of yours, `load` of
    words.

    Args:
        net: the network, from normalised pictures (B, C, *S) to scores.
        preprocess: how a picture file becomes what the network takes.
        labels: names of the K classes, in the order of the scores.
        source: words that load it again ("demo", "timm:resnet18", a folder).
        output: which part of a tuple or dict that the network returns holds the scores: its number or name, or a path
            of them, "out.logits" (see outputs.py).
        scores: what the network returns.  "logits" are taken as they are.  "probabilities" are turned into logits by
            their logarithm.  "one-logit" is one number z per picture, for the second of two labels against the first,
            which become the logits -z/2 and z/2.  "multi-label" is a logit for each label by itself.  "values" are
            numbers as they are (regression).
        channels_last: pass pictures in that memory order, in which convolutions are faster; not for networks that call
            .view() on feature maps.
    """

    net: nn.Module
    preprocess: Preprocess
    labels: tuple[str, ...]
    source: str = ""
    output: str | int | None = None
    scores: Scores = "logits"
    channels_last: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (B, K) of pixels x (B, C, *S) in [0, 1]; differentiable in x."""
        out = self.logits(self.normalised(x))
        first_pass.note(self.net, x, out)
        return out

    def normalised(self, x: Tensor) -> Tensor:
        """What the network is given for pixels x (B, C, *S) in [0, 1]: the mean taken off, divided by the std."""
        return normalised(self.preprocess, x)

    def logits(self, z: Tensor) -> Tensor:
        """Logits (B, K) of normalised pictures z (B, C, *S)."""
        instead = logits_instead(self.net, z)
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
        if out.dim() == 1 and self.scores in ("one-logit", "values"):
            out = out[:, None]
        if self.scores == "one-logit":
            if out.dim() != 2 or out.shape[1] != 1:
                raise Refused(f"the network's output has shape {tuple(out.shape)}, not one logit per picture")
            out = torch.cat([out * -0.5, out * 0.5], 1)
        if out.dim() != 2 or out.shape[0] != z.shape[0]:
            raise Refused(
                f"the network's output has shape {tuple(out.shape)}, not ({z.shape[0]}, {len(self.labels)})",
                "a classifier gives one row of scores per picture",
            )
        if out.shape[1] != len(self.labels):
            raise Refused(
                f"the network gives {out.shape[1]} scores per picture but {len(self.labels)} labels are known",
                f"give labels=[...] with {out.shape[1]} names, in the order of the scores",
            )
        return out.clamp_min(torch.finfo(out.dtype).tiny).log() if self.scores == "probabilities" else out

    def returned(self, z: Tensor) -> Any:
        """Whatever the network itself returns for normalised pictures z (B, C, *S), which it gets in its own type."""
        if self.channels_last and z.dim() == 4:
            z = z.contiguous(memory_format=torch.channels_last)
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
    def one_of_many(self) -> bool:
        """Whether a picture shows one of the classes: not where labels stand by themselves, or outputs are values."""
        return self.scores not in ("multi-label", "values")

    def chances(self, logits: Tensor) -> Tensor:
        """What the scores say of each class or label, from logits (..., K): its probability, or the value as it is."""
        if self.scores == "values":
            return logits
        return logits.softmax(-1) if self.one_of_many else logits.sigmoid()

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.net.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in: that of its first floating-point parameter."""
        return next((p.dtype for p in self.net.parameters() if p.is_floating_point()), torch.float32)

    def fingerprint(self) -> str:
        """16 hex digits of a hash over the names and values of all weights and buffers."""
        return once(self.net, "fingerprint", self._known_hash)

    def _known_hash(self) -> str:
        """The hash of these weights, worked out once for each state of them."""
        digest = weight_digest(self.net)
        known = _hashes.get(self.net)
        if known is None or known[0] != digest:
            known = _hashes[self.net] = digest, self._hash()
        return known[1]

    def _hash(self) -> str:
        h = hashlib.sha256()
        for name, value in self.net.state_dict().items():
            h.update(name.replace("_orig_mod.", "").encode())  # compiled or not, it is the same network
            if isinstance(value, Tensor):
                h.update(f"{value.dtype}{tuple(value.shape)}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                flat = flat.as_strided(flat.shape, (1,))  # a single value may be contiguous with another stride
                h.update(flat.view(torch.uint8).numpy().data)  # not copied
        return h.hexdigest()[:16]

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


def normalised(preprocess: Preprocess, x: Tensor) -> Tensor:
    """Pixels x (B, C, *S) in [0, 1], the mean taken off and divided by the std."""
    fits(preprocess, x)
    if not any(preprocess.mean) and set(preprocess.std) == {1.0}:
        return x.clone()  # a first layer may work in place
    per_channel = (-1,) + (1,) * (x.dim() - 2)
    mean, std = (x.new_tensor(v).view(per_channel) for v in (preprocess.mean, preprocess.std))
    return (x - mean).div_(std)


def fits(preprocess: Preprocess, x: Tensor) -> None:
    """Refuse pictures of another number of channels or axes than the model takes."""
    if x.dim() != 2 + len(preprocess.size) or x.shape[1] != preprocess.channels:
        wanted = ("B", preprocess.channels, *preprocess.size)
        raise Refused(f"input of shape {tuple(x.shape)}", f"give inputs of shape ({', '.join(map(str, wanted))})")


def wrap(
    net: nn.Module,
    preprocess: Preprocess,
    labels: list[str] | tuple[str, ...],
    *,
    output: str | int | None = None,
    scores: Scores = "logits",
    source: str = "",
) -> Classifier:
    """Make a Classifier of a network of yours.

    Nothing is guessed: preprocessing and labels must be given.  A network that torch.compile, nn.DataParallel or
    DistributedDataParallel has wrapped is taken as it was before: compiled code ignores hooks, and copies on other
    devices do not give theirs back.  TorchScript (torch.jit), what torch.export gives (.module()) and torch.fx graphs
    are taken; of TorchScript no layer can be read.

    Args:
        net: the network, from normalised pictures (B, C, *S) to scores (B, K).
        preprocess: how a picture file becomes what the network takes.
        labels: names of the K classes, in the order of the scores; at least two, or one for labels by themselves and
            values.
        output: which part of what the network returns holds the scores, such as 1, "logits" or "out.logits"; None if it
            returns nothing else.
        scores: what the network returns: "logits", "probabilities", "one-logit", "multi-label" or "values", see
            Classifier.
        source: words that load the model again, such as "timm:resnet18"; "" if there are none.

    Refused: what is no network, networks frozen by torch.jit.freeze or recorded in training mode, what is no
    Preprocess, other scores, and too few labels.
    """
    net = _unwrapped(net)
    if not isinstance(net, nn.Module):
        raise Refused(f"a {type(net).__name__} is not a torch.nn.Module: wrap(net, preprocess, labels) takes a network")
    able(net)
    if not isinstance(preprocess, Preprocess):
        raise Refused("preprocessing is unknown: give preprocess=Preprocess(size=224, mean=(0.5,) * 3, std=(0.5,) * 3)")
    if scores not in get_args(Scores):
        raise Refused(f"scores {scores!r}: {nearest(str(scores), get_args(Scores))}")
    several = scores not in ("multi-label", "values")
    if isinstance(labels, str) or len(labels) < 1 + several:
        least = "at least two classes" if several else "the labels or values"
        raise Refused(f"labels=[...] takes the names of {least}, in the order of the network's scores")
    return Classifier(net, preprocess, tuple(map(str, labels)), source, output, scores)


def _unwrapped(net: nn.Module) -> nn.Module:
    while True:
        if isinstance(net, nn.DataParallel | nn.parallel.DistributedDataParallel):
            net = net.module
        elif isinstance(getattr(net, "_orig_mod", None), nn.Module):
            net = cast(nn.Module, net._orig_mod)
        else:
            return net
