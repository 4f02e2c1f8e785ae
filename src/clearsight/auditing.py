"""audit: a case in, findings out, one check at a time; what the checks share is computed once."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from clearsight import draws
from clearsight.annotations import region_mask
from clearsight.batching import SIZE
from clearsight.classifier import Classifier
from clearsight.data import Picture, Pictures, open_data, truth
from clearsight.errors import Refused, nearest
from clearsight.methods import Call, catalogue, parse, split_calls
from clearsight.pictures import open_picture, to_pixels
from clearsight.runner import explain, resolve, scores
from clearsight.statistics import Interval
from clearsight.targets import ClassScore

if TYPE_CHECKING:
    from clearsight.report import Report

Verdict = Literal["pass", "warn", "fail", "note", "error"]
Cell = str | int | float | None
Progress = Callable[[str, int, int], None]  # what is being done, how many pictures of how many


@dataclass(frozen=True)
class Figure:
    """A chart (.svg) or a picture (.png) of the report.  name: its file under figures/; alt: it in words."""

    name: str
    data: bytes
    caption: str
    alt: str


@dataclass(frozen=True)
class Table:
    """Rows with the same columns, in the order in which they are to be read."""

    caption: str
    rows: tuple[dict[str, Cell], ...]


@dataclass(frozen=True)
class Evidence:
    """One picture of the data with what was found on it, and the command that shows it again."""

    picture: str
    figure: Figure
    facts: dict[str, Cell]
    command: str


@dataclass(frozen=True)
class Finding:
    """What one check found.

    verdict: pass, fail, warn (too few pictures to say, or in between), note (nothing to judge), error.
    headline: one sentence with the numbers in it.  quantity: what `value` is, in two or three words.
    unit: "share" (0 to 1, shown as per cent) or "" (a plain number).  interval: 95 %; n: pictures the value rests on.
    The rest is filled in by the audit: check (its spelling), command, seconds, planned.
    """

    verdict: Verdict
    headline: str
    quantity: str = ""
    value: float | None = None
    interval: Interval | None = None
    n: int = 0
    unit: Literal["share", ""] = "share"
    chance: float | None = None  # what the value would be without any skill
    notes: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    check: str = ""
    summary: str = ""
    paper: str = ""
    command: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The check without its options."""
        return self.check.partition("(")[0]


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
        return truth(dataclasses.replace(self.data, pictures=tuple(self.pictures)), self.model)

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


def chosen(only: str | Sequence[str] | None) -> list[Call]:
    """The checks asked for, in the catalogue's order of importance; all of them where none is named."""
    if only is None:
        return [Call(m) for m in ordered(catalogue("checks"))]
    words = split_calls(only) if isinstance(only, str) else [w for part in only for w in split_calls(part)]
    if not words:
        raise Refused(f"no check is named: {nearest('', catalogue('checks'))}")
    return [parse(w, "checks") for w in words]


def ordered(checks: Mapping[str, Any]) -> list[Any]:
    """First whether it is right, then whether for the right reason, then whether it stays right."""
    first = ("accuracy", "calibration", "looks-at-the-object", "faithfulness", "sanity", "robustness")
    names = sorted(checks, key=lambda n: (first.index(n) if n in first else len(first), n))
    return [checks[n] for n in names]


def run_checks(case: Case, calls: Sequence[Call], done: Mapping[str, Finding] | None = None) -> Iterator[Finding]:
    """One finding for each check, as soon as it is there.  An exception inside a check is its finding.

    done: findings of an earlier run of the same case, by the check's spelling; they are given again as they are.
    """
    done = done or {}
    end = time.monotonic() + case.budget if case.budget else None
    todo = [c for c in calls if str(c) not in done]
    if todo:
        _share(case, end, len(todo) + 1)
        _ = case.pictures
    for call in calls:
        if str(call) in done:
            yield done[str(call)]
            continue
        _share(case, end, len(todo) - todo.index(call))
        case.doing = call.method.name
        began = time.monotonic()
        try:
            with draws.seeded(case.seed, torch.zeros(1, 1)):
                found: Finding = call.method(case, **call.options)
        except Exception as e:  # shown in the report and in the exit status, never swallowed
            words = str(e) if isinstance(e, Refused) else f"{type(e).__name__}: {e}"
            found = Finding("error", words.partition("\n")[0])
        nth = 1 + [c.method.name for c in calls[: calls.index(call)]].count(call.method.name)
        yield dataclasses.replace(
            _numbered(found, nth),
            check=str(call),
            summary=call.method.summary,
            paper=call.method.paper,
            seconds=round(time.monotonic() - began, 3),
        )


def _numbered(found: Finding, nth: int) -> Finding:
    """The finding with other names for its figures, where the same check with other options was run before."""
    if nth == 1:
        return found

    def other(g: Figure) -> Figure:
        return dataclasses.replace(g, name=f"{nth}-{g.name}")

    evidence = tuple(dataclasses.replace(e, figure=other(e.figure)) for e in found.evidence)
    return dataclasses.replace(found, figures=tuple(map(other, found.figures)), evidence=evidence)


def _share(case: Case, end: float | None, parts: int) -> None:
    """The time left is divided equally among the checks left."""
    if end is not None:
        now = time.monotonic()
        case.deadline = now + max(end - now, 0) / parts


def audit(
    model: Classifier,
    data: Pictures | str | Path = "demo",
    *,
    only: str | Sequence[str] | None = None,
    method: str = "auto",
    seed: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
) -> Report:
    """Every check, or those named in ``only`` ("accuracy, robustness(steps=40)"), on the pictures -> a Report.

    data: what ``folder`` gives, or the words that the command line takes ("demo", "photos/").  method: the explainer
    that the checks use; budget: seconds; progress: called with what is done, done, total.
    """
    from clearsight.report import make

    pictures = data if isinstance(data, Pictures) else open_data(data)
    case = Case(model, pictures, seed=seed, budget=budget, method=method, progress=progress)
    calls = chosen(only)
    began = time.monotonic()
    return make(case, list(run_checks(case, calls)), seconds=time.monotonic() - began)
