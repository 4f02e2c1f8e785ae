"""The process that serves: answers do not wait for the client's receipts, nor for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import socket

import httpx

from clearsight.serving.run import listening
from clearsight.serving.service import Service
from clearsight.serving.torch_backend import torch_backend
from servers import pooled_model, served


async def _sends_at_once(server: socket.socket) -> int:
    """Whether a connection that asyncio takes from the socket has TCP_NODELAY."""
    found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def took(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async with await asyncio.start_server(took, sock=server):
        _, writer = await asyncio.open_connection(*server.getsockname()[:2])
        answer = await asyncio.wait_for(found, 10)
        writer.close()
        await writer.wait_closed()
    return answer


def test_answers_do_not_wait_for_receipts() -> None:
    assert asyncio.run(_sends_at_once(listening("127.0.0.1", 0))) != 0


def test_the_collector_leaves_aside_what_there_was_before_the_server_and_no_longer() -> None:
    lists = [[k] for k in range(20_000)]
    before = gc.get_freeze_count()
    with served(Service(torch_backend(pooled_model()))) as address:
        assert httpx.get(f"{address}/v2/health/live").status_code == 200
        assert gc.get_freeze_count() > before + len(lists)
    assert gc.get_freeze_count() == 0
