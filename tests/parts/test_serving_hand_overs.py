"""How often a request is handed from thread to thread, and who waits for a picture that is run at once."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection

import httpx
import pytest

from clearsight.serving import alone
from clearsight.serving.app import build_app
from clearsight.serving.backend import Answers, Backend, Bytes
from clearsight.serving.service import Service
from clearsight.serving.settings import Settings
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model, served

PNG = as_file(picture())
JPEG = as_file(picture(), "JPEG")
BACKEND = torch_backend(pooled_model())


class Watched:
    """A model that notes the threads which run it, and can be held back."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.seconds = 0.0

    def run(self, pixels: Bytes) -> Answers:
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.go_on.wait(20)
        time.sleep(self.seconds)
        return BACKEND.run(pixels)

    def backend(self) -> Backend:
        return replace(BACKEND, run=self.run, threads=2)


def client_of(service: Service) -> httpx.AsyncClient:
    """A client of the application, without a socket: what the loop is told by other threads comes from the service."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app(service)), base_url="http://here")


@pytest.fixture(autouse=True)
def not_slow(monkeypatch):
    """However busy this machine is, a picture counts as short unless a test says how long it takes."""
    monkeypatch.setattr(alone, "MOST_SECONDS", 5.0)


def note_threads(monkeypatch, handed: list[str]) -> None:
    """From now on what is handed to a thread is noted."""
    submit = ThreadPoolExecutor.submit

    def noted_submit(self, *args):
        handed.append("to a thread")
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", noted_submit)


@pytest.mark.parametrize("path", ["/predict", "/embed"])
@pytest.mark.parametrize("file", [PNG, JPEG])
def test_a_request_alone_is_handed_over_twice_and_a_short_one_never(monkeypatch, path, file):
    handed: list[str] = []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        tell = loop.call_soon_threadsafe

        def counted_tell(*args, **options):
            handed.append("to the loop")
            return tell(*args, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted_tell)
        note_threads(monkeypatch, handed)
        async with client_of(service) as client:
            told = [await client.post(path, content=file) for _ in range(3)]
        assert [answer.status_code for answer in told] == [200] * 3
        assert told[0].content == told[2].content

    model = Watched()
    service = Service(model.backend())
    asyncio.run(ask())
    service.close()
    times = 3 if file is PNG else 1  # how long it takes is not known before the first
    assert handed == ["to a thread", "to the loop"] * times
    assert [name.startswith("clearsight-read") for name in model.threads] == [True] * times + [False] * (3 - times)


def test_others_are_answered_while_a_picture_is_run_at_once():
    async def ask() -> None:
        async with client_of(service) as client:
            model.go_on.clear()
            first = asyncio.create_task(client.post("/predict", content=PNG))
            await asyncio.to_thread(model.entered.wait, 10)
            assert (await client.get("/v2/health/live")).status_code == 200
            second = asyncio.create_task(client.post("/predict", content=as_file(picture(1))))
            while len(model.threads) < 2:
                await asyncio.sleep(0.001)
            assert not first.done()
            model.go_on.set()
            answers = [(await one).json()["answers"] for one in (first, second)]
        assert answers[0] != answers[1]

    model = Watched()
    service = Service(model.backend())
    asyncio.run(asyncio.wait_for(ask(), 20))
    service.close()
    assert [name[:14] for name in model.threads] == ["clearsight-rea", "clearsight-bat"]


SCAN = JPEG.index(b"\xff\xda")
OTHERS = {
    "PNG": PNG,
    "progressive": as_file(picture(), "JPEG", progressive=True),
    "pieces": JPEG[:2] + 64 * b"\xff\xfe\x00\x02" + JPEG[2:],
    "scans": JPEG[: SCAN + 4] + b"\x01" + JPEG[SCAN + 5 :],
    "pixels": as_file(picture(size=(1001, 1000)), "JPEG"),
    "thin": as_file(picture(size=(100, 20)), "JPEG"),
}


@pytest.mark.parametrize("what", [*OTHERS, "slow"])
def test_what_may_take_long_is_handed_over(monkeypatch, what):
    handed: list[str] = []

    async def ask() -> None:
        note_threads(monkeypatch, handed)
        async with client_of(service) as client:
            for content in (JPEG, JPEG, OTHERS.get(what, JPEG)):
                answer = await client.post("/predict", content=content)
                assert answer.status_code == 200 or (what == "scans" and content is not JPEG)

    model = Watched()
    if what == "slow":
        monkeypatch.setattr(alone, "MOST_SECONDS", 0.01)
        model.seconds = 0.02
    service = Service(model.backend())
    asyncio.run(ask())
    service.close()
    assert len(handed) == (3 if what == "slow" else 2)  # the first, whose time is not known, and the last


def test_who_waited_for_the_loop_waits_once(monkeypatch):
    monkeypatch.setattr(alone, "QUIET_SECONDS", 60.0)
    model = Watched()
    service = Service(model.backend())
    with served(service) as address, httpx.Client(base_url=address) as client:
        client.post("/predict", content=JPEG)
        with closing(HTTPConnection(address[7:], timeout=10)) as health:
            health.request("GET", "/v2/health/live")
            health.getresponse().read()  # from here on the connection is open
            model.entered.clear()
            model.go_on.clear()
            first = threading.Thread(target=client.post, args=("/predict",), kwargs={"content": JPEG})
            first.start()
            assert model.entered.wait(10)
            health.request("GET", "/v2/health/live")
            model.go_on.set()
            assert health.getresponse().status == 200
            first.join()
        client.post("/predict", content=JPEG)
    service.close()
    assert [name.startswith("clearsight-read") for name in model.threads] == [True, False, True]


def test_requests_that_met_are_forgotten(monkeypatch):
    monkeypatch.setattr(alone, "QUIET_SECONDS", 0.01)
    there = alone.Alone()
    there.note(0.001)
    for client in "ab":
        there.enter(client)
    assert not there.may_keep_the_loop
    there.leave()
    assert not there.may_keep_the_loop
    time.sleep(0.02)
    assert there.may_keep_the_loop


@pytest.mark.parametrize(
    ("client", "turns", "met"), [("a", 0, False), ("b", 0, True), (None, 0, True), ("b", 4, False)]
)
def test_only_who_waited_for_the_loop_has_met(client, turns, met):
    async def enter() -> None:
        there.kept_the_loop("a")
        for _ in range(turns):
            await asyncio.sleep(0)
        there.enter(client)

    there = alone.Alone()
    there.note(0.001)
    asyncio.run(enter())
    assert there.may_keep_the_loop != met


@pytest.mark.parametrize(("content", "status"), [(JPEG[:300], 400), (OTHERS["pixels"], 413)])
def test_what_is_refused_in_the_loop_leaves_nothing_behind(content, status):
    async def ask() -> None:
        async with client_of(service) as client:
            told = [(await client.post("/predict", content=one)).status_code for one in (JPEG, JPEG, content, JPEG)]
        assert told == [200, 200, status, 200]

    model = Watched()
    service = Service(model.backend(), settings=Settings(most_pixels=10_000))
    asyncio.run(ask())
    service.close()
    assert [name.startswith("clearsight-read") for name in model.threads] == [True, False, False]
