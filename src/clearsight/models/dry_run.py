"""A few runs of a model on noise, to find out what will not work with it before it matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, Literal

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.forwards import mended, unseen
from clearsight.core.outputs import paths, pick
from clearsight.core.targets import ClassScore
from clearsight.errors import Refused
from clearsight.internals.layers import activations_and_gradients, gradients
from clearsight.internals.probe import probed
from clearsight.internals.soundness import of_gradient, of_scores
from clearsight.internals.target_layer import layer_and_later

_SIDES = (28, 32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 384, 448, 512)


Code = Literal[
    "backward-fails",
    "disturbs-itself",
    "does-not-run",
    "fails-again",
    "gradient-not-finite",
    "gradient-of-other-scores",
    "gradient-zero",
    "labels-miscounted",
    "labels-twice",
    "logits-as-probabilities",
    "needs-neighbours",
    "no-gradient",
    "no-target-layer",
    "one-picture-alone",
    "probabilities-as-logits",
    "same-scores",
    "scores-change",
    "scores-not-finite",
    "scores-not-found",
    "scores-not-rows",
    "target-layer-unreadable",
    "unknown-classes",
    "weights-not-finite",
    "weights-on-several-devices",
    "weights-without-shape",
]


@dataclass(frozen=True)
class Problem:
    """What will not work, and what to do about it.  code: which problem it is, for whoever is not to read sentences."""

    what: str
    mend: str
    code: Code


@dataclass(frozen=True)
class Layer:
    """A layer with feature maps, and the shape (C, *s) of what it gives for one picture."""

    name: str
    kind: str
    shape: tuple[int, ...]


def probes(model: Classifier) -> Tensor:
    """Three pictures of noise (3, C, *S) in [0, 1] on the model's device."""
    shape = (3, model.preprocess.channels, *model.preprocess.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(model.device)


def dry_run(model: Classifier, x: Tensor) -> tuple[str, tuple[Layer, ...], list[Problem]]:
    """Run the model on x (3, C, *S): the target layer ("" where there is none), other layers, and the problems."""
    try:
        raw = _raw(model, x)
    except Exception as e:
        return "", (), [_does_not_run(model, x, e)]
    readable, problems = _readable(model, raw, x)
    if readable is None:
        return "", (), problems
    model = readable
    layer = ""
    candidates: tuple[Layer, ...] = ()
    try:
        out = _values(model, x)
        problems += _scores(model, raw, out)
        problems += _repeatable(model, x)
        problems += _gradient(model, x)
        candidates = _candidates(model, x)
        layer, trouble = _layer(model, x)
        problems += trouble
    except Exception as e:
        mend = "let forward do the same every time it is called"
        what = f"the network ran, and then failed on the same pictures: {reason(e)}"
        problems.append(Problem(what, mend, "fails-again"))
    return layer, candidates, problems


def reason(e: BaseException) -> str:
    """The kind of an error and its first line."""
    e = e.__cause__ or e if isinstance(e, Refused) else e  # what the network itself raised
    return f"{type(e).__name__}: {shorten((str(e).strip().splitlines() or [''])[0], 300)}".rstrip(": ")


def _raw(model: Classifier, x: Tensor) -> Any:
    """Whatever the network itself returns for pixels x, given to it as the model does."""
    with torch.no_grad():
        return model.returned(model.normalised(x))


def _values(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).float()


def _runs(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


def _does_not_run(model: Classifier, x: Tensor, e: Exception) -> Problem:
    """Why the network cannot run on inputs of the stated shape, and which shape it can run on."""
    shape = tuple(x.shape[1:])
    if _runs(lambda: _raw(model, x[:1])):
        mend = "let forward keep the batch axis: x.flatten(1) instead of x.view(1, -1) or x.flatten()"
        return Problem(f"the network runs on one picture but not on {len(x)}: {reason(e)}", mend, "one-picture-alone")
    what = f"the network cannot run on an input of {shape}: {reason(e)}"
    known = mended(e.__cause__, model.net) if isinstance(e.__cause__, Exception) else ""
    if known:
        return Problem(what, known, "does-not-run")
    for channels in dict.fromkeys((shape[0], 3, 1)):
        for size in (shape[1:], *((side,) * len(shape[1:]) for side in _SIDES)):
            if len(size) > 2 or (channels, *size) == shape:
                continue
            z = torch.rand((2, channels, *size)).to(x)
            if _runs(lambda z=z: _without_graph(model, z)):  # type: ignore[misc]
                per = f"(0.5,) * {channels}"
                mend = f"it runs on {(channels, *size)}: Preprocess(size={size}, mean={per}, std={per}), say"
                return Problem(what, mend, "does-not-run")
    mend = "state the size and the channels that it was trained with: Preprocess(size=..., mean=..., std=...)"
    return Problem(what, mend, "does-not-run")


def _without_graph(model: Classifier, z: Tensor) -> None:
    with torch.no_grad():
        model.returned(z)


def _readable(model: Classifier, raw: Any, x: Tensor) -> tuple[Classifier | None, list[Problem]]:
    """The model with its output picked and its labels counted, for the checks to go on; None where they cannot."""
    problems = []
    try:
        out = pick(raw, model.output)
    except Refused as e:
        part = _best_part(raw, len(x), len(model.labels))
        if part is None:
            mend = "let forward return one tensor (B, K), a row of scores for each picture"
            return None, [Problem(e.what, mend, "scores-not-found")]
        mend = f"say where the scores are: output={part!r} (--output {part})"
        problems.append(Problem(e.what, mend, "scores-not-found"))
        model = replace(model, output=part)
        out = pick(raw, part)
    if model.scores in ("one-logit", "values") and out.dim() == 1:
        out = out[:, None]
    if out.dim() != 2 or out.shape[0] != len(x):
        mend = "end the network with a flatten and a linear layer; a segmenter or a detector is no classifier"
        what = f"the scores have shape {tuple(out.shape)}, not ({len(x)}, K)"
        return None, [*problems, Problem(what, mend, "scores-not-rows")]
    if model.scores == "one-logit" and out.shape[1] == 1:
        return model, problems
    if out.shape[1] != len(model.labels):
        what = f"the network gives {out.shape[1]} scores, but {len(model.labels)} labels are known"
        mend = f"labels=[...] (--labels FILE) with {out.shape[1]} names, in the order of the scores"
        if out.shape[1] == 1:
            mend = 'one logit for the second label against the first is scores="one-logit" (--scores one-logit)'
        problems.append(Problem(what, mend, "labels-miscounted"))
        model = replace(model, labels=tuple(map(str, range(out.shape[1]))))
    return model, problems


def _best_part(raw: Any, pictures: int, classes: int) -> str | int | None:
    """What picks the part that looks most like scores: one row per picture, as many columns as labels."""
    rows = [(path, t) for path, t in paths(raw) if t.dim() == 2 and len(t) == pictures]
    best = next((path for path, t in rows if t.shape[1] == classes), None)
    if best is None and rows:
        return rows[0][0]
    return best


def _scores(model: Classifier, raw: Any, out: Tensor) -> list[Problem]:
    """Finite?  Logits, or probabilities that pass for them?  Different for different pictures?"""
    given = pick(raw, model.output).float()
    if not bool(given.isfinite().all()):
        mend = "look for a division by zero, a log of zero, or weights that are not finite"
        return [Problem("the scores are not finite", mend, "scores-not-finite")]
    problems = []
    rows = given.reshape(len(given), -1)
    sums = bool((rows.sum(1) - 1).abs().max() < 1e-3) and float(rows.min()) >= 0
    if sums and model.scores == "logits":
        mend = (
            'scores="probabilities" (--scores probabilities): gradients of probabilities fade where the model is sure'
        )
        what = "the scores look like probabilities: none below 0, every row sums to 1"
        problems.append(Problem(what, mend, "probabilities-as-logits"))
    if not sums and model.scores == "probabilities":
        mend = 'scores="logits": the network has no softmax at its end'
        what = "the scores are said to be probabilities, but rows do not sum to 1"
        problems.append(Problem(what, mend, "logits-as-probabilities"))
    if bool((out == out[:1]).all()):
        mend = "is it trained, and are mean and std those it was trained with?"
        problems.append(Problem("different pictures of noise get the same scores", mend, "same-scores"))
    return problems


def _repeatable(model: Classifier, x: Tensor) -> list[Problem]:
    """The same picture must get the same scores, twice and whoever its neighbours are."""
    try:
        _values(model, x[:1])
    except Exception as e:
        mend = "let forward look at each picture alone: no statistics over the batch in eval mode"
        what = f"the network runs on {len(x)} pictures but not on one alone: {reason(e)}"
        return [Problem(what, mend, "needs-neighbours")]
    trouble = of_scores(model, probed(model, x))
    return [] if trouble is None else [Problem(*trouble, "scores-change")]


def _gradient(model: Classifier, x: Tensor) -> list[Problem]:
    z = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            out = model(z)
            score = ClassScore(out.detach().argmax(1))(out)
        (g,) = gradients(score, z)
    except Refused as e:
        return [Problem(e.what, e.fix, "no-gradient")]
    except Exception as e:
        mend = "mend forward so that out.sum().backward() works, or use a perturbation method such as occlusion"
        return [Problem(f"the backward pass fails: {reason(e)}", mend, "backward-fails")]
    if not bool(g.isfinite().all()):
        mend = "look for sqrt, log or a division at zero"
        return [Problem("the gradient at the pixels is not finite", mend, "gradient-not-finite")]
    if not bool(g.any()):
        mend = "rounding, comparing or saturating stops it: use a perturbation method such as occlusion"
        return [Problem("the gradient is zero at every pixel", mend, "gradient-zero")]
    trouble = of_gradient(probed(model, x).slopes)
    return [] if trouble is None else [Problem(*trouble, "gradient-of-other-scores")]


def _layer(model: Classifier, x: Tensor) -> tuple[str, list[Problem]]:
    try:
        layer, _ = layer_and_later(model, x[:1])
    except Refused as e:
        return "", [Problem(e.what, e.fix, "no-target-layer")]
    except Exception as e:
        what = f"no target layer can be found: {reason(e)}"
        return "", [Problem(what, "name one with layer=", "no-target-layer")]
    try:
        activations_and_gradients(model, x[:1], ClassScore(0), layer)
    except Refused as e:
        return layer, [Problem(e.what, e.fix, "target-layer-unreadable")]
    except Exception as e:
        what = f"the target layer {layer} cannot be read: {reason(e)}"
        return layer, [Problem(what, "name another with layer=", "target-layer-unreadable")]
    return layer, []


def _candidates(model: Classifier, x: Tensor) -> tuple[Layer, ...]:
    """The last layer at each resolution; what runs more than once cannot be read, and inside attention are no maps."""
    if unseen(model.net) is not None:
        return ()
    seen = probed(model, x).runs
    runs = Counter(s.name for s in seen)
    attention = tuple(f"{n}." for n, m in model.net.named_modules() if n and "attention" in type(m).__name__.lower())
    last: dict[tuple[int, ...], Layer] = {}
    for s in seen:
        if s.shape is None or len(s.shape) != x.dim() or s.shape[0] != 1 or max(s.shape[2:]) == 1:
            continue
        if not s.pools and runs[s.name] == 1 and not s.name.startswith(attention):
            last[s.shape[2:]] = Layer(s.name, s.kind, s.shape[1:])
    return tuple(last.values())
