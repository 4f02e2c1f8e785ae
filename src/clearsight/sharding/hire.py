"""Who shares the work on many pictures: processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from clearsight.errors import Refused
from clearsight.sharding.processes import Processes
from clearsight.sharding.ray_cluster import ray_cluster, require_ray
from clearsight.sharding.ray_tasks import RayTasks
from clearsight.sharding.shards import hiring


@contextmanager
def workers(count: int | None = None, *, ray: str | None = None) -> Iterator[None]:
    """Inside, workers share the pictures of `audit`, `explain`, `attack` and `measure`.

    Pictures are cut into shards, a few pictures each, in the same way for any number of workers, and every worker
    computes in one thread: results are the same to the bit whatever the number of workers.  A worker that is lost costs
    the shard that it had, which another one repeats.  Progress, seeds, budgets and errors are as without workers.
    Networks on the CPU only.

    A script that uses this must guard what it runs with ``if __name__ == "__main__":``, as for all processes of Python.

    Args:
        count: number of workers, at least 1; None for as many as a Ray cluster has processors.
        ray: address of a Ray cluster, as `ray.init` takes it, or "local" for a cluster of this machine that ends with
            this; None for processes without Ray.  In a cluster Clearsight is installed everywhere; picture files are
            read by this process.

    Refused: fewer than one worker, neither a number nor a cluster, Ray not installed, a cluster that cannot be reached,
    and, where pictures are worked on, a network that cannot be pickled or is not on the CPU.
    """
    if count is not None and count < 1:
        raise Refused(f"{count} workers: give at least 1")
    if ray is not None:
        require_ray("this", ray)
        with ray_cluster(count or 1, ray), hiring(RayTasks(count)):
            yield
        return
    if count is None:
        raise Refused("how many workers: give a number, or ray=, the address of a cluster")
    with closing(Processes(count)) as processes, hiring(processes):
        yield
