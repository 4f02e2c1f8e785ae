"""Run explainers, attacks and metrics: seed them, count their passes, and clip, recount and check what they return."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from clearsight.core import diagnostics, rng
from clearsight.core.batching import SIZE, bounded
from clearsight.core.blackbox import BlackBox, OutOfQueries
from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.fingerprint import hashed_aside
from clearsight.core.model import Model
from clearsight.core.norms import USUAL, norm_of, project
from clearsight.core.norms import overstep as overstep_of
from clearsight.core.passes import Passes, counted
from clearsight.core.settled import settled
from clearsight.core.targets import Become, ClassScore, Goal, Misclassify, Target, as_goal
from clearsight.core.uncollected import uncollected
from clearsight.core.validation import (
    check_kind,
    check_pixels,
    check_result,
    check_rows,
    check_takes,
    check_target,
    top_class,
)
from clearsight.errors import Refused
from clearsight.internals.input_convolution import folded_back
from clearsight.internals.layers import find_layer
from clearsight.internals.probe import last_probe
from clearsight.internals.scores import scores
from clearsight.internals.soundness import alone, caution, must_flow, must_repeat
from clearsight.kinds.questions import usual_target
from clearsight.runner.failures import explain_failure
from clearsight.runner.results import Attacked, Explanation
from clearsight.runner.sharded import joined_attacks, joined_explanations, of_shard, portions, shards_of, spelled
from clearsight.runner.top_class import TopClass, top_class_of
from clearsight.sharding.shards import hired, spread


def explain(
    model: Model,
    x: Tensor,
    method: str | Call = "grad-cam",
    target: Target | None = None,
    *,
    seed: int = 0,
    batch: int | None = None,
) -> Explanation:
    """Run one explainer on pictures.

    The maps are (B, *S) float32, one for each picture x (B, C, *S), as the method gave them, neither scaled nor
    clipped.

    Args:
        model: the classifier, detector or segmenter.
        x: pictures (B, C, *S) in [0, 1], as the model takes them; `pixels` makes them of files.
        method: name of the explainer, with options as in "integrated-gradients(steps=50)".
        target: what is explained, such as ClassScore(3) or Margin(3, 5); None for the logit of each picture's top
            class, of the class of its surest box, or of its largest region.
        seed: start of all randomness.  The same seed gives the same maps, whatever the batch size, the order or the
            neighbours.
        batch: maximum number of pictures that go through the network at once; None for 16, and more through a small
            network.

    Refused: unknown methods and options, targets that do not fit the model or the pictures, networks that the method
    cannot explain, and maps that are not finite or of the wrong shape.
    """
    call = parse(method, "explainers")
    check_takes(model, call)
    x = check_pixels(model, x)
    began, share = time.perf_counter(), "shares-passes" in call.method.claims
    if shards := shards_of(model, x, batch, share=share):
        if target is not None:
            _check_question(model, target, len(x))
        kept = (model, spelled(call, "explainers"), seed, batch)
        parts = spread(_explain_shard, kept, ((x[rows], of_shard(target, rows)) for rows in shards))
        return joined_explanations([*parts], target, began)
    return _explained(model, x, call, target, seed, batch, began)


def _explained(
    model: Model, x: Tensor, call: Call, target: Target | None, seed: int, batch: int | None, began: float
) -> Explanation:
    share, one = "shares-passes" in call.method.claims, x[:1]
    is_first = "few-passes" in call.method.claims and last_probe(model, one) is None
    with (
        settled(model.net),
        model.undisturbed(),
        rng.seeded(seed, one),
        uncollected() if is_first else nullcontext(),  # what is found of the network makes many records, which stay
        hashed_aside(model.net),
    ):
        if "control" not in call.method.claims:
            must_repeat(model, one)
        if target is None:
            target = _usual_target(model, x, batch)
        if target is not None:
            _check_question(model, target, len(x))
        calls = _calls(model, x, call, target, batch)
        maps, classes = [], []
        with (
            bounded(model, one, batch) as size,
            diagnostics.collected() as book,
            counted(model.net) as passes,
        ):
            for rows, named in ((few, named) for at, named in calls for few in portions(x, at, size, share=share)):
                part = x if len(rows) == len(x) else x[rows.to(x.device)]
                with top_class_of(model, part) if target is None else nullcontext(target) as question:
                    asked = question if target is None else question[rows]
                    with explain_failure(model, named, part), rng.reseeded(seed, part, named.method.name):
                        part_maps = named.method(model, part.clone(), asked, **named.options)
                    classes += [asked.index] if isinstance(asked, TopClass) else []
                maps.append(check_result(part_maps, (len(part), *part.shape[2:]), named))
                rectifies = "needs-relu" in named.method.claims  # and so goes back to the pixels, by what was recorded
                if passes.through or rectifies:
                    must_flow(model, one, "" if rectifies else named.options.get("layer", ""))
        fingerprint = model.fingerprint()
    n, joined = len(x), _in_order(torch.cat(maps), calls)
    return Explanation(
        maps=joined,
        x=x.cpu(),
        method=str(calls[0][1] if len(calls) == 1 else call),
        target=ClassScore(torch.cat(classes)) if target is None else target,
        forwards=passes.forwards / n,
        backwards=passes.backwards / n,
        seconds=time.perf_counter() - began,
        seed=seed,
        model=model.source,
        fingerprint=fingerprint,
        labels=model.labels,
        signed="signed" in call.method.claims or float(joined.amin()) < 0,  # options can make a method signed
        diagnostics={name: _in_order(values, calls) for name, values in diagnostics.joined(book).items()},
    )


def _in_order(values: Tensor, calls: list[tuple[Tensor, Call]]) -> Tensor:
    """Values (B, ...) of the pictures of each call in turn, in the order of the pictures."""
    return values if len(calls) == 1 else values[torch.cat([rows for rows, _ in calls]).argsort()]


def _usual_target(model: Model, x: Tensor, batch: int | None) -> Target | None:
    """What is explained where nothing is asked for; None for the top class, which the first pass will tell."""
    if isinstance(model, Classifier):
        return top_class(model, scores(model, x, batch)) if model.scores == "values" else None
    return usual_target(model, scores(model, x, batch))


def _explain_shard(kept: tuple[Model, str | Call, int, int | None], x: Tensor, target: Target | None) -> Explanation:
    model, words, seed, batch = kept
    return explain(model, x, words, target, seed=seed, batch=batch)


def _check_question(model: Model, target: Target, n: int) -> None:
    """Refuse what is no target, or does not fit the model or n pictures."""
    if not callable(target):
        raise Refused(f"target {target!r}: give cs.ClassScore(model.index(name)) or cs.Margin(a, b)")
    check_target(model, target)
    check_rows(target, n)


def resolve(model: Model, x: Tensor, call: Call) -> Call:
    """The call with its layer named where it is "auto", for which x (1, C, *S) is run once.

    So is the layer of the method inside it, where it runs another one (``inner=``).
    """
    if not {"inner", "layer"} & call.method.options.keys():
        return call
    with model.undisturbed():
        return _resolved(model, x, call)


def _resolved(model: Model, x: Tensor, call: Call, reads: Tensor | None = None) -> Call:
    """The same, of a model that is undisturbed already; reads: bool (N,), the candidates that are asked about."""
    options = call.method.options
    if "inner" in options:
        inner = parse(call.options.get("inner", options["inner"].default), "explainers")
        call = call.with_options(inner=str(_resolved(model, x, inner, reads)))
    if "layer" not in options:
        return call
    return call.with_options(layer=find_layer(model, x, call.options.get("layer", "auto"), reads))


def _calls(model: Model, x: Tensor, call: Call, target: Target | None, batch: int | None) -> list[tuple[Tensor, Call]]:
    """The rows of x (B, C, *S) that have a call in common, with it: the layer that "auto" is may differ for boxes."""
    everything = torch.arange(len(x))
    if model.kind != "detector" or target is None or not {"inner", "layer"} & call.method.options.keys():
        return [(everything, _resolved(model, x[:1], call))]
    calls = [_resolved(model, x[:1], call, reads) for reads in _read(scores(model, x, batch), target)]
    rows: dict[str, list[int]] = {}
    for i, one in enumerate(calls):
        rows.setdefault(str(one), []).append(i)
    return [(torch.tensor(them), calls[them[0]]) for them in rows.values()]


def _read(outputs: Tensor, target: Target) -> Tensor:
    """Which candidates of outputs (B, N, 5 + C) a target reads: those on which it has a slope, bool (B, N)."""
    free = outputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        score = target(free).sum()
    if not score.requires_grad:  # whoever needs the slope says so
        return torch.ones(outputs.shape[:2], dtype=torch.bool)
    (slope,) = torch.autograd.grad(score, free)
    return slope.any(2)


def attack(
    model: Model,
    x: Tensor,
    goal: Tensor | Goal,
    method: str | Call = "pgd",
    *,
    eps: float | None = None,
    other: Model | None = None,
    lessons: tuple[Tensor, Goal] | None = None,
    starts: Tensor | None = None,
    access: str = "logits",
    digits: int | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Attacked:
    """Run one attack on pictures.

    The result is recounted: the attacked pictures (B, C, *S) are clipped to the budget, whatever the method returned,
    and the model is run again.  Pictures that meet the goal already are left as they are.

    Args:
        model: the classifier.
        x: pictures (B, C, *S) in [0, 1], as the model takes them.
        goal: right classes (B,), which means Misclassify, or a Goal such as Become.
        method: name of the attack, with options as in "pgd(steps=20)".
        eps: budget in pixels in [0, 1], in the norm that the attack claims, or a number of characters.  None takes
            that of the spelling; else 8/255 for Linf, 0.5 for L2, 8 characters, and all there is for attacks that keep
            no such budget.  Attacks that look for
            the smallest change take math.inf.
        other: a second model of the same classes, for transfer attacks.
        lessons: (pictures, goal) from which a universal attack learns; None for the pictures that it attacks.
        starts: pictures (N, C, *S) from which an attack by labels alone may begin.
        access: what the model returns to a black-box attack: "logits", "probs", "top-5" (or another number) or "label".
        digits: decimals to which the probabilities for a black-box attack are rounded; None for no rounding.
        seed: start of all randomness.
        batch: maximum number of pictures that go through the network at once; None for 16, and more through a small
            network.

    Refused: unknown methods and options, a budget outside its range or stated twice with two values, goals that do not
    fit the model or the pictures, an attack on another model without other, and starts, access or digits for attacks
    that do not use them.
    """
    call, eps = budgeted(parse(method, "attacks"), eps)
    goal = as_goal(goal)
    norm = norm_of(call)
    _check_arguments(model, goal, call, other=other, starts=starts, limited=access != "logits" or digits is not None)
    x = check_pixels(model, x)
    check_rows(goal, len(x))
    began = time.perf_counter()
    if hired():
        more = {"other": other, "lessons": lessons, "starts": starts, "access": access, "digits": digits}
        return joined_attacks([*_attack_in_shards(model, x, goal, call, eps, more, seed, batch)], began)
    one, overstep, blind = x[:1], 0.0, "black-box" in call.method.claims
    spent, first = torch.zeros(len(x), dtype=torch.long), torch.zeros(len(x), dtype=torch.long)
    with settled(model.net), model.undisturbed(), rng.seeded(seed, one):
        batch = 1 if alone(model, one) else batch
        with bounded(model, one, batch) as size:
            already = goal.met(scores(model, x, size))
        todo = (~already).nonzero()[:, 0]
        extra: dict[str, Any] = {"eps": eps, "other": other}
        extra["starts"] = None if starts is None else check_pixels(model, starts)
        with _attackable(model, one, batch) as (together, passes):
            if "lessons" in call.method.injected:
                together = max(len(todo), 1)  # learned once; the method itself takes the pictures a few at a time
                extra["lessons"] = lessons or (x[todo.to(x.device)], goal[todo])
            z = x if len(x) == len(todo) <= together else x.clone()  # x: all are attacked at once
            for rows in torch.split(todo, together) if len(todo) else ():
                part = x if len(rows) == len(x) else x[rows.to(x.device)]
                limits = {"eps": eps, "access": access, "digits": digits}
                box = _black_box(model, part, goal[rows], call, **limits) if blind else None
                given = {k: v for k, v in extra.items() if k in call.method.injected}
                with explain_failure(model, call, part), rng.reseeded(seed, part, call.method.name):
                    raw = _propose(call, model, box, part, goal[rows], given)
                if box is not None:
                    spent[rows], first[rows] = box.used, box.first
                proposed = part
                if raw is not None:
                    raw = check_result(raw, tuple(part.shape), call, keep=True)
                    proposed = project(raw, part, eps, norm)
                    overstep = max(overstep, overstep_of(raw, proposed, norm))
                z = _with_rows(z, rows, proposed if box is None else box.best(raw))
        if passes.through:
            caution(model, one)
        fooled = goal.met(scores(model, z, size)) & ~already
        first = torch.where(fooled, torch.where(first > 0, first, spent), 0)
    n = max(len(todo), 1)
    return Attacked(
        x=z.cpu(),
        fooled=fooled,
        already=already,
        overstep=overstep,
        queries=passes.forwards / n,
        backwards=passes.backwards / n,
        seconds=time.perf_counter() - began,
        method=str(call),
        eps=eps,
        seed=seed,
        clean=x.cpu(),
        norm=norm,
        spent=spent if blind else None,
        first=first if blind else None,
    )


def _with_rows(z: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """z (B, ...), some of whose rows (n,) are replaced; what replaces them itself where these are all."""
    if len(rows) == len(z):
        return new
    z[rows.to(z.device)] = new
    return z


@contextmanager
def _attackable(model: Model, x: Tensor, batch: int | None) -> Iterator[tuple[int, Passes]]:
    """How many pictures like x (1, C, *S) go through the network at once, and what goes through it inside, counted."""
    with bounded(model, x, batch) as size, counted(model.net) as passes, folded_back(model.net):
        yield size, passes


def _attack_in_shards(
    model: Model, x: Tensor, goal: Goal, call: Call, eps: float, more: dict[str, Any], seed: int, batch: int | None
) -> Iterator[Attacked]:
    """The attack on each shard by workers; on all at once where it learns from them."""
    shards = [slice(None)] if "lessons" in call.method.injected else shards_of(model, x, batch)
    kept = (model, spelled(call, "attacks"), {**more, "eps": eps, "seed": seed, "batch": batch})
    return spread(_attack_shard, kept, ((x[rows], goal[rows]) for rows in shards))


def _attack_shard(kept: tuple[Model, str | Call, dict[str, Any]], x: Tensor, goal: Goal) -> Attacked:
    model, words, options = kept
    return attack(model, x, goal, words, **options)


def _check_arguments(
    model: Model, goal: Goal, call: Call, *, other: Model | None, starts: Tensor | None, limited: bool
) -> None:
    """Refuse a goal that does not fit the model, and arguments that the attack lacks or does not use.

    limited: whether access or digits limit what the model returns.
    """
    check_kind(model, goal)
    check_takes(model, call)
    if isinstance(model, Classifier) and not model.one_of_many and isinstance(goal, Misclassify | Become):
        raise Refused(f"the model's outputs are {model.scores}, without one class as the answer: write your own Goal")
    needs_other(call, other)
    if starts is not None and "starts" not in call.method.injected:
        raise Refused(f"{call.method.name} starts from the picture itself: leave starts out")
    if limited and "black-box" not in call.method.claims:
        raise Refused(f"{call.method.name} is not a black-box attack: leave access and digits out")


def needs_other(call: Call, other: Model | None) -> None:
    """Refuse an attack on another model where none is given."""
    if other is None and "other" in call.method.injected:
        raise Refused(
            f"{call.method.name} needs other, a second model of the same classes that is attacked instead: give "
            "other=MODEL (--other MODEL)"
        )


def _black_box(model: Model, x: Tensor, goal: Goal, call: Call, **limits: Any) -> BlackBox:
    if "queries" not in call.method.options:
        raise Refused(f"{call.method.name} is a black-box attack without the option queries: add queries: int = 1000")
    queries = call.options.get("queries", call.method.options["queries"].default)
    return BlackBox(model, x, goal, norm=norm_of(call), queries=queries, **limits)


def _propose(
    call: Call, model: Model, box: BlackBox | None, x: Tensor, goal: Goal, given: dict[str, Any]
) -> Tensor | None:
    """The pictures that the method proposes; None where its queries ran out before."""
    if box is None:
        return call.method(model, x.clone(), goal, **given, **call.options)  # type: ignore[no-any-return]
    try:
        return call.method(box, x.clone(), **given, **call.options)  # type: ignore[no-any-return]
    except OutOfQueries:
        return None


def measure(
    model: Model,
    x: Tensor,
    maps: Tensor,
    metric: str | Call,
    target: Target | None = None,
    *,
    regions: Tensor | None = None,
    method: str | Call | None = None,
    other: Model | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Tensor:
    """Measure maps of pictures by one metric: one number (B,) per picture.

    Args:
        model: the classifier, detector or segmenter.
        x: pictures (B, C, *S) in [0, 1], as the model takes them.
        maps: maps (B, *S) of the pictures.
        metric: name of the metric, with options as in "deletion(steps=20)".
        target: what the maps explain; None for the probability of each picture's top class, the score of its surest
            box, or the mean probability of its largest region.
        regions: bool (B, *S), true on the object, for metrics that ask whether the map lies inside.
        method: name of the explainer that made the maps, with its options, for metrics that run it again.
        other: a second model of the same classes, for metrics that compare its maps with these.
        seed: start of all randomness.
        batch: maximum number of pictures that go through the network at once; None for 16, and more through a small
            network.

    Refused: unknown metrics and options, maps and targets that do not fit the pictures, a metric without the regions,
    the method or the second model that it needs, and one that changes pixels where the inputs are texts.
    """
    call = parse(metric, "metrics")
    check_takes(model, call)
    x = check_pixels(model, x)
    if maps.shape != (len(x), *x.shape[2:]):
        raise Refused(f"maps {tuple(maps.shape)} do not fit pictures {tuple(x.shape)}: give one for each")
    fits = regions is not None and regions.shape == maps.shape and regions.dtype == torch.bool
    if "of-pixels" in call.method.claims and model.preprocess.alphabet:
        raise Refused(
            f"{call.method.name} changes pixels a little, and a character has no small change: take another metric, "
            "such as deletion"
        )
    if "regions" in call.method.injected and not fits:
        raise Refused(f"{call.method.name} needs regions: a bool tensor {tuple(maps.shape)}, true on the object")
    if "again" in call.method.injected and method is None:
        raise Refused(f"{call.method.name} runs the explainer again: give the one that made the maps, method=...")
    if "other" in call.method.injected and other is None:
        raise Refused(f"{call.method.name} needs other: give a second model of the same classes")
    maps = maps.to(x)
    if shards := shards_of(model, x, batch):
        words = None if method is None else spelled(parse(method, "explainers"), "explainers")
        kept = (model, other, spelled(call, "metrics"), words, seed, batch)
        parts = ((x[r], maps[r], of_shard(target, r), of_shard(regions, r)) for r in shards)
        return torch.cat([*spread(_measure_shard, kept, parts)])
    maker = None if method is None else parse(method, "explainers")
    if maker is not None and "again" in call.method.injected and model.kind != "detector":
        maker = resolve(model, x[:1], maker)  # of a detector each box may have a layer of its own
    with settled(model.net), model.undisturbed(), rng.seeded(seed, x[:1]):
        must_repeat(model, x[:1])
        if target is None:
            outputs = scores(model, x, batch)
            if isinstance(model, Classifier):
                target = top_class(model, outputs, chance=True)
            else:
                target = usual_target(model, outputs, chance=True)
        check_target(model, target)
        check_rows(target, len(x))
        values = []
        size = batch or SIZE
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            extra: dict[str, Any] = {"regions": None if regions is None else regions[rows].to(x.device), "other": other}
            extra["again"] = maker and _again(maker, target[rows], seed)
            given = {k: v for k, v in extra.items() if k in call.method.injected}
            with explain_failure(model, call, x[rows]), rng.reseeded(seed, x[rows], call.method.name):
                result = call.method(model, x[rows].clone(), target[rows], maps[rows].clone(), **given, **call.options)
            values.append(check_result(result, (len(x[rows]),), call, finite=False))
    return torch.cat(values)


def _measure_shard(
    kept: tuple[Model, Model | None, str | Call, str | Call | None, int, int | None],
    x: Tensor,
    maps: Tensor,
    target: Target | None,
    regions: Tensor | None,
) -> Tensor:
    model, other, metric, method, seed, batch = kept
    return measure(model, x, maps, metric, target, regions=regions, method=method, other=other, seed=seed, batch=batch)


def _again(maker: Call, target: Target, seed: int) -> Callable[[Model, Tensor], Tensor]:
    """A function that runs the explainer again on versions of the pictures: (model, x) -> maps (B, *S)."""

    def again(model: Model, x: Tensor) -> Tensor:
        return explain(model, x, maker, target, seed=seed).maps.to(x)

    return again


def budgeted(call: Call, eps: float | None) -> tuple[Call, float]:
    """The call without its budget, and the budget, by default its norm's.  Refused: a budget outside its range."""
    spelled = call.options.get("eps")
    if spelled is not None and eps is not None and spelled != eps:
        raise Refused(f"{call} has eps={spelled:g}, but eps={eps:g} is given too: give one of them")
    free, norm = "unbounded" in call.method.claims, norm_of(call)
    usual = 1.0 if free else USUAL[norm]
    if spelled is not None:
        eps = spelled
    elif eps is None:
        eps = usual
    if norm == "characters" and (eps < 0 or eps != eps // 1):
        raise Refused(f"eps {eps:g}: give the number of characters that {call.method.name} may change, such as 8")
    infinite = eps == float("inf") and "minimal" in call.method.claims
    if not infinite and (not 0 <= eps < float("inf") or (eps > 1 and norm == "linf")):
        least = ", or inf for an attack that looks for the smallest change" if "minimal" in call.method.claims else ""
        raise Refused(f"eps {eps:g}: give a budget from 0 to 1, in pixels in [0, 1] (8/255){least}")
    return Call(call.method, {k: v for k, v in call.options.items() if k != "eps"}), float(eps)
