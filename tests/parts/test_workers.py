"""Workers: results do not depend on how many there are, and one that is lost costs its shard alone."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, nullcontext
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import clearsight as cs
import shardwork
from clearsight.auditing import place_case
from clearsight.auditing.map_tests import examine
from clearsight.core.deadline import OutOfTime, given_up_at
from clearsight.core.passes import counted
from clearsight.core.remembered import once, remembering, remembering_for, tasks
from clearsight.errors import Notice
from clearsight.internals.scores import scores_of
from clearsight.runner.corrupt import corrupt
from clearsight.sharding import shards
from clearsight.sharding.processes import Processes
from clearsight.sharding.ray_cluster import keep_ray_quiet, require_answer
from clearsight.sharding.shards import AT_ONCE, KEPT, TRIES, hired, hiring, spread
from clearsight.testing import tiny_detector, tiny_segmenter
from placepictures import CORNERS, SIDE, box_truth, with_boxes, with_maps
from quickruns import OWN
from workshop import factory, lay_out, smooth

ray_needed = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
PATH = {"PYTHONPATH": os.pathsep.join([OWN["PYTHONPATH"], str(Path(__file__).parents[1])])}


@pytest.fixture(scope="module")
def three() -> Iterator[Processes]:
    with closing(Processes(3)) as processes:
        yield processes


@pytest.fixture(scope="module")
def one() -> Iterator[Processes]:
    with closing(Processes(1)) as processes:
        yield processes


def lost_once(folder: Path) -> list[int]:
    """The numbers of 12 shards of `shown`, of which one loses its worker; each is given once, and in order."""
    (folder / "marker").touch()
    found = [*spread(shardwork.shown, folder, ((n,) for n in range(12)))]
    assert not (folder / "marker").exists()
    assert found == [(n, 1) for n in range(12)]
    return [len((folder / f"ran-{n}").read_text().split()) for n in range(12)]


def test_a_lost_worker_costs_its_shard_alone_and_results_keep_their_order(three: Processes, tmp_path: Path) -> None:
    with hiring(three):
        assert lost_once(tmp_path) == [1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
    workers = {pid for f in tmp_path.glob("ran-*") for pid in f.read_text().split()}
    assert len(workers) > 1
    assert str(os.getpid()) not in workers


def test_a_shard_that_takes_every_worker_with_it_is_refused(three: Processes, tmp_path: Path) -> None:
    with hiring(three), pytest.raises(cs.Refused, match=f"shard 2 was lost {TRIES} times: the memory"):
        list(spread(shardwork.always_lost, tmp_path, ((n,) for n in range(3))))


@pytest.mark.filterwarnings("ignore:all shards")
def test_an_error_stands_where_the_result_would(three: Processes) -> None:
    got = []
    with hiring(three), pytest.raises(cs.Refused, match="shard 2: none"):
        got += list(spread(shardwork.refused, 2, ((n,) for n in range(9))))
    with hiring(three):
        first = spread(shardwork.refused, 9, ((n,) for n in range(99)))
        assert next(first) == 0
        first.close()  # who has enough stops
        assert [*spread(shardwork.refused, 9, ((n,) for n in range(3)))] == [0, 1, 2]


def given_up(folder: Path) -> None:
    """Shards that take a minute each are given up once they are begun; the workers that had them work on others."""
    with given_up_at(time.monotonic() + 8), pytest.raises(OutOfTime):
        list(spread(shardwork.endless, folder, ((n,) for n in range(9))))
    assert [*spread(shardwork.refused, 9, ((n,) for n in range(3)))] == [0, 1, 2]
    assert [*folder.glob("began-*")]
    assert not [*folder.glob("ended-*")]


@pytest.mark.filterwarnings("ignore:all shards")
def test_work_that_is_not_done_in_time_is_given_up(three: Processes, tmp_path: Path) -> None:
    """A budget holds over all workers, whatever a shard takes; the processes at work end with it."""
    with hiring(three):
        given_up(tmp_path)
    at_work = {int(begun.read_text()) for begun in tmp_path.glob("began-*")}
    assert at_work
    until = time.monotonic() + 20
    while any(map(is_running, at_work)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [*filter(is_running, at_work)]


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.filterwarnings("ignore:all shards")
def test_who_is_not_asked_any_more_ends(one: Processes, tmp_path: Path) -> None:
    with hiring(one):
        first = spread(shardwork.endless_but_one, tmp_path, ((n,) for n in range(9)))
        assert next(first) == 0
        first.close()
        assert [*spread(shardwork.refused, 9, ((n,) for n in range(3)))] == [0, 1, 2]
    assert not [*tmp_path.glob("ended-*")]


@pytest.mark.filterwarnings("ignore:all shards")
def test_others_go_on_where_one_is_given_up(one: Processes, tmp_path: Path) -> None:
    """Whose shards wait for the same process learn that it ends, and hand them to the next one."""
    given: list[list[int]] = []

    def other() -> None:
        given.append([*spread(shardwork.refused, 9, ((n,) for n in range(3)))])

    with hiring(one):
        first = spread(shardwork.endless_but_one, tmp_path, ((n,) for n in range(9)))
        assert next(first) == 0
        others = [threading.Thread(target=copy_context().run, args=(other,), daemon=True) for _ in range(5)]
        for thread in others:
            thread.start()
        time.sleep(1)  # until all of them wait
        first.close()
        until = time.monotonic() + 30
        for thread in others:
            thread.join(max(0, until - time.monotonic()))
    assert given == [[0, 1, 2]] * 5


def test_a_notice_of_many_shards_is_given_once(three: Processes) -> None:
    with hiring(three), warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert [*spread(shardwork.refused, 9, ((n,) for n in range(4)))] == [0, 1, 2, 3]
    assert [str(w.message) for w in given] == ["all shards say this"]
    assert given[0].category is Notice


def test_shards_are_cut_when_workers_are_free_for_them() -> None:
    """Not all at once: they hold pixels."""
    cut = []

    class Here:
        def spread(self, work: Any, kept: Any, parts: Any) -> Iterator[Any]:
            yield from (
                shards.work_on(work, kept.keys, kept.tasks, lambda i: kept.parts[i].data, part) for part in parts
            )

    with closing(Processes(2)) as two, hiring(two), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert next(spread(shardwork.refused, 99, ((cut.append(n) or n,) for n in range(50)))) == 0  # type: ignore[func-returns-value]
    assert len(cut) <= 2 * AT_ONCE + 2
    for k in range(KEPT + 2):  # what a worker keeps is bounded
        with hiring(Here()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert [*spread(shardwork.refused, 9 + k, [(1,)])] == [1]
    assert len(shards.kept_here) <= KEPT


def test_what_is_remembered_lasts_for_a_task() -> None:
    net, made = torch.nn.Identity(), []

    def make() -> int:
        made.append(1)
        return len(made)

    with remembering():
        (first,) = tasks()
        with remembering():
            assert tasks() == (first, first + 1)
    assert tasks() == ()
    for numbers, inner, outer in (
        ((7, 8), 1, 2),
        ((7, 8), 1, 2),
        ((7, 9), 3, 2),  # the next part of the same work
        ((7, 8), 4, 2),
        ((10,), 5, 6),
        ((), 7, 8),
        ((), 9, 10),
    ):
        with remembering_for(numbers):
            assert once(net, "key", make) == inner
            assert once(net, "long", make, longest=True) == outer


# Results --------------------------------------------------------------------------------------------------------------


def results_of(model: cs.Classifier, x: Tensor) -> dict[str, Tensor]:
    """What every call gives that workers share, five shards of four pictures."""
    top = cs.ClassScore(scores_of(model, x).argmax(1))
    how: dict[str, Any] = {"batch": 4, "seed": 3}
    found: dict[str, Tensor] = {"scores": scores_of(model, x), "fog": corrupt(x, "fog", seed=3)}
    for words in ("smooth-grad(samples=3)", "occlusion(window=4)", "integrated-gradients(steps=3)"):
        e, asked = (cs.explain(model, x, words, target, **how) for target in (None, top))
        found |= {words: e.maps, f"asked {words}": asked.maps, f"target {words}": e.target.index}  # type: ignore[attr-defined]
        found[f"passes {words}"] = torch.tensor([asked.forwards, asked.backwards])
        found |= {f"{words} {name}": v for name, v in e.diagnostics.items()}
    maps = found["occlusion(window=4)"]
    for words in ("pgd(steps=3, restarts=1)", "square(queries=20)"):
        a = cs.attack(model, x, top.index, words, eps=0.1, **how)
        found |= {words: a.x, f"fooled {words}": a.fooled, f"already {words}": a.already, f"clean {words}": a.clean}
        found[f"passes {words}"] = torch.tensor([a.queries, a.backwards, a.overstep])
        found |= {f"queries {words}": a.spent, f"first {words}": a.first} if a.first is not None else {}  # type: ignore[dict-item]
    inside = maps > maps.flatten(1).median(1).values[:, None, None]
    found["mass"] = cs.measure(model, x, maps.abs(), "relevance-mass", regions=inside, **how)
    found["sensitivity"] = cs.measure(model, x, maps, "max-sensitivity(samples=2)", method="saliency", **how)
    moved = cs.move_map(model, x, "saliency", steps=2, **how)
    found |= {"moved": moved.x, "after": moved.after, "kept": moved.kept, "correlation": moved.correlation}
    found["moving"] = torch.tensor([moved.forwards, moved.backwards])
    return found


def test_every_call_gives_the_same_for_any_number_of_workers(one: Processes, three: Processes) -> None:
    model, x = smooth(), torch.rand(18, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    alone = results_of(model, x)
    with hiring(three):
        with_three = results_of(model, x)
    with hiring(one):
        with_one = results_of(model, x)
    assert not hired()
    assert with_one.keys() == with_three.keys() == alone.keys()
    assert [name for name in with_one if not torch.equal(with_one[name], with_three[name])] == []
    for name, value in alone.items():
        torch.testing.assert_close(with_one[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_passes_of_moved_maps_are_those_of_a_picture_for_any_number_of_shards() -> None:
    model, x = smooth(), torch.rand(9, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    all_of_them, one = (cs.move_map(model, some, "saliency", steps=2, batch=12) for some in (x, x[:1]))
    assert all_of_them.forwards == one.forwards > 0  # three shards, of four, four and one


def test_passes_of_workers_count_here() -> None:
    """So do those of a check that counts what its attacks cost."""
    model, x = smooth(), torch.rand(9, 3, 8, 12)
    counts = []
    for workers in (nullcontext(), cs.workers(2)):
        with workers, model.undisturbed(), counted(model.net) as passes:
            cs.explain(model, x, "saliency", cs.ClassScore(1), batch=4)
            scores_of(model, torch.cat([x, x]))
        counts.append((passes.forwards, passes.backwards, passes.through))
    assert counts[0] == counts[1] == (27, 9, 9)


def test_a_model_that_is_taken_not_to_change_is_written_once(three: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, written = smooth(), torch.rand(5, 3, 8, 12), []
    dumps = shards.pickle.dumps
    monkeypatch.setattr(shards.pickle, "dumps", lambda part, **how: written.append(type(part)) or dumps(part, **how))

    def maps() -> Tensor:
        return cs.explain(model, x, "saliency", cs.ClassScore(1), batch=4).maps

    with hiring(three):
        with remembering():
            before, again = maps(), maps()
            assert written.count(cs.Classifier) == 1
        with torch.no_grad():
            model.net[5].weight *= 2
        after = maps()
    assert torch.equal(before, again)
    torch.testing.assert_close(after, maps())
    assert not torch.equal(before, after)


def audited(model: cs.Classifier, data: Path, **options: Any) -> list[dict[str, Any]]:
    only = "accuracy, calibration, robustness(steps=2), corruptions(severities=3, which=fog), sanity, map-stability"
    findings = cs.audit(model, data, only=only, method="grad-cam", **options).findings
    return [dataclasses.asdict(dataclasses.replace(f, seconds=0.0)) for f in findings]


def test_an_audit_is_the_same_for_any_number_of_workers_of_which_one_is_lost(
    one: Processes, three: Processes, tmp_path: Path
) -> None:
    lay_out(tmp_path, 8)
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    marker, told = tmp_path / "marker", []
    model = shardwork.mortal(marker)
    with hiring(one):
        by_one = audited(model, tmp_path / "photos")
    marker.touch()
    with hiring(three):
        by_three = audited(
            model, tmp_path / "photos", progress=lambda what, done, total: told.append((what, done, total))
        )
    assert not marker.exists()
    assert by_one == by_three
    assert [f["headline"] for f in by_one if f["verdict"] == "error"] == []
    assert ("reading", 25, 25) in told
    assert {what for what, *_ in told} >= {"robustness", "corruptions", "sanity"}


@pytest.mark.parametrize("places", [False, True], ids=["boxes", "maps"])
def test_an_audit_of_places_is_read_by_workers_and_the_same(
    places: bool, three: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = tiny_segmenter() if places else tiny_detector()
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(35)]  # three shards
    if places:
        data = with_maps(tmp_path, noise, [a.argmax(2) for a in noise], ("class 0", "class 1", "class 2"))
    else:
        data = with_boxes(tmp_path, noise, [box_truth(CORNERS[:2], [0, 1])] * 35)
    data.pictures[20].path.write_bytes(b"no picture")
    only = "segmentation-accuracy" if places else "detection-accuracy, false-alarms"

    def found() -> list[Any]:
        with counted(model.net) as passes:
            findings = cs.audit(model, data, only=only).findings
        return [passes.forwards, *(dataclasses.replace(f, seconds=0.0) for f in findings)]

    alone = found()
    assert alone[0] >= alone[1].n == 34
    monkeypatch.setattr(place_case, "ahead", None)  # by which this process would read them itself
    with hiring(three):
        assert found() == alone


@pytest.mark.slow
def test_explained_pictures_are_the_same_files(one: Processes, three: Processes, tmp_path: Path) -> None:
    lay_out(tmp_path, 2)
    from clearsight.data.datasets import open_data
    from clearsight.explaining.explain_pictures import explain_pictures

    model, data, told = factory(), open_data(tmp_path / "photos"), []
    folders = [tmp_path / name for name in ("alone", "one", "three")]
    for folder, workers in zip(folders, (nullcontext(), hiring(one), hiring(three)), strict=True):
        folder.mkdir()
        with workers:
            explain_pictures(
                model, [data], ["grad-cam", "occlusion(window=8)"], "top1", lambda: folder,  # noqa: B023
                progress=lambda *words: told.append(words),
            )  # fmt: skip
    files = [{f.name: f.read_bytes() for f in folder.glob("*.png")} for folder in folders]
    assert len(files[0]) == 6
    assert files[1] == files[2]
    assert files[0].keys() == files[1].keys()
    assert told[:7] == [("explaining", n, 6) for n in range(7)]


def test_a_network_that_draws_is_run_picture_by_picture_in_a_worker_too(three: Processes, tmp_path: Path) -> None:
    lay_out(tmp_path, 6)
    model = cs.wrap(shardwork.Drawing(), factory().preprocess, labels=list(factory().labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        alone = cs.Case(model, cs.folder(tmp_path / "photos")).logits
        with hiring(three):
            shared = cs.Case(model, cs.folder(tmp_path / "photos")).logits
    torch.testing.assert_close(shared, alone)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "ray", "words"), [(0, None, "0 workers: give at least 1"), (None, None, "how many workers")]
)
def test_workers_are_at_least_one(count: int | None, ray: str | None, words: str) -> None:
    with pytest.raises(cs.Refused, match=words), cs.workers(count, ray=ray):
        pass


def test_what_cannot_be_sent_is_named(three: Processes) -> None:
    model = smooth()
    model.net.register_forward_hook(lambda module, args, out: out)  # of no module that another process can import
    with hiring(three), pytest.raises(cs.Refused, match=r"cannot be sent to other processes .*lambda"):
        cs.explain(model, torch.rand(9, 3, 8, 12), "saliency", batch=4)


def test_workers_compute_on_the_cpu(three: Processes) -> None:
    model = smooth()
    elsewhere = dataclasses.replace(model, net=model.net.to("meta"))
    with hiring(three), pytest.raises(cs.Refused, match="network is on meta: workers compute on the CPU"):
        cs.move_map(elsewhere, torch.rand(9, 3, 8, 12))


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import torch, clearsight as cs\nfrom workshop import smooth\n"
        "with cs.workers(1):\n    cs.explain(smooth(), torch.rand(9, 3, 8, 12), 'saliency', batch=4)\n"
    )
    ran = subprocess.run([sys.executable, script], env=OWN | PATH, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 1
    assert 'runs nothing when it is imported: if __name__ == "__main__": main()' in ran.stderr


@pytest.mark.slow
def test_a_stopped_command_ends_its_workers(tmp_path: Path) -> None:
    lay_out(tmp_path, 20)
    words = ["audit", "workshop:factory", "photos", "--workers", "2", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "clearsight", *words], env=OWN | PATH, cwd=tmp_path)
    group = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and len(family(process.pid)) < 4:  # with the server that forks them
        time.sleep(0.1)
    workers = family(process.pid)
    assert len(workers) >= 4, group.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 2
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.1)
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []


def family(pid: int) -> list[int]:
    """The processes below a process."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return children + [one for child in children for one in family(child)]


