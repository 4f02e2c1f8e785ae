"""The socket that serves: answers leave at once, they do not wait for the client to receive what came before."""

from __future__ import annotations

import asyncio
import socket

from clearsight.serving.run import listening


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
