"""Requests share a batch without waiting for nobody, each gets its own rows, and none is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from clearsight.serving.backend import Answers, Bytes
from clearsight.serving.batcher import Batcher


class Model:
    """Gives the first pixel of each picture; holds a batch back until it may go on."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.alone: list[bool] = []
        self.inside = self.most_inside = 0
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def by_itself(self, pixels: Bytes) -> Answers:
        return self(pixels, alone=True)

    def __call__(self, pixels: Bytes, *, alone: bool = False) -> Answers:
        self.sizes.append(len(pixels))
        self.alone.append(alone)
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.set()
        assert self.go_on.wait(20)
        self.inside -= 1
        if pixels[0, 0, 0, 0] == 99:
            raise ValueError("a picture that breaks the network")
        first = pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)
        return Answers(first, -first, first[:, :, None], None)


def pictures(*values: int) -> Bytes:
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1)


def run(
    work: Callable[[Batcher, Model], object], most: int = 4, wait: float = 20.0, threads: int = 1
) -> tuple[Model, list[int]]:
    """Do the work with a batcher whose wait is longer than any test; the sizes of its batches as it reports them."""
    model, reported = Model(), []
    batcher = Batcher(model, model.by_itself, most, wait, lambda n, _seconds: reported.append(n), threads)

    async def limited() -> None:
        await asyncio.wait_for(work(batcher, model), 10)

    try:
        asyncio.run(limited())
    finally:
        model.go_on.set()
        batcher.close()
    return model, reported


def test_one_alone_does_not_wait():
    async def work(batcher, _model):
        answers, seconds = await batcher.ask(pictures(5))
        assert answers.values.tolist() == [[5.0]]
        assert seconds > 0

    model, reported = run(work)
    assert model.sizes == reported == [1]


def test_a_batch_knows_whether_it_has_the_machine_for_itself():
    async def work(batcher, model):
        await batcher.ask(pictures(1))
        model.go_on.clear()
        model.entered.clear()
        second = asyncio.create_task(batcher.ask(pictures(2)))
        await asyncio.to_thread(model.entered.wait, 10)
        third = asyncio.create_task(batcher.ask(pictures(3)))  # beside the second, which runs still
        while len(model.alone) < 3:
            await asyncio.sleep(0.001)
        model.go_on.set()
        await asyncio.gather(second, third)
        with batcher.coming():
            await batcher.ask(pictures(4))  # while another picture is on its way

    assert run(work, wait=0.01, threads=2)[0].alone == [True, True, False, False]


def test_those_that_are_on_their_way_are_waited_for():
    async def work(batcher, _model):
        with batcher.coming():
            first = asyncio.create_task(batcher.ask(pictures(1)))
            await asyncio.sleep(0.05)
            assert not first.done()
            second = asyncio.create_task(batcher.ask(pictures(2, 3)))
            await asyncio.sleep(0)
        assert (await first)[0].values.tolist() == [[1.0]]
        assert (await second)[0].values.tolist() == [[2.0], [3.0]]
        assert (await second)[0].maps.tolist() == [[[2.0]], [[3.0]]]

    assert run(work)[0].sizes == [3]


def test_they_are_waited_for_no_longer_than_said():
    async def work(batcher, _model):
        with batcher.coming():
            assert (await batcher.ask(pictures(1)))[0].values.tolist() == [[1.0]]

    assert run(work, wait=0.01)[0].sizes == [1]


def test_no_batch_is_larger_than_allowed_and_every_picture_gets_its_own_answer():
    async def work(batcher, model):
        model.go_on.clear()
        first = asyncio.create_task(batcher.ask(pictures(7)))
        await asyncio.to_thread(model.entered.wait, 10)
        others = [asyncio.create_task(batcher.ask(pictures(*range(3 * k, 3 * k + 3)))) for k in range(5)]
        large = asyncio.create_task(batcher.ask(pictures(*range(40, 50))))
        await asyncio.sleep(0)
        model.go_on.set()
        await first
        for k, one in enumerate(others):
            assert (await one)[0].values[:, 0].tolist() == [3 * k, 3 * k + 1, 3 * k + 2]
        assert (await large)[0].values[:, 0].tolist() == list(range(40, 50))

    model, _ = run(work)
    assert model.sizes == [1, 3, 3, 3, 3, 3, 4, 4, 2]


