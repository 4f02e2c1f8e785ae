"""What a method can say about its own map in numbers: residuals, the threshold it chose.  The runner keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

SHARE = "completeness residual as a share of the difference"
Receipts = dict[str, list[Tensor]]
_book: ContextVar[Receipts | None] = ContextVar("book", default=None)


def note(name: str, values: Tensor) -> None:
    """Keep one number per picture, values (B,), under a name such as "completeness residual"."""
    book = _book.get()
    if book is not None:
        book.setdefault(name, []).append(values.detach().float().cpu())


def wanted() -> bool:
    """Whether notes are kept; methods skip notes that cost passes if they are not."""
    return _book.get() is not None


@contextmanager
def collected() -> Iterator[Receipts]:
    """What is noted inside, by name, in the order in which it was noted."""
    book: Receipts = {}
    token = _book.set(book)
    try:
        yield book
    finally:
        _book.reset(token)


@contextmanager
def silent() -> Iterator[None]:
    """Nothing noted inside is kept: for methods that run another one on copies of the picture."""
    token = _book.set(None)
    try:
        yield
    finally:
        _book.reset(token)


def joined(book: Receipts) -> dict[str, Tensor]:
    """One tensor for each name."""
    return {name: torch.cat(parts) for name, parts in book.items()}
