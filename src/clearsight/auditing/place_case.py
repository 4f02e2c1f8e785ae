"""What the cases of detectors and segmenters have in common: outputs of each picture, computed once and not kept."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from clearsight._version import __version__
from clearsight.auditing.common_case import CommonCase, Scored
from clearsight.auditing.reading import Opened
from clearsight.core.ahead import ahead
from clearsight.core.batching import SIZE
from clearsight.core.model import Model
from clearsight.core.preprocess import Preprocess
from clearsight.data.images import of_bytes
from clearsight.data.records import Picture, Pictures
from clearsight.data.text_inputs import input_bytes
from clearsight.errors import NotFinite, Refused
from clearsight.runner.sharded import require_cpu
from clearsight.sharding.shards import hired, spread


class PlaceCase(CommonCase):
    """One detector or segmenter and one set of pictures with the truth about places in them.

    Pictures go through the network once, a few at a time, and of the outputs only what `_judge` returns is kept.  A
    check that needs the outputs of some pictures again asks for them.
    """

    requested_method = ""  # no check of places uses an explainer
    method_words = ""
    method = ""
    signed = False
    maps_used = False
    chosen_explainer = ""

    @abstractmethod
    def _judge(self, picture: Picture, outputs: Tensor) -> Any:
        """What is kept of the outputs (1, ...) for one picture, beside its truth; `Refused` where that is broken."""

    def outputs(self, x: Tensor) -> Tensor:
        """The outputs for pictures x (B, C, H, W) in [0, 1], on the CPU, without a graph.  Refused: not finite."""
        return _outputs(self.model, x)

    def _scored(self, pictures: Sequence[Picture]) -> Generator[Scored]:
        batches = [pictures[start : start + SIZE] for start in range(0, len(pictures), SIZE)]
        with closing(_read_and_run(self.model, batches)) as results:
            for batch, (opened, outputs) in zip(batches, results, strict=True):
                if outputs is None:
                    yield opened, None
                    continue
                readable = [i for i, found in enumerate(opened) if not isinstance(found, Refused)]
                answers = []
                for n, i in enumerate(readable):
                    try:
                        answers.append(self._judge(batch[i], outputs[n : n + 1]))
                    except Refused as e:  # its truth cannot be read: the picture is left out, and named
                        opened[i] = e
                yield opened, answers

    @property
    def answers(self) -> list[Any]:
        """What was kept of each picture, in the order of ``pictures``."""
        return self._read[1]

    @cached_property
    def key(self) -> str:
        """16 hex digits of a hash over all that findings depend on but the checks' own options and the budget."""
        m = self.model
        identity = (__version__, m.fingerprint(), m.labels, m.preprocess, m.reading, self.digest, self.seed)
        return hashlib.sha256(repr(identity).encode()).hexdigest()[:16]

    @property
    @abstractmethod
    def annotated(self) -> list[int]:
        """The rows of pictures that show an object."""

    @property
    def labelled(self) -> list[int]:
        """The rows with a truth: all of them."""
        return list(range(len(self.pictures)))


def class_numbers(data: Pictures, labels: Sequence[str], index: Any) -> list[int]:
    """The class of the model for each class of the data.

    Refused: a class that the model does not know, by name.
    """
    numbers = []
    for word in data.objects:
        try:  # numbers that are names on both sides need no word on how they are read
            numbers.append(labels.index(word) if labels.count(word) == 1 else index(word))
        except Refused as e:
            raise Refused(
                f"the data have the class {word!r}, and {e}",
                f"the model's classes are {', '.join(labels[:9])}: name the data's classes as the model does (labels=)",
            ) from None
    return numbers


def name_order(labels: Sequence[str]) -> Tensor:
    """The place of each class in the alphabet: a number that models with their classes in another order share.

    >>> name_order(("cell", "blob")).tolist()
    [1, 0]
    """
    alphabet = sorted(labels)
    return torch.tensor([alphabet.index(label) for label in labels], dtype=torch.int64)


def _read_and_run(model: Model, batches: Sequence[Sequence[Picture]]) -> Generator[tuple[list[Opened], Tensor | None]]:
    """For each batch of files what they hold, and the outputs of those that can be read; None where none can."""
    if hired():
        require_cpu(model)
        shards = (([replace(p, path=p.path.absolute()) for p in batch],) for batch in batches)
        yield from spread(_run_shard, model, shards)
        return
    pictures = [p for batch in batches for p in batch]
    with closing(ahead(partial(_open, model.preprocess), pictures, most=2 * SIZE)) as files:
        for batch in batches:
            opened: list[Opened] = [*islice(files, len(batch))]
            yield opened, _run(model, opened)


def _run_shard(model: Model, pictures: list[Picture]) -> tuple[list[Opened], Tensor | None]:
    opened = [_open(model.preprocess, picture) for picture in pictures]
    return opened, _run(model, opened)


def _run(model: Model, opened: Sequence[Opened]) -> Tensor | None:
    values = [found[0] for found in opened if not isinstance(found, Refused)]
    return _outputs(model, of_bytes(torch.stack(values))) if values else None


def _outputs(model: Model, x: Tensor) -> Tensor:
    with model.undisturbed(), torch.no_grad():
        out = model(x.to(model.device)).float().cpu()
    if not bool(out.isfinite().all()):
        raise NotFinite("the outputs of the model are not finite", "look at its weights and its preprocessing")
    return out


def _open(preprocess: Preprocess, picture: Picture) -> Opened:
    try:
        return input_bytes(picture, preprocess)
    except Refused as e:
        return e
