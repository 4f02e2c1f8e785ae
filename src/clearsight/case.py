"""One model and one set of pictures, as the checks see them; what they share is computed once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from clearsight.annotations import region_mask
from clearsight.batching import SIZE
from clearsight.classifier import Classifier
from clearsight.data import Picture, Pictures, truth
from clearsight.errors import Refused
from clearsight.methods import Call, parse
from clearsight.pictures import open_picture, to_pixels
from clearsight.runner import explain, resolve, scores
from clearsight.targets import ClassScore

Progress = Callable[[str, int, int], None]  # what is being done, how many pictures of how many


class Case:
    """One model and one set of pictures, as the checks see them.

    data: the pictures; rows below count only those that could be read.  seed: all randomness follows from it.
    budget: seconds for the whole audit, None without a limit.  method: the explainer that the checks use; "auto" is
    grad-cam where the network has feature maps for it, else integrated-gradients.
    """

    def __init__(
        self,
        model: Classifier,
        data: Pictures,
        *,
        seed: int = 0,
        budget: float | None = None,
        method: str = "auto",
        progress: Progress | None = None,
    ) -> None:
        if not data.pictures:
            raise Refused(f"no pictures in {data.root}: an audit needs at least one")
        if budget is not None and budget <= 0:
            raise Refused(f"a budget of {budget:g} s: give more than nothing, such as 60s")
        self.model, self.data, self.seed, self.budget = model, data, seed, budget
        self._method = method
        self.progress: Progress = progress or (lambda what, done, total: None)
        self._truth = truth(
            data, model
        )  # here, so that a class that the model does not know is refused before any work
        self.doing = "reading"
        self.deadline: float | None = None
        self._cache: dict[int, Tensor] = {}
        self._maps: dict[tuple[str, int], Tensor] = {}

    # What was read ------------------------------------------------------------------------------------------------

    @cached_property
    def _read(self) -> tuple[list[Picture], Tensor, list[tuple[str, str]], int]:
        """Read every picture once: those that can be read, their logits (N, K), the broken ones, how many were tried.

        Under a budget the order is a seeded draw, so that what was read in time stands for the rest.
        """
        order = self._order(len(self.data.pictures)) if self.budget else list(range(len(self.data.pictures)))
        good: list[int] = []
        broken: list[tuple[str, str]] = []
        logits: list[Tensor] = []
        tried = 0
        with self.model.undisturbed():
            for start in range(0, len(order), SIZE):
                began = time.monotonic()
                x = []
                for i in order[start : start + SIZE]:
                    tried += 1
                    picture = self.data.pictures[i]
                    try:
                        x.append(to_pixels(open_picture(picture.path), self.model.preprocess))
                        good.append(i)
                    except Refused as e:
                        broken.append((picture.name, str(e)))
                if x:
                    logits.append(scores(self.model, torch.stack(x).to(self.model.device)))
                self.progress("reading", tried, len(order))
                if self._late(time.monotonic() - began):
                    break
        if not good:
            first = f" ({broken[0][0]}: {broken[0][1]})" if broken else ""
            raise Refused(f"none of the {tried} pictures in {self.data.root} can be read{first}")
        rank = sorted(range(len(good)), key=good.__getitem__)
        return [self.data.pictures[good[i]] for i in rank], torch.cat(logits)[rank], broken, tried

    @property
    def pictures(self) -> list[Picture]:
        return self._read[0]

    @property
    def logits(self) -> Tensor:
        """(N, K), float32, on the CPU."""
        return self._read[1]

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
            h.update(repr((p.name, p.labels, p.regions, sorted(p.columns.items()))).encode())
            h.update(hashlib.sha256(p.path.read_bytes()).digest())
        return h.hexdigest()[:16]

    @cached_property
    def truth(self) -> Tensor:
        """(N, K) bool: the acceptable classes; a row without any has no label."""
        rows = {p.name: i for i, p in enumerate(self.data.pictures)}
        return self._truth[[rows[p.name] for p in self.pictures]]

    @cached_property
    def labelled(self) -> list[int]:
        """The rows that have a label."""
        return [int(i) for i in self.truth.any(1).nonzero()[:, 0]]

    @property
    def predicted(self) -> Tensor:
        """(N,) the top class."""
        return self.logits.argmax(1)

    @property
    def right(self) -> Tensor:
        """(N,) bool: the top class is acceptable; False where there is no label."""
        return self.truth.gather(1, self.predicted[:, None])[:, 0]

    def label(self, row: int) -> str:
        """The top class of a picture, in a word."""
        return self.model.labels[int(self.predicted[row])].partition(",")[0]

    def wanted(self, row: int) -> str:
        """Its acceptable classes, in words."""
        return " or ".join(self.model.labels[int(k)].partition(",")[0] for k in self.truth[row].nonzero()[:, 0])

    # What the checks work on --------------------------------------------------------------------------------------

    def sample(self, rows: Sequence[int], most: int) -> list[int]:
        """At most so many of the rows, by a seeded draw; the same draw for every check."""
        keep = set(rows)
        return [i for i in self._order(len(self.pictures)) if i in keep][:most]

    def batches(self, rows: Sequence[int], size: int = SIZE) -> Iterator[tuple[list[int], Tensor]]:
        """(rows, pixels (B, C, *S)) a few at a time, until the check's share of the budget is used up.

        At least one batch always comes.  A check counts what it got: that is its n.
        """
        size = min(size, 4) if self.budget else size
        for start in range(0, len(rows), size):
            began = time.monotonic()
            part = list(rows[start : start + size])
            yield part, self.pixels(part)
            self.progress(self.doing, start + len(part), len(rows))
            if self._late(time.monotonic() - began):
                return

    def pixels(self, rows: Sequence[int]) -> Tensor:
        """(B, C, *S) in [0, 1].  The last gigabyte or so is kept, as bytes, which is what files hold."""
        out = []
        for i in rows:
            if i not in self._cache:
                if len(self._cache) * int(np.prod(self.model.preprocess.size)) * self.model.preprocess.channels > 5e8:
                    self._cache.pop(next(iter(self._cache)))
                x = to_pixels(open_picture(self.pictures[i].path), self.model.preprocess)
                self._cache[i] = (x * 255).round().to(torch.uint8)
            out.append(self._cache[i])
        return torch.stack(out).float() / 255

    @cached_property
    def method(self) -> Call:
        """The explainer that the checks use, with its layer named."""
        x = self.pixels([0]).to(self.model.device)
        try:
            return resolve(self.model, x, parse("grad-cam" if self._method == "auto" else self._method, "explainers"))
        except Refused:
            if self._method != "auto":
                raise
            return parse("integrated-gradients", "explainers")

    def maps(self, rows: Sequence[int], x: Tensor) -> Tensor:
        """Why the top class: the maps (B, *S) of the case's method for its logit; each is computed once."""
        todo = [j for j, i in enumerate(rows) if (str(self.method), i) not in self._maps]
        if todo:
            top = ClassScore(self.predicted[[rows[j] for j in todo]])
            found = explain(self.model, x[todo], self.method, top, seed=self.seed).maps
            self._maps |= {(str(self.method), rows[j]): m for j, m in zip(todo, found, strict=True)}
        return torch.stack([self._maps[str(self.method), i] for i in rows])

    @cached_property
    def annotated(self) -> list[int]:
        """The rows with boxes or masks."""
        return [i for i, p in enumerate(self.pictures) if p.regions]

    def regions(self, rows: Sequence[int]) -> Tensor:
        """(B, *S) bool: where the annotated object is, in the model's input."""
        masks = []
        for i in rows:
            p = self.pictures[i]
            masks.append(region_mask(p.regions or (), open_picture(p.path).size, self.model.preprocess))
        return torch.stack(masks)

    def show(self, row: int, *, method: Call | None = None) -> str:
        """The command that draws this picture's map again."""
        call = method or self.method
        words = f'"{call}"' if call.options else str(call)
        return f"clearsight explain {self.model.source or 'MODEL'} {self.place(row)} -m {words}"

    def place(self, row: int) -> str:
        """How the command line names a picture."""
        p = self.pictures[row]
        return f"demo:{p.name}" if str(self.data.root).partition(":")[0] == "demo" else str(p.path)

    def _order(self, n: int) -> list[int]:
        return [int(i) for i in torch.randperm(n, generator=torch.Generator().manual_seed(self.seed))]

    def _late(self, last: float) -> bool:
        """Would another batch like the last one end after the deadline?"""
        return self.deadline is not None and time.monotonic() + last > self.deadline
