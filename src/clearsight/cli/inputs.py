"""From the words of a command to models, pictures and numbers."""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from clearsight.cli.options import DataOptions, ModelOptions, RunOptions, WorkerOptions
from clearsight.cli.output import sayer
from clearsight.core.catalogue import parse
from clearsight.data.data_words import check_data_words
from clearsight.errors import Refused
from clearsight.models.model_words import check_model_words, names_model

if TYPE_CHECKING:
    from clearsight.core.classifier import Classifier
    from clearsight.core.model import Model
    from clearsight.data.datasets import Pictures


def look_first(models: Sequence[str], places: Sequence[str], **methods: Sequence[str]) -> None:
    """Refuse what is seen to be wrong before anything is imported that takes seconds.

    methods: by kind, spellings of methods; those of the user's own files are read later.
    """
    for words in models:
        check_model_words(words)
    for words in places:
        check_data_words(words)
    for kind, spellings in methods.items():
        for spelling in (s for s in spellings if ".py:" not in s):
            parse(spelling, kind)


def load_classifier(words: str, given: ModelOptions, run: RunOptions, verb: str) -> Classifier:
    """The classifier that the words name, for a command that takes no other kind; a detector is refused by name."""
    from clearsight.core.classifier import classifier_of

    return classifier_of(load_model(words, given, run), f"clearsight {verb}")


def load_model(words: str, given: ModelOptions, run: RunOptions) -> Model:
    """The model that the words name, of whatever kind."""
    from clearsight.models.loading import load

    part, scores = given.output, given.scores or "logits"
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is no part of the result
        return load(
            words,
            weights=given.weights,
            labels=given.labels,
            preprocess=given.preprocess,
            output=int(part) if part is not None and part.lstrip("-").isdigit() else part,
            scores=cast(Any, scores),
            trust=given.trust,
            device=run.device,
            say=sayer(run.silent),
        )


def open_pictures(data: str, given: DataOptions) -> Pictures:
    """The pictures that the words name."""
    from clearsight.data.datasets import open_data

    return open_data(data, **asdict(given))


def open_places(places: Sequence[str], given: DataOptions) -> list[Pictures]:
    """The pictures of each place."""
    from clearsight.data.datasets import open_each

    return open_each(places, **asdict(given))


def hired(given: WorkerOptions) -> contextlib.AbstractContextManager[None]:
    """The workers that the options name; none where they name none."""
    if not given.workers and given.ray is None:
        return contextlib.nullcontext()
    from clearsight.sharding.hire import workers

    return workers(given.workers or None, ray=given.ray)


def typed(given: ModelOptions | DataOptions) -> list[str]:
    """The options that were given, as they are typed."""
    options = {n: v for n, v in asdict(given).items() if v is not None and v is not False}
    words = [[f"--{n.replace('_', '-')}", *([] if v is True else [str(v)])] for n, v in options.items()]
    return [*itertools.chain(*words)]


def model_and_places(words: Sequence[str]) -> tuple[str, list[str]]:
    """One MODEL, then pictures."""
    models, places = models_and_places(words)
    if len(models) > 1:
        raise Refused(f"{', '.join(models)} are several models, and this command takes one: name one")
    return models[0], places


def models_and_places(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """MODEL comes first, one or several; where the first word can only be a picture, the model is the demo."""
    models = list(itertools.takewhile(names_model, words))
    places = list(words[len(models) :])
    if not models and len(words) > 1 and not Path(words[0]).exists() and not words[0].startswith("demo:"):
        return list(words[:1]), list(words[1:])  # neither a picture nor a model: the loader says what a model is
    if not models:
        return ["demo"], places
    if not places and models[-1] == "demo":  # the word is that of a model and of pictures
        return models[:-1] or ["demo"], ["demo"]
    if not places:
        raise Refused(f"{models[-1]} is a model, but no picture is given: add a file, a folder, or demo:coffee")
    return models, places


def models_and_data(words: Sequence[str]) -> tuple[list[str], str | None]:
    """Models first; the last of several words is data where it is demo, or a path that is no model and no code."""
    last = words[-1]
    is_data = Path(last).exists() and not names_model(last) and Path(last).suffix != ".py"
    if len(words) > 1 and (last == "demo" or last.startswith("demo:") or is_data):
        return list(words[:-1]), last
    return list(words), None


def numbers(text: str, option: str) -> list[float]:
    """Numbers with commas between them, as they are written: 8/255."""
    from clearsight.core.catalogue import number

    try:
        return [number(word.strip()) for word in text.split(",")]
    except (ValueError, ZeroDivisionError):
        raise Refused(f"{option} {text!r} is not a number: write one such as 8/255 or 0.03") from None


def seconds(text: str | None) -> float | None:
    """A duration as it is typed, such as 5m, in seconds.

    >>> seconds("5m"), seconds("60s"), seconds("90")
    (300.0, 60.0, 90.0)
    """
    if text is None:
        return None
    m = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip().lower())
    if not m or float(m[1]) == 0:
        raise Refused(f"--budget {text!r} is not a time: write one such as 60s, 5m or 1h")
    return float(m[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, None: 1}[m[2]]
