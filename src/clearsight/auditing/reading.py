"""Reading every picture of an audit once, and what the model says of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from clearsight.core.ahead import ahead
from clearsight.core.batching import SIZE
from clearsight.core.classifier import Classifier
from clearsight.core.preprocess import Preprocess
from clearsight.data.images import of_bytes
from clearsight.data.records import Picture
from clearsight.data.text_inputs import input_bytes
from clearsight.errors import Refused
from clearsight.internals.probe import Unprobed
from clearsight.internals.scores import scores
from clearsight.internals.soundness import alone
from clearsight.runner.sharded import require_cpu
from clearsight.sharding.shards import hired, spread

Opened = tuple[Tensor, tuple[str, ...]] | Refused  # a picture as bytes (C, *S), and what was mended in it; or why not


def read_and_score(model: Classifier, pictures: Sequence[Picture]) -> Generator[tuple[list[Opened], Tensor | None]]:
    """For each SIZE files what they hold, and the logits (n, K) of the n that can be read; None where none can."""
    batches = [pictures[start : start + SIZE] for start in range(0, len(pictures), SIZE)]
    if hired():
        require_cpu(model)
        shards = (([replace(p, path=p.path.absolute()) for p in batch],) for batch in batches)
        yield from spread(_read_shard, model, shards)
        return
    with closing(ahead(partial(_open, model.preprocess), pictures, most=2 * SIZE)) as files, model.undisturbed():
        for number, batch in enumerate(batches):
            opened = [*islice(files, len(batch))]
            yield opened, _score(model, opened, first=not number)


def _read_shard(model: Classifier, pictures: list[Picture]) -> tuple[list[Opened], Tensor | None]:
    opened = [_open(model.preprocess, picture) for picture in pictures]
    with model.undisturbed():
        return opened, _score(model, opened, first=True)


def _open(preprocess: Preprocess, picture: Picture) -> Opened:
    try:
        return input_bytes(picture, preprocess)
    except Refused as e:
        return e


def _score(model: Classifier, opened: Sequence[Opened], *, first: bool) -> Tensor | None:
    """The logits of the pictures that can be read.  first: whether these are the first that the network sees."""
    values = [found[0] for found in opened if not isinstance(found, Refused)]
    if not values:
        return None
    x = of_bytes(torch.stack(values)).to(model.device)
    if first:
        with suppress(Unprobed):  # what runs on pictures alone can be asked how often it is right
            alone(model, x)
    return scores(model, x)
