"""Random numbers that belong to the picture, so that batch size, order and neighbours cannot show in a result.

The runner opens ``seeded``; methods draw with ``uniform`` and ``normal``.  Each picture has its own generator, seeded
by the seed, by its pixels and by the method, and drawn from in the order in which the method asks.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearsight.core.weight_digest import version
from clearsight.errors import Refused

_nothing = nullcontext()
_generators: ContextVar[Sequence[torch.Generator] | None] = ContextVar("generators", default=None)
_held: ContextVar[bool] = ContextVar("held", default=False)


def gpus() -> list[int]:
    """The CUDA devices in use, whose generators ``seed_torch`` seeds as well."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def seed_torch(seed: int) -> None:
    """Seed torch's global generators of the CPU and of the devices in use.

    ``torch.manual_seed`` seeds a GPU that nobody uses yet as well: it keeps the seed for later, where ``fork_rng`` does
    not take it back, and writes down the whole call stack for it, which takes up to a millisecond (torch 2.14).
    """
    torch.default_generator.manual_seed(seed)
    if gpus():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


class _OfPictures(Sequence[torch.Generator]):
    """A generator for each picture, made when it is first asked for: many methods draw nothing."""

    def __init__(self, seed: int, x: Tensor, what: str) -> None:
        self.seed, self.x, self.written, self.what = seed, x.detach(), version(x), what
        self.made: dict[int, torch.Generator] = {}

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: Any) -> Any:
        if i not in self.made:
            if version(self.x) != self.written:
                raise RuntimeError("the pictures that random numbers belong to were changed: work on a clone")
            purpose = hashlib.blake2b(self.what.encode(), digest_size=8).digest()
            k = hashlib.blake2b(self.pixels[i].data, digest_size=7, key=purpose).digest()
            number = (int.from_bytes(k, "big") ^ self.seed) & (2**63 - 1)
            self.made[i] = torch.Generator().manual_seed(number)
        return self.made[i]

    @cached_property
    def pixels(self) -> Any:
        """The pictures as an array, each in one piece."""
        return self.x.cpu().contiguous().numpy()


@contextmanager
def seeded(seed: int, x: Tensor, what: str = "", *, in_step: bool = False) -> Iterator[None]:
    """One generator for each picture of x (B, ...); every global generator is seeded too, and given back as it was.

    what: for whom is drawn, so that what two methods draw for one picture has nothing to do with each other.
    in_step: part of a step of work that holds Python's and NumPy's generators (see ``held``): these just go on.
    """
    if not 0 <= seed < 2**63:
        raise Refused(f"seed {seed}: give a whole number from 0 to 2**63 - 1")
    devices, cpu, goes_on = gpus(), torch.default_generator.get_state(), in_step and _held.get()
    token = _generators.set(_OfPictures(seed, x, what))
    try:
        with _nothing if goes_on else held(), torch.random.fork_rng(devices=devices) if devices else _nothing:
            seed_torch(seed) if goes_on else seed_all(seed)
            yield
    finally:
        _generators.reset(token)
        torch.default_generator.set_state(cpu)


@contextmanager
def held() -> Iterator[None]:
    """Python's and NumPy's global generators are given back as they were, which takes a tenth of a millisecond.

    Work of many short steps does that once.  It seeds all generators at each step (``seed_all``), and what a step calls
    asks for ``seeded(in_step=True)``.
    """
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    token = _held.set(True)
    try:
        yield
    finally:
        _held.reset(token)
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def reseeded(seed: int, x: Tensor, what: str = "") -> Iterator[None]:
    """The same for a part of the pictures inside ``seeded``, which alone gives the global generators back."""
    token = _generators.set(_OfPictures(seed, x, what))
    try:
        seed_all(seed)
        yield
    finally:
        _generators.reset(token)


def seed_all(seed: int) -> None:
    """Seed the global generators of torch, Python and NumPy."""
    seed_torch(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def uniform(like: Tensor, rows: Tensor | None = None) -> Tensor:
    """Numbers in [0, 1) of the shape of ``like`` (n, ...); rows (n,) says which picture each belongs to."""
    return _draw(like, rows, normal=False)


def normal(like: Tensor, rows: Tensor | None = None) -> Tensor:
    """Standard normal numbers of the shape of ``like`` (n, ...); rows (n,) says which picture each belongs to."""
    return _draw(like, rows, normal=True)


@contextmanager
def for_versions(rows: Tensor, versions: Tensor | None = None) -> Iterator[None]:
    """For a method that runs another one on versions of its pictures: rows (n,) says of which picture each one is.

    versions (n,): their numbers.  Each then has a generator of its own, so that what is drawn for it does not depend on
    how many versions are run at a time, nor on what is drawn in between; the same number gives the same draws again.
    """
    generators = _generators.get()
    of_versions = None if generators is None else [generators[i] for i in rows.tolist()]
    if of_versions is not None and versions is not None:
        of_versions = [_version(g, k) for g, k in zip(of_versions, versions.tolist(), strict=True)]
    token = _generators.set(of_versions)
    try:
        yield
    finally:
        _generators.reset(token)


def _version(picture: torch.Generator, number: int) -> torch.Generator:
    """A generator of one version's own, which follows from how its picture's was seeded."""
    words = f"{picture.initial_seed()} {number}"
    key = hashlib.blake2b(words.encode(), digest_size=7, person=b"version").digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "big"))


def _draw(like: Tensor, rows: Tensor | None, *, normal: bool) -> Tensor:
    generators = _generators.get()
    if generators is None:  # a method called by itself, outside the runner
        draw = torch.randn if normal else torch.rand
        return draw(like.shape, dtype=like.dtype, device=like.device)
    which = range(len(like)) if rows is None else rows.tolist()
    if rows is None and len(like) != len(generators):
        raise ValueError(f"a draw for {len(like)} rows of a batch of {len(generators)}: say which with rows=")
    draws = torch.empty(len(which), *like.shape[1:], dtype=like.dtype)
    for i, row in zip(which, draws.unbind(0), strict=True):
        row.normal_(generator=generators[i]) if normal else row.uniform_(generator=generators[i])
    return draws.to(like.device)
