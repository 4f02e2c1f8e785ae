"""What a training run depends on, all of it: the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

from clearsight.errors import Refused
from clearsight.training.recipe_fields import (
    FLAGS,
    RANGES,
    Ranges,
    check_ranges,
    check_words,
    is_rate,
    parts_of,
    read_fields,
)

Strategy = Literal["auto", "linear", "last-blocks", "gradual", "full"]
Schedule = Literal["cosine", "one-cycle", "step", "exponential", "plateau", "constant"]
Precision = Literal["fp32", "bf16"]

ABOUT = {
    "from_run": "RUN folder to continue from: its network, its weights and its split of the pictures.",
    "arch": "auto, demo, timm:NAME, torchvision:NAME, or a small network: clearsight:NAME.",
    "weights": "FILE with weights to begin with, or none for random ones.",
    "strategy": "What is trained of pretrained weights: linear, last-blocks, gradual, full.",
    "first_head": "Fit a head to the features of pretrained weights first: a model to use while training goes on.",
    "size": "Side of the network's input in pixels; by default its own.",
    "alphabet": "Of texts: the characters that the network tells apart, or data for those of train; by default ASCII.",
    "grey": "One channel or three; by default one where all pictures are grey and weights are random.",
    "augment": 'How pictures are varied: "crop(scale=0.5), flip, mixup", or none.',
    "epochs": "Number of times that every picture is seen.",
    "batch": "Number of pictures in a step.",
    "optimiser": "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw, or one of timm's.",
    "lr": "Learning rate; find: by a range test before training.",
    "body": "Learning rate of pretrained layers, as a share of the head's.",
    "momentum": "Momentum of optimisers that have one.",
    "decay": "Weight decay.",
    "schedule": "cosine, one-cycle, step, exponential, plateau, constant.",
    "warmup": "Share of the steps in which the learning rate rises.",
    "clip": "Longest gradient of a step; 0 for any.",
    "smoothing": "Label smoothing: the share of a label that is spread over all classes.",
    "dropout": "Dropout of the network's head, if it has one; by default its own.",
    "ema": "Decay of an average over the weights of past steps, 0.99 say; 0 for none.",
    "class_weights": "Give rare classes more weight.",
    "patience": "Epochs without a better validation loss after which training stops; 0 never stops early; by default 5 "
    "behind a first head, else 0.",
    "shares": "Shares of train, val and test, if the data has no splits of its own.",
    "precision": "fp32 or bf16.",
    "seed": "Seed of all randomness.",
    "split_seed": "Seed of the split alone; by default the same as --seed.",
    "perturb": 'ATTACK to train against, with its budget: "pgd(eps=8/255, steps=7)".',
    "defence": "How the attack is used: adversarial-training by default, trades(beta=6), ...; clearsight methods.",
    "overfitting_guard": "End training, and go back, where it begins to resist the attack of training alone.",
    "guide": "Annotations to train for the right reason: boxes, outlines or masks (file or folder), or marks of texts.",
    "avoid": "Annotations of what a right answer may not depend on, such as a mark; instead of --guide.",
    "guide_by": "How annotations guide: counterexamples, right-reasons(weight=1), ...; clearsight methods.",
    "guide_share": "Share of the annotated training pictures whose annotation is used.",
    "rebalance": "How no group is left behind: group-dro, just-train-twice, last-layer; clearsight methods.",
    "groups": "Columns of the table whose words, with the class, make a picture's group; they choose the epoch.",
    "random_labels": "Learn labels drawn at random in train and val: a network to test explanations with.",
}


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.  What is "auto", or None where a number is due, is settled by the data.

    ABOUT says the same of each field in short, as the help of its option.

    Args:
        from_run: folder of a training run to continue from; None begins anew.  The network, its weights with those of
            its head, its input and its classes are those of the run, and pictures that it knows stay in the part that
            its split.csv says.
        arch: "auto", "demo", timm:NAME, torchvision:NAME, or a small network, clearsight:NAME.
        weights: file of weights to begin with, or "none" for random ones; None for the library's own, which are then
            fetched (clearsight's networks have none).
        strategy: what is trained of pretrained weights: "linear", "last-blocks", "gradual", "full" or "auto".
        first_head: fit a linear head to the features of the pretrained body before anything else is trained, and write
            that model; it is left out where weights are random, and where the network does not end in a linear layer.
        size: side of the network's input in pixels, 8 to 4096; None for its own.
        alphabet: of texts, the characters that have a channel of their own, each once; "data" for all that occur in
            train, "" for the printable characters of ASCII.
        grey: whether there is one channel or three; None for one channel if all pictures are grey and weights are
            random.
        augment: augmentations with commas between them, "crop(scale=0.5), flip, mixup", "none" or "auto".
        epochs: how often every picture is seen, at least 1.
        batch: number of pictures in a step, at least 1.
        optimiser: "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", or one of timm's.
        lr: learning rate above 0; "find" for a range test before training, or "auto".
        body: learning rate of pretrained layers, as a share of the head's, 0 to 1000.
        momentum: momentum of optimisers that have one, 0 to 0.9999.
        decay: weight decay, 0 to 10.
        schedule: "cosine", "one-cycle", "step", "exponential", "plateau" or "constant".
        warmup: share of the steps in which the learning rate rises, 0 to 0.9.
        clip: longest gradient of a step; 0 for any.
        smoothing: label smoothing, the share of a label that is spread over all classes, 0 to 0.99.
        dropout: dropout of the network's head if it has one, 0 to 0.99; None for its own.
        ema: decay of an average over the weights of past steps, such as 0.99, below 1; 0 for none.
        class_weights: weigh rare classes up.
        patience: number of epochs without a better validation loss after which training stops; 0 never stops early;
            None for 5 behind a first head, else 0.
        shares: shares of train, val and test, which sum to 1, if the data has no splits of its own.
        precision: "fp32" or "bf16".
        seed: start of all randomness.
        split_seed: seed of the split alone; None for the seed of everything.
        perturb: attack that the network is trained against, with its budget, "pgd(eps=8/255, steps=7)"; "" for none.
            The epoch is kept that is right most often under pgd(steps=10) of that budget on val.
        defence: how the attack is used, "adversarial-training" or another of ``catalogue("defences")``; "" for
            "adversarial-training" where perturb names an attack.
        overfitting_guard: go back to the epoch that is kept, and end, where an epoch is right under pgd on far fewer
            pictures of val than one before; without it the last epoch is kept.
        guide: file or folder of boxes, outlines or masks of what a right answer may depend on; "marks" for the marked
            characters of texts; None for none.
        avoid: file or folder of boxes, outlines or masks of what a right answer may not depend on, instead of guide.
        guide_by: how they guide, a call of ``catalogue("guides")``.
        guide_share: share of the annotated training pictures whose annotation is used, drawn by the seed, above 0.
        rebalance: how no group of pictures is left behind, a call of ``catalogue("rebalancing")``; "" for none.
        groups: column of the data's table, or several with commas, whose words make the groups of pictures together
            with the class; "" for none.  The epoch is kept that is right most often in the worst group of val.
        random_labels: learn labels drawn at random in train and val, for a network to test explanations with.

    Refused: values out of range, and words that are none of those named here.
    """

    from_run: str | None = None
    arch: str = "auto"
    weights: str | None = None
    strategy: Strategy = "auto"
    first_head: bool = True
    size: int | None = None
    alphabet: str = ""
    grey: bool | None = None
    augment: str = "auto"
    epochs: int | None = None
    batch: int = 32
    optimiser: str = "adamw"
    lr: str = "auto"
    body: float = 0.1
    momentum: float = 0.9
    decay: float = 0.01
    schedule: Schedule = "cosine"
    warmup: float = 0.1
    clip: float = 5.0
    smoothing: float = 0.0
    dropout: float | None = None
    ema: float = 0.0
    class_weights: bool = False
    patience: int | None = None
    shares: str = "0.7,0.15,0.15"
    precision: Precision = "fp32"
    seed: int = 0
    split_seed: int | None = None
    perturb: str = ""
    defence: str = ""
    overfitting_guard: bool = True
    guide: str | None = None
    avoid: str | None = None
    guide_by: str = "counterexamples"
    guide_share: float = 1.0
    rebalance: str = ""
    groups: str = ""
    random_labels: bool = False

    def __post_init__(self) -> None:
        check_words(self, {"strategy": Strategy, "schedule": Schedule, "precision": Precision})
        check_ranges(self, _RANGES)
        if self.lr not in ("auto", "find") and not is_rate(self.lr):
            raise Refused(f"lr {self.lr!r}: a number above 0 and at most 1e30 such as 0.001, find, or auto")
        if self.guide is not None and self.avoid is not None:
            raise Refused("--guide and --avoid are both given: give one of them")
        self.parts()

    def parts(self) -> tuple[float, float, float]:
        """The shares of train, val and test."""
        return parts_of(self.shares)

    def divides(self) -> int:
        """The seed that says which pictures are in which part, and draws labels at random."""
        return self.seed if self.split_seed is None else self.split_seed

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_RANGES: Ranges = {
    **RANGES, "size": (8, 4096), "smoothing": (0, 0.99), "dropout": (0, 0.99), "guide_share": (1e-6, 1),
}  # fmt: skip

