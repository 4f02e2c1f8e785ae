"""How often a request is handed from thread to thread, and that nobody waits for a picture that is run at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from clearsight.serving.app import build_app
from clearsight.serving.backend import Answers, Backend, Bytes
from clearsight.serving.service import Service
from clearsight.serving.torch_backend import torch_backend
from servers import as_file, picture, pooled_model

PNG = as_file(picture())
BACKEND = torch_backend(pooled_model())


class Watched:
    """A model that notes the threads which run it, and can be held back."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, pixels: Bytes) -> Answers:
        self.threads.append(threading.current_thread().name)
        self.entered.set()
        assert self.go_on.wait(20)
        return BACKEND.run(pixels)

    def backend(self) -> Backend:
        return replace(BACKEND, run=self.run, threads=2)


def client_of(service: Service) -> httpx.AsyncClient:
    """A client of the application, without a socket: what the loop is told by other threads comes from the service."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app(service)), base_url="http://here")


@pytest.mark.parametrize("path", ["/predict", "/embed"])
def test_a_request_alone_is_handed_over_twice(monkeypatch, path):
    handed: list[str] = []
    submit = ThreadPoolExecutor.submit

    def counted_submit(self, *args):
        handed.append("to a thread")
        return submit(self, *args)

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        tell = loop.call_soon_threadsafe

        def counted_tell(*args, **options):
            handed.append("to the loop")
            return tell(*args, **options)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted_tell)
        monkeypatch.setattr(ThreadPoolExecutor, "submit", counted_submit)
        async with client_of(service) as client:
            for _ in range(3):
                assert (await client.post(path, content=PNG)).status_code == 200

    model = Watched()
    service = Service(model.backend())
    asyncio.run(ask())
    service.close()
    assert handed == ["to a thread", "to the loop"] * 3
    assert all(name.startswith("clearsight-read") for name in model.threads)


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
