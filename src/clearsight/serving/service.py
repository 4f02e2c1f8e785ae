"""A served model with all that answers its requests; the routes are words around it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request

from clearsight.core.processors import processors
from clearsight.errors import Refused
from clearsight.runner.results import Explanation
from clearsight.serving.alone import Alone, is_short
from clearsight.serving.backend import Answers, Backend, Bytes
from clearsight.serving.batcher import Batcher, Timed
from clearsight.serving.bodies import body_of, stated_length
from clearsight.serving.defence import Defence
from clearsight.serving.explanations import Explaining, explainer_call
from clearsight.serving.gate import Gate
from clearsight.serving.keys import Key
from clearsight.serving.measures import Measures
from clearsight.serving.outliers import Reference
from clearsight.serving.pictures import Sent, checked_size, decoded, each, from_array
from clearsight.serving.problems import Problem
from clearsight.serving.settings import Settings, check_hidden


@dataclass(frozen=True)
class Visit:
    """One request: its key (None where nobody needs one), the facts of it that are logged, and its client's address."""

    key: Key | None
    facts: dict[str, Any]
    client: object = None


@dataclass(frozen=True)
class Read:
    """The pictures of one request, and what the model says of them where the thread that read them has asked it."""

    pictures: list[Sent]
    answers: Timed | None = None


