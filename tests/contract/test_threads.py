"""What depends on the number of threads is said: with how many a run begins, and where it goes on with others."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import clearsight as cs
from clearsight.errors import Notice
from clearsight.models.model_folder import RECIPE
from clearsight.training.arithmetic import COMPUTED, card_sentences, current_arithmetic, record_resume
from clearsight.training.checkpoints import STATE
from clearsight.training.loop import train
from clearsight.training.run_folder import CARD
from quickruns import QUICK, photos, weights

pytestmark = pytest.mark.usefixtures("threads")


def cut(data: Path, out: Path) -> None:
    """A run that was stopped after its first epoch."""
    going = train(data, QUICK, out)
    next(going)
    going.close()


def written(out: Path) -> list[dict]:
    return json.loads((out / RECIPE).read_text())[COMPUTED]


def test_a_run_that_goes_on_with_another_number_of_threads_says_so_in_a_line_and_in_the_card(tmp_path: Path) -> None:
    data, out = photos(tmp_path, 6), tmp_path / "run"
    cut(data, out)
    assert [(c["epoch"], c["step"], c["threads"]) for c in written(out)] == [(1, 1, 1)]
    torch.set_num_threads(2)
    with pytest.warns(
        Notice, match=r"computed with 1 thread on cpu .*, and resumes with 2 threads on cpu .*bit for bit"
    ):
        next(going := train(data, None, out, resume=True))
    going.close()
    assert [(c["epoch"], c["step"], c["threads"]) for c in written(out)] == [(1, 1, 1), (2, 1, 2)]
    list(train(data, None, out, resume=True))  # with two once more: nothing new, so nothing is said
    assert len(written(out)) == 2
    card = (out / CARD).read_text()
    assert "from epoch 2 on with 2 threads" in card
    assert "not bit for bit those of an uninterrupted run" in card


def test_with_as_many_threads_as_before_it_ends_bit_for_bit_the_same(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    data = photos(tmp_path, 6)
    list(train(data, QUICK, tmp_path / "whole"))
    cut(data, tmp_path / "cut")
    list(train(data, None, tmp_path / "cut", resume=True))
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert [c["threads"] for c in written(tmp_path / "cut")] == [2]
    card = (tmp_path / "cut" / CARD).read_text()
    assert "- computed with 2 threads on cpu" in card
    assert "the same command gives the same weights bit for bit" in card


def test_where_nothing_was_kept_there_is_nothing_to_differ_from(tmp_path: Path) -> None:
    data, out = photos(tmp_path, 6), tmp_path / "run"
    cut(data, out)
    (out / STATE).unlink()
    torch.set_num_threads(2)
    list(train(data, None, out, resume=True))
    assert [(c["epoch"], c["threads"]) for c in written(out)] == [(1, 2)]


def test_on_the_command_line_it_is_a_line_on_standard_error(tmp_path: Path, run) -> None:
    data, out = photos(tmp_path, 6), tmp_path / "run"
    cut(data, out)
    torch.set_num_threads(2)
    done = run("train", str(data), "-o", str(out), "--resume", "--quiet")
    assert done.status == 0
    assert "will not be bit for bit" in done.err
    assert "OMP_NUM_THREADS" in done.err


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"threads": 3}, "with 3 threads on"),
        ({"processes": 2}, "in each of 2 processes"),
        ({"device": "cuda (A)"}, "on cuda [(]A[)]"),
        ({"torch": "1.0"}, "PyTorch 1.0, and"),
    ],
)
def test_whatever_sums_are_rounded_by_is_compared(tmp_path: Path, other: dict, says: str) -> None:
    now = current_arithmetic(torch.device("cpu"), 3, 0)
    (tmp_path / RECIPE).write_text(json.dumps({COMPUTED: [now | other | {"epoch": 1}]}))
    with pytest.warns(Notice, match=says):
        record_resume(tmp_path, now)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record_resume(tmp_path, now | {"epoch": 5})
    assert written(tmp_path)[1:] == [now]


def test_a_run_that_did_not_write_it_down_is_not_taken_for_the_same(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text("{}")
    with pytest.warns(Notice, match="an unrecorded number of threads"):
        record_resume(tmp_path, current_arithmetic(torch.device("cpu"), 1, 4))
    assert [(c["epoch"], c["step"]) for c in written(tmp_path)] == [(2, 5)]
    assert "not recorded" in card_sentences([])[0]


def test_a_gpu_is_promised_nothing_to_the_bit() -> None:
    one = current_arithmetic(torch.device("cpu")) | {"device": "cuda (A)", "threads": 8, "torch": "2.9"}
    assert card_sentences([one]) == [
        "computed with 8 threads on cuda (A), PyTorch 2.9: the same command is promised to give the same weights bit "
        "for bit on a CPU only"
    ]
    within = one | {"epoch": 2, "step": 5}
    assert "from epoch 2, step 5, on with" in card_sentences([one, within])[0]


def test_maps_and_attacks_are_the_same_to_rounding_for_any_number_of_threads(small, x) -> None:
    model = replace(small, net=small.net.eval())
    y = torch.tensor([0, 1, 2, 3])
    found = []
    for n in (1, 2):
        torch.set_num_threads(n)
        maps = [cs.explain(model, x, m, cs.ClassScore(y)).maps for m in ("saliency", "grad-cam", "smooth-grad")]
        found.append([*maps, cs.attack(model, x, y, "pgd(steps=3)").x])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
