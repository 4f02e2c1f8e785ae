"""Workers that are tasks of a Ray cluster, on this machine or on many."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from clearsight.sharding.ray_cluster import ray_module
from clearsight.sharding.shards import AT_ONCE, KEPT, TRIES, Kept, Outcome, Shard, Work, lost, work_on


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

    def spread(self, work: Work, kept: Kept, shards: Iterable[Shard]) -> Iterator[Outcome]:
        """What became of each shard, in their order."""
        place = self._put(kept)
        under_way: deque[tuple[int, Any]] = deque()
        waiting = enumerate(shards)
        while True:
            while len(under_way) < self._most and (todo := next(waiting, None)) is not None:
                under_way.append((todo[0], self._task.remote(work, kept.key, kept.task, [place], todo[1])))
            if not under_way:
                return
            yield self._outcome(*under_way.popleft())

    def _outcome(self, number: int, task: Any) -> Outcome:
        exceptions = ray_module("ray.exceptions")
        try:
            outcome: Outcome = self._ray.get(task)
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.OutOfMemoryError):
            return Outcome(error=lost(number))
        return outcome

    def _put(self, kept: Kept) -> Any:
        """Where in the cluster a task finds what is kept; the last of them stay."""
        if kept.key not in self._kept:
            self._kept[kept.key] = self._ray.put(kept.data)
        self._kept.move_to_end(kept.key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[kept.key]


def _work_on(work: Work, key: str, task: int, places: list[Any], shard: Shard) -> Outcome:
    """In the cluster.  places: where what is kept lies, in a list, so that only who needs it fetches it."""
    return work_on(work, key, task, partial(ray_module("ray").get, places[0]), shard)
