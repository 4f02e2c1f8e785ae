"""What a recipe's rebalancing asks for: of the recipe, of the run it comes from, of the groups and of the network.

A method of the kind says by its first parameter where it is used: ``step``, in each step of training; ``wrong``, before
training, on what a first run gets wrong; ``features``, in the place of training, on what enters the last layer.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from clearsight.core.catalogue import Call, parse
from clearsight.core.classifier import Classifier
from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.errors import Refused
from clearsight.internals.scores import scores
from clearsight.models.loading import load_classifier
from clearsight.models.model_folder import RECIPE
from clearsight.runner.augment import mixes, read
from clearsight.training.batches import Store
from clearsight.training.continued import Origin, inherited
from clearsight.training.fine_tuning import TrainableNetwork
from clearsight.training.first_head import BATCH, Head, features, linear_head, unchanged
from clearsight.training.grouping import check_members
from clearsight.training.recipe import Recipe, marks_file, read_recipe
from clearsight.training.training_data import TrainingData

Stage = Literal["step", "wrong", "features"]
_FEATURES = "features for the last layer"


def rebalancing(recipe: Recipe) -> Call | None:
    """The rebalancing of a recipe; None where it has none."""
    return parse(recipe.rebalance, "rebalancing") if recipe.rebalance else None


def stage(recipe: Recipe) -> Stage | None:
    """Where a recipe's rebalancing is used; None where it has none.  Refused: a function of another form."""
    call = rebalancing(recipe)
    if call is None:
        return None
    first = next(iter(call.method.parameters), "")
    if first not in get_args(Stage):
        raise Refused(
            f"{call.method.name} cannot rebalance: its first parameter is {first or 'missing'}",
            f"it is one of {', '.join(get_args(Stage))}",
        )
    return cast(Stage, first)


def check_rebalancing(recipe: Recipe) -> None:
    """Refuse a rebalancing that does not exist, or that does not go with the rest of the recipe."""
    if recipe.groups and recipe.random_labels:
        raise Refused("--groups with --random-labels: labels drawn at random have no groups; leave one of them out")
    call, when = rebalancing(recipe), stage(recipe)
    if call is None:
        return
    name = call.method.name
    if call.method.validate is not None:
        call.method.validate(**({n: p.default for n, p in call.method.options.items()} | call.options))
    for given, flags in (
        (recipe.perturb, "--perturb"),
        (marks_file(recipe) is not None, "--guide or --avoid"),
        (recipe.random_labels, "--random-labels"),
    ):
        if given:
            raise Refused(f"{name} with {flags}: it goes with plain training only", f"leave {flags} out")
    if when != "wrong" and not recipe.groups:
        raise Refused(f"{name} without groups", "name the column of the table that says them, such as --groups place")
    if when != "step" and recipe.from_run is None:
        raise Refused(f"{name} without a run to begin from", "name the folder of one with --from RUN")
    if when == "features" and recipe.epochs is not None:
        raise Refused(f"{name} with --epochs: it fits the last layer and trains no epoch", "leave --epochs out")
    if when == "step":
        _check_steps(name, recipe)


def _check_steps(name: str, recipe: Recipe) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise Refused(f"{name} in several processes: its weights follow one after the other", "start one process")
    mixing = [c.method.name for c in read(recipe.augment) if mixes(c)] if recipe.augment != "auto" else []
    if mixing:
        raise Refused(
            f"{name} with {mixing[0]}: a mixed picture is in two groups", f"leave {mixing[0]} out of --augment"
        )


def inherited_by(recipe: Recipe, source: Origin) -> Recipe:
    """The recipe with what is taken from the run that it continues from, or whose errors it learns from."""
    when = stage(recipe)
    if when == "wrong":
        return _begun_as(recipe, source)
    if when == "features":
        # of steps that there are none
        return replace(inherited(recipe, source), augment="none", epochs=1, lr="0.001", schedule="constant")
    return inherited(recipe, source)


def _begun_as(recipe: Recipe, source: Origin) -> Recipe:
    """The recipe with the network, the weights and the augmentations that the run began with."""
    where = f"{recipe.rebalance} from {source.folder}"
    if source.recipe is None:
        raise Refused(
            f"{where}: it holds no {RECIPE}, so that it is not known what it began from",
            "name the folder of a run of clearsight train",
        )
    before = read_recipe(source.folder / RECIPE)[0]
    if before.from_run is not None and stage(before) != "wrong":
        raise Refused(
            f"{where}: that run continued from {before.from_run}, and the second network begins anew",
            "name the folder of a run that began anew",
        )
    return replace(
        recipe,
        **{name: getattr(before, name) for name in ("arch", "weights", "size", "alphabet", "grey", "dropout")},
        augment=before.augment if recipe.augment == "auto" else recipe.augment,
        strategy=before.strategy if recipe.strategy == "auto" else recipe.strategy,
        first_head=before.first_head and recipe.first_head,
    )


