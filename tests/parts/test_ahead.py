"""Pictures are opened ahead, in threads, in their order, a few at a time."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clearsight as cs
from clearsight.auditing.case import Case
from clearsight.core.ahead import ahead
from clearsight.data.datasets import Picture, Pictures
from poolednet import SIDE, classifier


def test_results_come_in_order_though_later_work_ends_first():
    def work(i: int) -> int:
        time.sleep(0.02 * (i % 3 == 0))
        return i * i

    assert list(ahead(work, range(20), most=4, threads=3)) == [i * i for i in range(20)]


def test_no_more_is_done_ahead_than_asked_for_and_nothing_after_the_end():
    taken: list[int] = []
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        if i >= 3:
            gate.wait(10)
        return i

    gate = threading.Event()
    results = ahead(work, (taken.append(i) or i for i in range(100)), most=8)
    with closing(results):
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        assert len(taken) <= 3 + 8
        threading.Timer(1, gate.set).start()  # the two threads are held until the rest was called off
    assert sorted(begun) == list(range(len(begun)))
    assert len(begun) <= 3 + 2
    assert threading.active_count() < 50


def test_an_error_comes_where_its_item_stands():
    def work(i: int) -> int:
        if i == 2:
            raise ValueError("two")
        return i

    results = ahead(work, range(9), most=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_an_audit_reads_each_file_once_and_in_any_order_keeps_what_belongs_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = []
    for i in range(40):
        path = tmp_path / f"{i:02}.png"
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)).save(path)
        found.append(Picture(path, path.name))
    found[7].path.write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    whole = [p for i, p in enumerate(found) if i != 7]
    model = classifier()
    x = torch.cat([cs.pixels(model, p.path) for p in whole])
    for budget in (None, 1000):  # under a budget they are read in a drawn order
        case = Case(model, Pictures(tmp_path, tuple(found)), budget=budget)
        assert [p.name for p in case.pictures] == [p.name for p in whole]
        assert [name for name, _ in case.broken] == ["07.png"]
        with model.undisturbed(), torch.no_grad():
            torch.testing.assert_close(case.logits, model(x), rtol=1e-5, atol=1e-5)
        keep = [p.path.rename(p.path.with_suffix(".gone")) for p in whole]
        assert torch.equal(case.pixels(range(39)), x)
        for p in keep:
            p.rename(p.with_suffix(".png"))
