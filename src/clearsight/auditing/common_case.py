"""What every case has, whatever its model answers: its pictures, each read once, and samples of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearsight.auditing.clock import Clock
from clearsight.auditing.commands import Commands
from clearsight.auditing.reading import Opened
from clearsight.core import rng
from clearsight.core.batching import SIZE
from clearsight.core.model import Model
from clearsight.core.progress import Progress
from clearsight.core.text import counted
from clearsight.data.images import of_bytes
from clearsight.data.records import Picture, Pictures
from clearsight.data.text_inputs import content, input_bytes, refuse_other_kind, train_texts
from clearsight.errors import Refused
from clearsight.models.model_folder import SPLIT, trained_on
from clearsight.runner.sharded import TOGETHER
from clearsight.sharding.shards import hired

Scored = tuple[list[Opened], Sequence[Any] | Tensor | None]  # of a batch; the answers of those that can be read


class CommonCase(ABC):
    """One model and one set of pictures: what the cases of classifiers, detectors and segmenters have in common.

    The rows of a case count only the pictures that could be read.

    Args:
        model: the model.
        data: the pictures.
        seed: start of all randomness.
        budget: time for the whole audit in seconds, above 0; None without a limit.
        progress: called with what is done, the number done and the total.
        model_words: options with which the command line loaded the model, for the commands that a report quotes.
        data_words: options with which the command line loaded the data, for the same commands.

    Refused: data without a picture that can be read, and a budget of 0 or less.
    """

    def __init__(
        self,
        model: Model,
        data: Pictures,
        *,
        seed: int = 0,
        budget: float | None = None,
        progress: Progress | None = None,
        model_words: Sequence[str] = (),
        data_words: Sequence[str] = (),
    ) -> None:
        if not data.pictures and data.broken:
            name, reason = data.broken[0]
            raise Refused(f"none of the pictures can be read ({name}: {reason})")
        if not data.pictures:
            raise Refused(f"no pictures in {data.root}: an audit needs at least one")
        refuse_other_kind(data, model.preprocess)
        if budget is not None and budget <= 0:
            raise Refused(f"a budget of {budget:g} s: give more than nothing, such as 60s")
        self.model, self.data, self.seed, self.budget = model, data, seed, budget
        self.progress: Progress = progress or (lambda what, done, total: None)
        with rng.seeded(seed, torch.zeros(1, 1)):
            pass
        self.commands = Commands(model.source, str(data.root), seed, tuple(model_words), tuple(data_words))
        self.doing = "reading"
        self.clock = Clock(budget)
        self._class_notes: tuple[str, ...] = ()
        self._cache: dict[int, Tensor] = {}
        self._repairs: dict[str, list[str]] = {}

    # What was read ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _scored(self, pictures: Sequence[Picture]) -> Generator[Scored]:
        """For each batch of files what they hold, and what the model answers to each that can be read."""

    @cached_property
    def _read(self) -> tuple[list[Picture], list[Any], list[tuple[str, str]], int]:
        """Read every picture once: those that can be read, the answers, the broken ones, how many were tried.

        Under a budget the order is a seeded draw, so that what was read in time stands for the rest.
        """
        order = self._seeded_order(len(self.data.pictures)) if self.budget else list(range(len(self.data.pictures)))
        readable: dict[int, Tensor | None] = {}  # as bytes, as far as they are kept
        broken: list[tuple[str, str]] = []
        answers: list[Any] = []
        tried, empty, started = 0, len(self.data.broken), self.clock.now()
        with closing(self._scored([self.data.pictures[i] for i in order])) as batches:
            for opened, of_batch in batches:
                for i, found in zip(order[tried : tried + len(opened)], opened, strict=True):
                    name = self.data.pictures[i].name
                    if isinstance(found, Refused):
                        broken.append((name, str(found)))
                        continue
                    readable[i] = found[0] if len(readable) < self._most_kept else None
                    for repair in found[1]:
                        self._repairs.setdefault(repair, []).append(name)
                tried += len(opened)
                if of_batch is not None:
                    answers.extend(of_batch)
                self.progress("reading", empty + tried, empty + len(order))
                now = self.clock.now()
                if self.clock.is_late(now - started):
                    break
                started = now
        if not readable:
            first = f" ({broken[0][0]}: {broken[0][1]})" if broken else ""
            raise Refused(f"none of the {self.counted(tried)} in {self.data.root} can be read{first}")
        rows = sorted(readable)
        self._cache = {row: kept for row, i in enumerate(rows) if (kept := readable[i]) is not None}
        place = {i: n for n, i in enumerate(readable)}
        return [self.data.pictures[i] for i in rows], [answers[place[i]] for i in rows], broken, tried

    @property
    def _most_kept(self) -> int:
        """How many pictures are kept as bytes: 150 MB of them."""
        return int(1.5e8 / (int(np.prod(self.model.preprocess.size)) * self.model.preprocess.channels))

    @property
    def pictures(self) -> list[Picture]:
        return self._read[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was chosen and skipped in the data, and on pictures that had to be converted."""
        repairs = [
            f"{repair}: {len(names)} ({', '.join(names[:5])})" for repair, names in sorted(self._repairs.items())
        ]
        return (*self.data.notes, *self._class_notes, *repairs, *self._notes_on_reading(), *self.learned)

    def _notes_on_reading(self) -> list[str]:
        """Notes on what of the data the model cannot take in."""
        return []

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """A sentence where the model's own folder says that it was trained on some of these pictures."""
        try:
            if self.data.are_texts:
                known = train_texts(self.model.source)
                count = sum(p.text in known for p in self.pictures)
            else:
                count = len(trained_on(self.model.source, [p.path for p in self.pictures]))
        except Refused as e:
            return (f"Whether the model was trained on some of these {self.thing}s is not known: {e}.",)
        if not count:
            return ()
        return (
            f"The model was trained on {count} of these {self.counted(len(self.pictures))}, so these numbers are "
            f"optimistic: those that it has not seen are {Path(self.model.source) / SPLIT} with --split test.",
        )

    @property
    def thing(self) -> str:
        """What the data are, in a word: "picture" or "text"."""
        return self.data.thing

    def counted(self, n: int, verb: str = "", verbs: str = "") -> str:
        """A number of them with the noun, and a verb behind it: "1 picture", "3 texts are"."""
        return counted(n, f"{self.thing} {verb}".strip(), f"{self.thing}s {verbs}".strip())

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """(name, reason) of every file that had to be left out."""
        return (*self.data.broken, *self._read[2])

    @property
    def tried(self) -> int:
        return self._read[3]

    @cached_property
    def digest(self) -> str:
        """16 hex digits of a hash over the pictures that were read: names, labels, annotations and the files' bytes."""
        h = hashlib.sha256()
        for p in self.pictures:
            facts = (p.name, p.labels, p.regions, sorted(p.columns.items()))
            h.update(repr(facts if p.marks is None else (*facts, p.marks)).encode())
            h.update(hashlib.sha256(content(p)).digest())
            h.update(self._truth_bytes(p))
        return h.hexdigest()[:16]

    def _truth_bytes(self, picture: Picture) -> bytes:
        """What of a picture's truth the digest holds beside its labels and regions."""
        return b""

    # What the checks work on --------------------------------------------------------------------------------------

    def sample(self, rows: Sequence[int], most: int) -> list[int]:
        """A seeded draw of at most ``most`` of the rows; the same draw for every check."""
        if most < 1:
            raise Refused(f"pictures={most}: at least one {self.thing}")
        keep = set(rows)
        return [i for i in self._seeded_order(len(self.pictures)) if i in keep][:most]

    def batches(self, rows: Sequence[int], size: int | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """(rows, pixels (B, C, *S)) a few at a time, until the check's share of the budget is used up.

        At least one batch always comes.  A check counts what it got: that is its n.
        """
        first = later = size or _usual_size()
        if self.budget:  # which may allow no more than one
            first, later = 1, min(later, _usual_size() // 4)
        start = 0
        while start < len(rows):
            started = self.clock.now()
            rows_of_batch = list(rows[start : start + (later if start else first)])
            yield rows_of_batch, self.pixels(rows_of_batch)
            start += len(rows_of_batch)
            self.progress(self.doing, start, len(rows))
            if self.clock.is_late((self.clock.now() - started) / len(rows_of_batch) * later):
                return

    def lots(self, rows: Sequence[int], size: int | None = None) -> Iterator[tuple[list[int], Tensor]]:
        """Like batches, but always all of the rows, however late it is: for results that need every row."""
        size = size or _usual_size()
        for start in range(0, len(rows), size):
            rows_of_batch = list(rows[start : start + size])
            yield rows_of_batch, self.pixels(rows_of_batch)

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """(B, C, *S) in [0, 1].  150 MB of them are kept, as bytes, which is what files hold."""
        images = []
        for i in rows:
            if i not in self._cache:
                if len(self._cache) > self._most_kept:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[i] = input_bytes(self.pictures[i], self.model.preprocess)[0]
            images.append(self._cache[i])
        return of_bytes(torch.stack(images))

    def _seeded_order(self, n: int) -> list[int]:
        return [int(i) for i in torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))]


def _usual_size() -> int:
    """How many pictures a check gets at a time: more where workers share them."""
    return TOGETHER if hired() else SIZE