@pytest.mark.slow
def test_tests_of_maps_are_the_same(three: Processes) -> None:
    model, x = smooth(), torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    explained = [cs.explain(model, x, "saliency"), cs.explain(model, x, "occlusion(window=4)")]
    alone = examine(model, explained)
    with hiring(three):
        assert examine(model, explained) == alone


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", ":6379"])
def test_words_that_are_no_address_of_a_cluster(address: str) -> None:
    with pytest.raises(cs.Refused, match="is no address of a Ray cluster: give the HOST:PORT"):
        require_answer(address)


def test_an_address_where_nobody_answers_is_refused_and_another_is_not() -> None:
    """What Ray itself would find out after minutes."""
    require_answer("auto")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        with pytest.raises(cs.Refused, match=rf"no Ray cluster answers at {address} \(Connection refused\): give"):
            require_answer(address)
        s.listen()
        require_answer(address)


@pytest.mark.parametrize("here", ["127.0.0.1:6379", "localhost:6379", "[::1]:6379", "local", None])
def test_a_cluster_of_this_machine_is_reached_at_its_loopback_address(
    here: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would look for it at this machine's address in the network, where it need not listen."""
    name = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    for each in (name, "RAY_ADDRESS", "RAY_USAGE_STATS_ENABLED", "RAY_NUM_REDIS_GET_RETRIES"):
        monkeypatch.setenv(each, "")  # so that it is afterwards what it was
        monkeypatch.delenv(each)
    monkeypatch.setenv("RAY_py_gcs_connect_timeout_s", "9")
    keep_ray_quiet("10.0.0.5:6379")
    assert name not in os.environ
    quick = ("RAY_NUM_REDIS_GET_RETRIES", "RAY_py_gcs_connect_timeout_s")
    assert [os.environ[each] for each in quick] == ["2", "9"]
    keep_ray_quiet(here)
    assert os.environ[name] == os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


# Ray ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@ray_needed
@pytest.mark.filterwarnings("ignore")
def test_four_workers_of_a_cluster_of_which_one_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PATH["PYTHONPATH"])  # of the cluster's processes, which this one starts
    lay_out(tmp_path, 8)
    marker = tmp_path / "photos-marker"
    model = shardwork.mortal(marker)
    with cs.workers(1):  # as a user writes it
        one = audited(model, tmp_path / "photos")
    with cs.workers(4, ray="local"):
        assert lost_once(tmp_path) == [1, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]
        marker.touch()
        four = audited(model, tmp_path / "photos")
        with pytest.raises(cs.Refused, match=f"shard 2 was lost {TRIES} times"):
            list(spread(shardwork.always_lost, tmp_path, ((n,) for n in range(3))))
        with pytest.raises(cs.Refused, match="shard 2: none"):
            list(spread(shardwork.refused, 2, ((n,) for n in range(9))))
        given_up(tmp_path)
    assert not marker.exists()
    assert one == four
    workers = {pid for f in tmp_path.glob("ran-*") for pid in f.read_text().split()}
    assert len(workers) >= 4