def test_a_client_that_went_away_is_left_out():
    async def work(batcher, model):
        model.go_on.clear()
        first = asyncio.create_task(batcher.ask(pictures(1)))
        await asyncio.to_thread(model.entered.wait, 10)
        gone, stays = (asyncio.create_task(batcher.ask(pictures(k))) for k in (2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.go_on.set()
        assert (await stays)[0].values.tolist() == [[3.0]]
        await first

    assert run(work)[0].sizes == [1, 1]


def test_an_error_is_told_and_the_next_batch_runs():
    async def work(batcher, _model):
        with pytest.raises(ValueError, match="breaks the network"):
            await batcher.ask(pictures(99))
        assert (await batcher.ask(pictures(4)))[0].values.tolist() == [[4.0]]

    assert run(work)[1] == [1]


def test_closing_answers_what_waits():
    async def work(batcher, model):
        model.go_on.clear()
        asked = [asyncio.create_task(batcher.ask(pictures(k))) for k in range(9)]
        await asyncio.to_thread(model.entered.wait, 10)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        model.go_on.set()
        await closing
        assert [(await one)[0].values[0, 0] for one in asked] == list(range(9))
        with pytest.raises(RuntimeError, match="closed"):
            await batcher.ask(pictures(1))

    assert sum(run(work)[0].sizes) == 9


def test_two_threads_run_two_batches_at_a_time_and_mix_nothing_up():
    async def work(batcher, model):
        model.go_on.clear()
        asked = [asyncio.create_task(batcher.ask(pictures(k, 100 + k))) for k in range(12)]
        for _ in range(200):
            await asyncio.sleep(0.01)
            if len(model.sizes) == 2:
                break
        assert model.sizes == [4, 4] or sorted(model.sizes) == [2, 4]  # both are inside
        model.go_on.set()
        for k, one in enumerate(asked):
            assert (await one)[0].values[:, 0].tolist() == [k, 100 + k]

    assert sum(run(work, threads=2)[0].sizes) == 24


def test_a_picture_alone_is_run_at_once_by_the_thread_that_read_it():
    async def work(batcher, _model):
        for k in (5, 6):
            with batcher.coming() as run_at_once:
                answers, seconds = await asyncio.to_thread(run_at_once, pictures(k))
                assert answers.values.tolist() == [[k]]
                assert seconds > 0
                assert run_at_once(pictures(k)) is None  # it is not on its way any more
                assert (await batcher.ask(pictures(7)))[0].values.tolist() == [[7.0]]  # which waits for nobody

    model, reported = run(work)
    assert model.sizes == reported == [1] * 4
    assert model.alone == [True] * 4


def test_beside_another_that_is_on_its_way_or_waits_or_runs_no_picture_is_run_at_once():
    async def work(batcher, model):
        with batcher.coming() as first:
            assert first(pictures(*range(5))) is None  # more than one batch holds
            with batcher.coming() as second:
                assert (first(pictures(1)), second(pictures(2))) == (None, None)
                waits = asyncio.create_task(batcher.ask(pictures(3)))
                await asyncio.sleep(0)
            assert first(pictures(1)) is None
        await waits
        model.go_on.clear()
        runs = asyncio.create_task(batcher.ask(pictures(4)))
        await asyncio.to_thread(model.entered.wait, 10)
        with batcher.coming() as third:
            assert third(pictures(1)) is None
        model.go_on.set()
        await runs

    assert run(work)[0].sizes == [1, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_comes_while_a_picture_is_run_at_once_waits_only_for_a_free_place(threads):
    async def work(batcher, model):
        model.go_on.clear()
        with batcher.coming() as run_at_once:
            first = asyncio.create_task(asyncio.to_thread(run_at_once, pictures(1)))
            await asyncio.to_thread(model.entered.wait, 10)
            others = [asyncio.create_task(batcher.ask(pictures(k, k))) for k in (2, 3, 4)]
            while len(model.sizes) < threads:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.02)
            assert len(model.sizes) == threads
            model.go_on.set()
            for k, one in enumerate(others, 2):
                assert (await one)[0].values[:, 0].tolist() == [k, k]
            assert (await first)[0].values.tolist() == [[1.0]]

    model, _ = run(work, threads=threads)
    assert model.most_inside == threads
    assert model.alone[:2] == [True, False]


def test_an_error_of_a_picture_that_is_run_at_once_is_told_and_the_next_runs():
    async def work(batcher, _model):
        with batcher.coming() as run_at_once, pytest.raises(ValueError, match="breaks the network"):
            run_at_once(pictures(99))
        with batcher.coming() as run_at_once:
            assert run_at_once(pictures(4))[0].values.tolist() == [[4.0]]

    assert run(work)[1] == [1]
