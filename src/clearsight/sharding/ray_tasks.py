"""Workers that are tasks of a Ray cluster, on this machine or on many."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterable
from functools import partial
from typing import Any

from clearsight.core import deadline
from clearsight.errors import Refused
from clearsight.sharding.ray_cluster import ray_module
from clearsight.sharding.shards import AT_ONCE, KEPT, TRIES, Kept, Outcome, Shard, Work, Written, lost, work_on

_EVERYWHERE = "every machine of the cluster needs Clearsight and the module of the network, as they are here"


class RayTasks:
    """Tasks of one processor each.  Ray repeats one whose process or machine is lost.

    Args:
        count: how many tasks are under way at a time; None for as many as the cluster has processors.
    """

    def __init__(self, count: int | None = None) -> None:
        self._ray = ray_module("ray")
        cpus = int(self._ray.cluster_resources().get("CPU", 1))
        self._most = count or AT_ONCE * cpus
        self._task = self._ray.remote(num_cpus=1, max_retries=TRIES - 1)(_work_on)
        self._kept: OrderedDict[str, Any] = OrderedDict()  # by key, where in the cluster it lies

    def spread(self, work: Work, kept: Kept, shards: Iterable[Shard]) -> Generator[Outcome]:
        """What became of each shard, in their order.

        OutOfTime: it is too late.  Then, and where nobody asks for the others, the tasks under way are taken back.
        """
        places = [self._put(part) for part in kept.parts]
        under_way: deque[tuple[int, Any]] = deque()
        waiting = enumerate(shards)
        try:
            while True:
                while len(under_way) < self._most and (todo := next(waiting, None)) is not None:
                    under_way.append((todo[0], self._task.remote(work, kept.keys, kept.tasks, places, todo[1])))
                if not under_way:
                    return
                self._ray.wait([under_way[0][1]], timeout=deadline.left())
                deadline.look()
                yield self._outcome(*under_way.popleft())
        finally:
            for _, task in under_way:
                self._ray.cancel(task)

    def _outcome(self, number: int, task: Any) -> Outcome:
        exceptions = ray_module("ray.exceptions")
        try:
            outcome: Outcome = self._ray.get(task)
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError):
            return Outcome(error=lost(number))
        except exceptions.RayError as e:
            words = str(e).strip().splitlines() or [type(e).__name__]
            error = Refused(f"the Ray cluster does not work on shard {number + 1}: {words[-1]}", _EVERYWHERE)
            return Outcome(error=error)
        return outcome

    def _put(self, part: Written) -> Any:
        """Where in the cluster a task finds something; the last of them stay."""
        if part.key not in self._kept:
            self._kept[part.key] = self._ray.put(part.data)
        self._kept.move_to_end(part.key)
        while len(self._kept) > 2 * KEPT:
            self._kept.popitem(last=False)
        return self._kept[part.key]


def _work_on(work: Work, keys: tuple[str, ...], tasks: tuple[int, ...], places: list[Any], shard: Shard) -> Outcome:
    """In the cluster.  places: where what is kept lies, in a list, so that only who needs it fetches it."""
    return work_on(work, keys, tasks, partial(_fetch, places), shard)


def _fetch(places: list[Any], number: int) -> bytes:
    data: bytes = ray_module("ray").get(places[number])
    return data
