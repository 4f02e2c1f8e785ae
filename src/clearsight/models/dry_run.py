"""Run a model on noise a few times and report the problems that explanations or attacks would have with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from clearsight.core.classifier import Classifier
from clearsight.core.forwards import mended, unseen
from clearsight.core.model import Model
from clearsight.core.outputs import paths, pick, reports_boxes
from clearsight.core.targets import ClassScore, Target
from clearsight.errors import Refused
from clearsight.internals.layers import activations_and_gradients, gradients
from clearsight.internals.probe import probed
from clearsight.internals.soundness import of_gradient, of_scores
from clearsight.internals.target_layer import layer_and_later
from clearsight.kinds.questions import usual_target
from clearsight.models.kind_outputs import check_outputs, find_outputs
from clearsight.models.problems import Problem

_SIDES = (28, 32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 384, 448, 512)


@dataclass(frozen=True)
class Layer:
    """A layer with feature maps, and the shape (C, *s) of what it gives for one picture."""

    name: str
    kind: str
    shape: tuple[int, ...]


def probes(model: Model) -> Tensor:
    """Three pictures of noise (3, C, *S) in [0, 1] on the model's device."""
    shape = (3, model.preprocess.channels, *model.preprocess.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(model.device)


def dry_run(model: Model, x: Tensor) -> tuple[str, tuple[Layer, ...], list[Problem]]:
    """Run the model on x (3, C, *S): the target layer ("" where there is none), other layers, and the problems."""
    try:
        raw = _raw_output(model, x)
    except Exception as e:
        return "", (), [_why_not_run(model, x, e)]
    readable, problems = _readable(model, raw, x)
    if readable is None:
        return "", (), problems
    model = readable
    layer = ""
    candidates: tuple[Layer, ...] = ()
    try:
        out = _scores_of(model, x)
        problems += _check_scores(model, raw, out) if isinstance(model, Classifier) else check_outputs(model, out)
        problems += _check_repeats(model, x)
        problems += _check_gradient(model, x)
        candidates = _list_layers(model, x)
        layer, trouble = _find_layer(model, x, out)
        problems += trouble
    except Exception as e:
        mend = "let forward give the same result at every call"
        what = f"the network ran once, but then failed on the same pictures: {reason(e)}"
        problems.append(Problem(what, mend, "fails-again"))
    return layer, candidates, problems


def reason(e: BaseException) -> str:
    """The type of an error and its first line."""
    e = e.__cause__ or e if isinstance(e, Refused) else e  # what the network itself raised
    return f"{type(e).__name__}: {shorten((str(e).strip().splitlines() or [''])[0], 300)}".rstrip(": ")


def _raw_output(model: Model, x: Tensor) -> Any:
    """The raw output of the network for pixels x, normalised as the model does."""
    with torch.no_grad():
        return model.returned(model.normalised(x))


def _scores_of(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).float()


def _runs(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return False
    return True


def _why_not_run(model: Model, x: Tensor, e: Exception) -> Problem:
    """Why the network cannot run on inputs of the stated shape, and which shape it can run on."""
    shape = tuple(x.shape[1:])
    if _runs(lambda: _raw_output(model, x[:1])):
        mend = "let forward keep the batch axis: x.flatten(1) instead of x.view(1, -1) or x.flatten()"
        return Problem(f"the network runs on one picture but not on {len(x)}: {reason(e)}", mend, "one-picture-alone")
    what = f"the network cannot run on an input of {shape}: {reason(e)}"
    advice = mended(e.__cause__, model.net) if isinstance(e.__cause__, Exception) else ""
    if advice:
        return Problem(what, advice, "does-not-run")
    for channels in dict.fromkeys((shape[0], 3, 1)):
        for size in (shape[1:], *((side,) * len(shape[1:]) for side in _SIDES)):
            if len(size) > 2 or (channels, *size) == shape:
                continue
            z = torch.rand((2, channels, *size)).to(x)
            if _runs(lambda z=z: _without_graph(model, z)):  # type: ignore[misc]
                per = f"(0.5,) * {channels}"
                mend = f"it runs on {(channels, *size)}: Preprocess(size={size}, mean={per}, std={per}), for example"
                return Problem(what, mend, "does-not-run")
    mend = "give the size and the channels that it was trained with: Preprocess(size=..., mean=..., std=...)"
    return Problem(what, mend, "does-not-run")


def _without_graph(model: Model, z: Tensor) -> None:
    with torch.no_grad():
        model.returned(z)


def _readable(model: Model, raw: Any, x: Tensor) -> tuple[Model | None, list[Problem]]:
    """The model as its outputs can be read, and why they cannot; see `_find_scores` and `find_outputs`."""
    return _find_scores(model, raw, x) if isinstance(model, Classifier) else find_outputs(model, raw, x)


def _target(model: Model, out: Tensor) -> Target:
    """What is asked of outputs: the top class, the surest box, or the largest region."""
    out = out.detach()
    return ClassScore(out.argmax(1)) if model.kind == "classifier" else usual_target(model, out)


def _find_scores(model: Classifier, raw: Any, x: Tensor) -> tuple[Classifier | None, list[Problem]]:
    """The model with its output picked and its labels counted, for the checks to go on; None where they cannot."""
    problems = []
    try:
        out = pick(raw, model.output)
    except Refused as e:
        part = _best_part(raw, len(x), len(model.labels))
        if part is None:
            mend = "let forward return one tensor (B, K), a row of scores for each picture"
            return None, [Problem(e.what, e.fix if reports_boxes(raw) else mend, "scores-not-found")]
        mend = f"say where the scores are: output={part!r} (--output {part})"
        problems.append(Problem(e.what, mend, "scores-not-found"))
        model = replace(model, output=part)
        out = pick(raw, part)
    if model.scores in ("one-logit", "values") and out.dim() == 1:
        out = out[:, None]
    if out.dim() != 2 or out.shape[0] != len(x):
        mend = "end the network with a flatten and a linear layer; make others cs.Detector or cs.Segmenter"
        what = f"the scores have shape {tuple(out.shape)}, not ({len(x)}, K)"
        return None, [*problems, Problem(what, mend, "scores-not-rows")]
    if model.scores == "one-logit" and out.shape[1] == 1:
        return model, problems
    if out.shape[1] != len(model.labels):
        what = f"the network gives {out.shape[1]} scores, but {len(model.labels)} labels are known"
        mend = f"give labels=[...] (--labels FILE) with {out.shape[1]} names, in the order of the scores"
        if out.shape[1] == 1:
            mend = 'give scores="one-logit" (--scores one-logit) for one logit of the second label against the first'
        problems.append(Problem(what, mend, "labels-miscounted"))
        model = replace(model, labels=tuple(map(str, range(out.shape[1]))))
    return model, problems


def _best_part(raw: Any, pictures: int, classes: int) -> str | int | None:
    """The path of the part that looks most like scores: one row per picture, as many columns as labels."""
    rows = [(path, t) for path, t in paths(raw) if t.dim() == 2 and len(t) == pictures]
    best = next((path for path, t in rows if t.shape[1] == classes), None)
    if best is None and rows:
        return rows[0][0]
    return best


def _check_scores(model: Classifier, raw: Any, out: Tensor) -> list[Problem]:
    """Problems of the scores: not finite, probabilities taken for logits or the reverse, the same for all pictures."""
    given = pick(raw, model.output).float()
    if not bool(given.isfinite().all()):
        mend = "look for a division by zero, a log of zero, or weights that are not finite"
        return [Problem("the scores are not finite", mend, "scores-not-finite")]
    problems = []
    rows = given.reshape(len(given), -1)
    sums = bool((rows.sum(1) - 1).abs().max() < 1e-3) and float(rows.min()) >= 0
    if sums and model.scores == "logits":
        mend = 'give scores="probabilities" (--scores probabilities): their gradients vanish where the model is sure'
        what = "the scores look like probabilities: none below 0, every row sums to 1"
        problems.append(Problem(what, mend, "probabilities-as-logits"))
    if not sums and model.scores == "probabilities":
        mend = 'give scores="logits": the network does not end in a softmax'
        what = 'scores="probabilities", but the rows of scores do not sum to 1'
        problems.append(Problem(what, mend, "logits-as-probabilities"))
    if bool((out == out[:1]).all()):
        mend = "check that it is trained, and that mean and std are those of its training"
        problems.append(Problem("different pictures of noise get the same scores", mend, "same-scores"))
    return problems


def _check_repeats(model: Model, x: Tensor) -> list[Problem]:
    """Problems of scores that differ between passes, or with the other pictures in the batch."""
    try:
        probe = probed(model, x)
    except Exception:
        try:
            _scores_of(model, x[:1])
        except Exception as e:
            mend = "let forward treat each picture alone, without statistics over the batch in eval mode"
            what = f"the network runs on {len(x)} pictures but not on one alone: {reason(e)}"
            return [Problem(what, mend, "needs-neighbours")]
        raise
    trouble = of_scores(model, probe)
    return [] if trouble is None else [Problem(*trouble, "scores-change")]


def _check_gradient(model: Model, x: Tensor) -> list[Problem]:
    z = x.clone().requires_grad_()
    try:
        with torch.enable_grad():
            out = model(z)
            score = _target(model, out)(out)
        (g,) = gradients(score, z)
    except Refused as e:
        return [Problem(e.what, e.fix, "no-gradient")]
    except Exception as e:
        mend = "change forward so that out.sum().backward() works, or use a perturbation method such as occlusion"
        return [Problem(f"the backward pass fails: {reason(e)}", mend, "backward-fails")]
    if not bool(g.isfinite().all()):
        mend = "look for sqrt, log or a division at zero"
        return [Problem("the gradient at the pixels is not finite", mend, "gradient-not-finite")]
    if not bool(g.any()):
        mend = "rounding, comparisons or saturation stop it: use a perturbation method such as occlusion"
        return [Problem("the gradient is zero at every pixel", mend, "gradient-zero")]
    trouble = of_gradient(probed(model, x).slopes)
    if trouble is not None and callable(getattr(model.net, "proposals_of", None)):
        mend = (
            "its regions are proposed anew for every picture, in another order; those of one picture x stay inside "
            "`with model.net.proposals_of(model.normalised(x)):`, and its gradients are right there"
        )
        return [Problem(trouble[0], mend, "gradient-of-other-scores")]
    return [] if trouble is None else [Problem(*trouble, "gradient-of-other-scores")]


def _find_layer(model: Model, x: Tensor, out: Tensor) -> tuple[str, list[Problem]]:
    """The target layer, "" where there is none, and its problems; out (B, ...): the outputs for x (B, C, *S)."""
    try:
        layer, _ = layer_and_later(model, x[:1])
    except Refused as e:
        return "", [Problem(e.what, e.fix, "no-target-layer")]
    except Exception as e:
        what = f"no target layer is found: {reason(e)}"
        return "", [Problem(what, "name one with layer=", "no-target-layer")]
    try:
        activations_and_gradients(model, x[:1], _target(model, out[:1]), layer)
    except Refused as e:
        return layer, [Problem(e.what, e.fix, "target-layer-unreadable")]
    except Exception as e:
        what = f"the target layer {layer} cannot be read: {reason(e)}"
        return layer, [Problem(what, "name another with layer=", "target-layer-unreadable")]
    return layer, []


def _list_layers(model: Model, x: Tensor) -> tuple[Layer, ...]:
    """The last layer at each resolution, without those that run more than once and those inside attention."""
    if unseen(model.net) is not None:
        return ()
    all_runs = probed(model, x).runs
    runs = Counter(s.name for s in all_runs)
    attention = tuple(f"{n}." for n, m in model.net.named_modules() if n and "attention" in type(m).__name__.lower())
    last: dict[tuple[int, ...], Layer] = {}
    for s in all_runs:
        if s.shape is None or len(s.shape) != x.dim() or s.shape[0] != 1 or max(s.shape[2:]) == 1:
            continue
        if not s.pools and runs[s.name] == 1 and not s.name.startswith(attention):
            last[s.shape[2:]] = Layer(s.name, s.kind, s.shape[1:])
    return tuple(last.values())