_BEFORE = {
    "first_head": False, "from_run": None, "perturb": "", "defence": "", "overfitting_guard": True, "guide": None,
    "avoid": None, "guide_by": "counterexamples", "guide_share": 1.0,
    "rebalance": "", "groups": "", "alphabet": "",
}  # fmt: skip  # fields that earlier versions did not write, and what they did


def completed(written: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe as they were written, with those that earlier versions did not know."""
    return {**_BEFORE, **written}


def as_begun(recipe: Recipe, record: Path) -> Recipe:
    """The recipe for more runs beside those of a record: where that is of an earlier version, defaults are as then."""
    try:
        earlier = "first_head" not in json.loads(record.read_text(encoding="utf-8"))["recipe"]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # none, or one that is refused where it is read
        return recipe
    return replace(recipe, first_head=False, patience=recipe.patience or 0) if earlier else recipe


def options() -> dict[str, tuple[Any, Any, str, tuple[str, ...], bool]]:
    """(type, default, help, flags, whether the default is shown) of every field, for the command line.

    It takes a choice as a word.  flags: () where the option is named as the field is.
    """
    kinds = get_type_hints(Recipe)
    return {
        f.name: (
            str if get_origin(kinds[f.name]) is Literal else kinds[f.name],
            f.default,
            ABOUT[f.name],
            (FLAGS[f.name],) if f.name in FLAGS else (),
            f.default not in (None, ""),
        )
        for f in fields(Recipe)
    }


def read_recipe(path: Path) -> tuple[Recipe, list[str], Recipe]:
    """The recipe that a run folder was made by, why its automatic values are what they are, and what was asked for."""
    return read_fields(path, Recipe, completed)


def marks_file(recipe: Recipe) -> str | None:
    """The file or folder of the annotations that guide training; None where there are none."""
    return recipe.guide if recipe.guide is not None else recipe.avoid


def keeps_last(recipe: Recipe) -> bool:
    """Whether the last epoch is kept, instead of the best one on val.

    Random labels are learnt best at the end.  Val may hold the shortcut that annotations guide away from.  Without its
    guard, training against an attack is to show where it ends.
    """
    unguarded = bool(recipe.perturb) and not recipe.overfitting_guard
    return recipe.random_labels or marks_file(recipe) is not None or unguarded