class Service:
    """What the routes call.

    Args:
        backend: the model.
        name: what the model is called in addresses; "" takes it from the words that load it.
        settings: limits of a request, and how requests share the model.
        gate: who may ask.
        reference: what the pictures that come are compared with; None compares with nothing.
        defences: what the answers of every route go through, in their order.
        hide: what is not told: "map", "explain", "embed", "outlier".  Where there are defences, features and scores of
            outliers are neither told nor measured, since they say more than the answers that are defended; nor is the
            map of the same pass, where the top class that is told may be another than the model's.

    Refused: defences of a model that gives values, a defence that fails on this model, a reference where scores of
    outliers are not told, and hiding what is not there.
    """

    def __init__(
        self,
        backend: Backend,
        name: str = "",
        settings: Settings | None = None,
        gate: Gate | None = None,
        reference: Reference | None = None,
        defences: Sequence[str] = (),
        hide: Sequence[str] = (),
    ) -> None:
        check_hidden(hide)
        self.hidden = frozenset({*hide, *(("embed", "outlier") if defences else ())})
        if reference is not None and "outlier" in self.hidden:
            raise Refused(
                "a reference measures how unusual pictures are, which defences and hide='outlier' keep back",
                "leave out the reference",
            )
        self.defence = Defence(backend, defences)
        has_map = "map" not in hide and self.defence.keeps_top
        self.backend = backend if has_map else replace(backend, map_shape=None)
        self.name = name or model_name(backend.source)
        self.settings = settings or Settings()
        self.gate = gate or Gate()
        self.reference = reference
        self.alone = Alone()
        self.measures = Measures(backend, lambda: self._batcher.waiting, reference)
        self._batcher = Batcher(
            backend.run,
            backend.run_alone or backend.run,
            self.settings.batch,
            self.settings.wait,
            self.measures.batch,
            backend.threads,
        )
        self._explaining = Explaining(backend, self.settings.explain_seconds)
        self._readers = ThreadPoolExecutor(min(8, processors()), "clearsight-read")
        self.ready = True

    def enter(self, request: Request) -> Visit:
        """Let a request in and count it.  Refused: no right key, or a limit on requests."""
        facts = request.scope.get("state", {}).setdefault("facts", {})
        key = self.gate.key_of(request)
        if key is not None:
            facts["key"] = key.name
        self.gate.take(key, "requests", 1)
        return Visit(key, facts, request.scope.get("client"))

    async def body(self, visit: Visit, request: Request) -> bytes:
        """The body of a request, charged as soon as its length is known.  Refused: as in `bodies`."""
        length = stated_length(request)
        if length is not None and length <= self.settings.most_bytes:
            self.gate.take(visit.key, "bytes", length)
        body = await body_of(request, self.settings)
        if length is None:
            self.gate.take(visit.key, "bytes", len(body))
        visit.facts["bytes"] = len(body)
        return body

    async def read(self, visit: Visit, contents: Sequence[bytes], *, ask: bool) -> Read:
        """Picture files -> pixels.  The size of each is looked at, and charged, before anything is decoded.

        A short picture beside which nobody else is there is worked on in the thread of the event loop, see `alone`; all
        others in threads that read.

        ask: whether the model will be asked about them, which is done at once where nothing else is under way.
        """
        self._check_count(len(contents))
        ask = ask and not self.gate.takes_turns(visit.key)
        short = ask and len(contents) == 1 and is_short(contents[0])
        preprocess, most_pixels = self.backend.preprocess, self.settings.most_pixels

        def decode() -> list[Sent]:
            if len(contents) == 1:  # its head is read once
                return [decoded(contents[0], preprocess, most_pixels, lambda size: self._charge_pixels(visit, [size]))]
            self._charge_pixels(visit, each(contents, lambda content: checked_size(content, most_pixels)))
            return each(contents, lambda content: decoded(content, preprocess, most_pixels))

        def work() -> Read:
            began = time.perf_counter()
            pictures = decode()
            answers = run_at_once(_stacked(pictures)) if ask else None
            if short and answers is not None:
                self.alone.note(time.perf_counter() - began)
            return Read(pictures, answers)

        with self._batcher.coming() as run_at_once:
            if not (short and self.alone.may_keep_the_loop):
                return await asyncio.get_running_loop().run_in_executor(self._readers, work)
            read = work()
            self.alone.kept_the_loop(visit.client)
            return read

    async def resize(self, visit: Visit, pictures: Sequence[np.ndarray[Any, Any]], *, ask: bool) -> Read:
        """Decoded pixels (H, W, C) uint8 -> pixels as the model takes them, in a thread.  ask: as in `read`."""
        self._check_count(len(pictures))
        ask = ask and not self.gate.takes_turns(visit.key)

        def work() -> Read:
            self._charge_pixels(visit, [(p.shape[1], p.shape[0]) for p in pictures if p.ndim > 1])
            resized = each(pictures, lambda picture: from_array(picture, self.backend.preprocess))
            return Read(resized, run_at_once(_stacked(resized)) if ask else None)

        with self._batcher.coming() as run_at_once:
            return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def answer(self, visit: Visit, read: Read) -> Answers:
        """What the model says of pictures, a row for each."""
        answers, seconds = read.answers or await self._ask(visit, read.pictures)
        visit.facts.update(pictures=len(read.pictures), model_seconds=round(seconds, 6))
        if self.defence.calls:
            loop = asyncio.get_running_loop()
            answers = await loop.run_in_executor(self._readers, self.defence.told, visit.key, read.pictures, answers)
        self.measures.answered(answers)  # as they are told: who may read the measures may be whom a defence is against
        return answers

    async def _ask(self, visit: Visit, pictures: Sequence[Sent]) -> Timed:
        async with self.gate.timed(visit.key) as spent:
            answers, seconds = await self._batcher.ask(_stacked(pictures))
            spent.append(seconds)
        return answers, seconds

    def check_told(self, what: str) -> None:
        """Refuse what this server does not tell."""
        if what in self.hidden:
            raise Problem(403, f"this server does not tell what {what} asks for", "ask whoever serves the model")

    async def explain(self, visit: Visit, sent: Sent, spelling: str, target: str | None) -> Explanation:
        """The map of one picture, for the top class that is told where no target is named.

        Refused: as in `Explaining.explain`; a class that the model does not have.
        """
        call = explainer_call(spelling)
        index = None if target is None else self.class_of(target)
        if self.defence.calls:
            answers = await self.answer(visit, Read([sent]))  # a map is an answer too: budgets count it
            if index is None:
                index = int(answers.values[0].argmax())  # the class that is told, which need not be the model's
        async with self.gate.timed(visit.key) as spent:
            explanation = await self._explaining.explain(sent.pixels, call, index)
            spent.append(explanation.seconds)
        visit.facts.update(pictures=1, explainer=call.method.name, model_seconds=round(explanation.seconds, 6))
        return explanation

    def class_of(self, word: str) -> int:
        """The number of a class, by name or number.  Refused: where the model has no such class."""
        if self.backend.classifier is None:
            raise Problem(400, "this model is explained for its top class alone", "leave out target=")
        try:
            return self.backend.classifier.index(word)
        except Problem:
            raise
        except ValueError as e:
            raise Problem(400, str(e)) from e

    def check_name(self, name: str, version: str = "1") -> None:
        """Refuse another model, or another version than the only one."""
        if name != self.name:
            raise Problem(404, f"no model {name[:80]!r}", f"this server has {self.name}")
        if version != "1":
            raise Problem(404, f"the model {self.name} has no version {version[:20]!r}", "its only one is 1")

    def close(self) -> None:
        """Answer what was accepted, and end all threads."""
        self.ready = False
        self._readers.shutdown()
        self._batcher.close()
        self._explaining.close()
        self.gate.close()

    def _charge_pixels(self, visit: Visit, sizes: Sequence[tuple[int, int]]) -> None:
        pixels = sum(width * height for width, height in sizes)
        visit.facts["pixels"] = pixels
        self.gate.take(visit.key, "pixels", pixels)

    def _check_count(self, n: int) -> None:
        if not n:
            raise Problem(400, "the request holds no picture", "send at least one")
        if n > self.settings.most_rows:
            raise Problem(413, f"{n} pictures in one request", f"send at most {self.settings.most_rows}")


def _stacked(pictures: Sequence[Sent]) -> Bytes:
    """Their pixels (n, C, H, W)."""
    return pictures[0].pixels[None] if len(pictures) == 1 else np.stack([s.pixels for s in pictures])


def model_name(source: str) -> str:
    """What a model is called in addresses, from the words that load it.

    >>> model_name("timm:resnet18"), model_name("runs/my model.onnx")
    ('resnet18', 'my-model')
    """
    word = Path(source.rpartition(":")[2] or "model")
    stem = word.stem if word.suffix in (".onnx", ".pt", ".pt2", ".xml", ".py") else word.name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "model"
