"""Work that is the same for every shard of pictures, and the workers that do it.

Workers are hired for a while.  Then `spread` hands them one shard after another, and gives the results in the order of
the shards.  How pictures are cut does not depend on how many workers there are, and every worker computes in one
thread: so neither does a result, to the bit.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import nn

from clearsight.core.memory import reuse_memory
from clearsight.core.model import Model
from clearsight.core.passes import Passes, counted, note_elsewhere
from clearsight.core.remembered import once, remembering_for, tasks
from clearsight.errors import Notice, Refused

Work = Callable[..., Any]  # (kept, *shard) -> result; a function at the top of a module
Shard = tuple[Any, ...]
AT_ONCE = 4  # shards that are under way or waiting to be taken, for each worker
KEPT = 4  # things that a worker keeps in memory because they were the same for all shards, such as networks
_IMPORTABLE = "define its classes and functions at the top of a module that can be imported, or work without workers"
TRIES = 3  # how often a shard is worked on whose worker is lost


class Workers(Protocol):
    """Who works on shards."""

    def spread(self, work: Work, kept: Kept, shards: Iterable[Shard]) -> Generator[Outcome]:
        """What became of each shard, in their order."""
        ...


@dataclass(frozen=True, eq=False)
class Written:
    """Something as another process reads it; the same thing has the same key."""

    data: bytes

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, eq=False)
class Kept:
    """What is the same for all shards: the model and the rest, each written once, and read once by each worker.

    tasks: for which things are remembered (see `remembering`).
    """

    parts: tuple[Written, ...]
    tasks: tuple[int, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(part.key for part in self.parts)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a shard: its result, or the error that it ended with; the Notices given, and the passes made."""

    result: Any = None
    error: Exception | None = None
    notices: tuple[str, ...] = ()
    passes: Passes | None = None


@dataclass
class _Hired:
    workers: Workers | None = None
    told: set[str] = field(default_factory=set)


_hired: ContextVar[_Hired] = ContextVar("hired", default=_Hired())  # noqa: B039 (nothing is written into this one)
kept_here: OrderedDict[str, Any] = OrderedDict()  # by key, in a worker: what it keeps


def hired() -> bool:
    """Whether workers wait for shards."""
    return _hired.get().workers is not None


@contextmanager
def hiring(workers: Workers) -> Iterator[None]:
    """Inside, these workers take the shards.  This process, too, computes in one thread."""
    token, threads = _hired.set(_Hired(workers)), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _hired.reset(token)


def spread(work: Work, kept: object, shards: Iterable[Shard]) -> Iterator[Any]:
    """work(kept, *shard) for each shard, in their order; by the workers, where some are hired, else here.

    An error of a shard is raised where its result would stand.  OutOfTime: it is too late (see deadline.py), and shards
    that are under way are given up.  Refused: what cannot be sent to another process.
    """
    hiring_of_now = _hired.get()
    if hiring_of_now.workers is None:
        for shard in shards:
            yield work(kept, *shard)
        return
    with closing(hiring_of_now.workers.spread(work, Kept(_written(kept), tasks()), shards)) as outcomes:
        for outcome in outcomes:
            for notice in outcome.notices:
                if notice not in hiring_of_now.told:  # one network is the same in every worker
                    hiring_of_now.told.add(notice)
                    warnings.warn(notice, Notice, stacklevel=2)
            if outcome.passes is not None and (net := _network(kept)) is not None:
                note_elsewhere(net, outcome.passes)
            if outcome.error is not None:
                raise outcome.error
            yield outcome.result


def _written(kept: object) -> tuple[Written, ...]:
    """The first thing kept and the rest; a model that is taken not to change is written once."""
    parts = (kept[0], kept[1:]) if isinstance(kept, tuple) else (kept,)
    first = parts[0]
    if isinstance(first, Model):
        facts = (type(first), *(getattr(first, f.name) for f in fields(first) if f.name != "net"))
        return once(first.net, ("written", facts), lambda: _write(first), longest=True), *map(_write, parts[1:])
    return tuple(map(_write, parts))


def _write(part: object) -> Written:
    try:
        return Written(pickle.dumps(part, protocol=pickle.HIGHEST_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, NotImplementedError) as e:
        message = str(e).partition("\n")[0]
        raise Refused(
            f"the network cannot be sent to other processes ({type(e).__name__}: {message})", _IMPORTABLE
        ) from e


def _network(kept: object) -> nn.Module | None:
    """The network that the work is about: that of the first thing kept."""
    first = kept[0] if isinstance(kept, tuple) else kept
    return first.net if isinstance(first, Model) else None


def lost(shard: int) -> Refused:
    """The error of a shard whose workers were lost each time."""
    return Refused(
        f"the process that worked on shard {shard + 1} was lost {TRIES} times",
        "the memory may have run out: take fewer workers",
    )


# In a worker ----------------------------------------------------------------------------------------------------------


def work_on(
    work: Work, keys: tuple[str, ...], tasks: tuple[int, ...], read: Callable[[int], bytes], shard: Shard
) -> Outcome:
    """What becomes of one shard in this process.

    keys, tasks: those of what is kept; read: gives the bytes of one of its parts, if they are not known yet.
    """
    torch.set_num_threads(1)
    reuse_memory()
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always", Notice)
        try:
            parts = [_keep(key, partial(read, number)) for number, key in enumerate(keys)]
        except Exception as e:
            message = f"{type(e).__name__}: {str(e).partition(chr(10))[0]}"
            return Outcome(error=Refused(f"the network cannot be read in another process ({message})", _IMPORTABLE))
        kept = (parts[0], *parts[1]) if len(parts) > 1 else parts[0]
        net = _network(kept)
        try:
            with remembering_for(tasks), nullcontext(None) if net is None else counted(net) as passes:
                result, error = work(kept, *shard), None
        except Exception as e:
            result, error = None, e
    notices = tuple(str(w.message) for w in given if issubclass(w.category, Notice))
    return Outcome(result, error, notices, None if passes is None else replace(passes, of=None))


def _keep(key: str, read: Callable[[], bytes]) -> Any:
    """What is the same for all shards; the last KEPT of them stay."""
    if key not in kept_here:
        kept_here[key] = pickle.loads(read())
    kept_here.move_to_end(key)
    while len(kept_here) > KEPT:
        kept_here.popitem(last=False)
    return kept_here[key]