def check_groups(data: TrainingData, recipe: Recipe) -> None:
    """Refuse groups without members in the parts where the recipe needs them."""
    if data.grouping is None:
        return
    call, when = rebalancing(recipe), stage(recipe)
    part = str(_option(call, "on", "val")) if when == "features" else "train"
    for needed in sorted({"val", part} if when in ("step", "features") else {"val"}):
        fewest = 2 if when == "features" and needed == part else 1
        check_members(data.grouping, data.pictures, data.rows(needed), needed, fewest)


def rebalanced(
    data: TrainingData, recipe: Recipe, start: TrainableNetwork, device: str, tell: Progress
) -> TrainingData:
    """The data with how often each training picture is seen in an epoch, where the rebalancing says so.

    Refused: groups without members where they are needed, a run without errors to learn from, and a network without a
    last layer that can be fitted.
    """
    check_groups(data, recipe)
    call, when = rebalancing(recipe), stage(recipe)
    if call is None:
        return data
    if when == "features" and linear_head(unchanged(start, data), start.head) is None:
        raise Refused(
            f"{call.method.name}: the network does not end in one linear layer that takes one vector per picture"
        )
    if when == "wrong":
        return _seen_where_wrong(data, recipe, call, device, tell)
    return _groups_alike(data) if when == "step" else data


def has_fitted_val(recipe: Recipe) -> bool:
    """Whether the last layer was fitted to val, which then cannot say how sure the model may be."""
    return stage(recipe) == "features" and _option(rebalancing(recipe), "on", "val") == "val"


def _option(call: Call | None, name: str, default: object) -> object:
    """The value of an option that a call has, said or not; the default where it has none."""
    if call is None or name not in call.method.options:
        return default
    return call.options.get(name, call.method.options[name].default)


def _groups_alike(data: TrainingData) -> TrainingData:
    """The data of which an epoch shows each group equally often, and as many pictures in all as there are."""
    assert data.grouping is not None
    rows = data.rows("train")
    sizes = torch.tensor(data.grouping.sizes(rows), dtype=torch.float64)
    times = torch.zeros(len(data.pictures), dtype=torch.float64)
    times[rows] = len(rows) / (len(sizes) * sizes[data.grouping.of[rows]])
    return replace(data, times=times)


def _seen_where_wrong(data: TrainingData, recipe: Recipe, call: Call, device: str, tell: Progress) -> TrainingData:
    """The data whose training pictures are seen as often as the method says, which knows where the run is wrong."""
    rows = data.rows("train")
    model = load_classifier(str(recipe.from_run), "train --rebalance", device=device)
    wrong = wrong_answers(model, data, rows, tell)
    if not bool(wrong.any()):
        raise Refused(
            f"{recipe.from_run} is right on all {counted(len(rows), 'training picture')}, so there is nothing to learn "
            "from its errors",
            "name a run that was trained for fewer --epochs, or with more --decay",
        )
    times = torch.zeros(len(data.pictures), dtype=torch.float64)
    times[rows] = call.method(wrong, **call.options).double()
    n = int(wrong.sum())
    note = (
        f"{recipe.from_run} is wrong on {n} of {counted(len(rows), 'training picture')}: an epoch shows pictures "
        f"{int(times[rows].sum())} times, these {float(times[rows][wrong].sum()) / n:g} times each"
    )
    return replace(data, times=times, notes=(*data.notes, note))


def wrong_answers(model: Classifier, data: TrainingData, rows: list[int], tell: Progress) -> Tensor:
    """(n,) bool: whether the model is wrong on each of these pictures, which are not augmented."""
    store = Store(data.pictures, model.preprocess, False, room=0)
    right = []
    with model.undisturbed():
        for begin in range(0, len(rows), BATCH):
            part = rows[begin : begin + BATCH]
            answers = scores(model, store.pixels(part).to(model.device)).argmax(1, keepdim=True)
            right.append(data.y[part].gather(1, answers.cpu())[:, 0] > 0)
            tell("errors of the first run", begin + len(part), len(rows))
    return ~torch.cat(right)


def fitted_last_layer(
    model: Classifier, head: frozenset[str], data: TrainingData, recipe: Recipe, store: Store, tell: Progress
) -> Head:
    """The last layer as the rebalancing fits it, to features of its part of the pictures.

    store: keeps the pictures of val, which are evaluated afterwards.
    """
    found, call, grouping = linear_head(model, head), rebalancing(recipe), data.grouping
    assert found is not None
    assert call is not None
    assert grouping is not None
    rows, val = data.rows(str(_option(call, "on", "val"))), data.rows("val")
    x = features(model, found[1], store, rows, tell, _FEATURES)
    val_x = x if rows == val else features(model, found[1], store, val, tell, _FEATURES)
    y = data.y[rows].to(x)
    weight, bias = call.method(x, y, grouping.of[rows].to(x.device), recipe.seed, **call.options)
    loss = float(cross_entropy(linear(x, weight, bias), y))
    return Head(weight, bias, 0.0, loss, linear(val_x, weight, bias).float().cpu(), found[0])
