"""Run an application until it is told to stop: what was accepted is answered first."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from clearsight.errors import Refused

_SLOW = b'{"error":"the head of the request did not come in time: send it at once"}'
_HEAD = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
_TIMED_OUT = _HEAD + b"content-length: %d\r\n\r\n%s" % (len(_SLOW), _SLOW)


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; port 0 takes a free one.

    Refused: an address that is in use, or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named, or asyncio leaves Nagle's algorithm on, and answers wait 40 ms for the client's receipt
    server = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(2048)
    except (OSError, OverflowError) as e:
        server.close()
        reason = getattr(e, "strerror", None) or str(e)
        raise Refused(f"cannot serve at {host} port {port} ({reason})", "give another --host or --port") from None
    return server


def address_of(server: socket.socket) -> str:
    """http://host:port of a socket that listens."""
    host, port = server.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_until_stopped(
    app: ASGIApp,
    server: socket.socket,
    *,
    stop_seconds: float,
    head_seconds: float,
    made: Callable[[uvicorn.Server], object] | None = None,
) -> None:
    """Answer requests until SIGTERM, SIGINT or `should_exit`; then take no new ones, and end what was accepted.

    Args:
        app: the application.
        server: the socket that listens; it is closed at the end.
        stop_seconds: time that accepted requests have to end.
        head_seconds: time that a client has to send a request's head; the connection of a slower one is closed.
        made: called with uvicorn's server before it runs; setting its `should_exit` stops it.
    """
    config = uvicorn.Config(
        app,
        http=_impatient(head_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(stop_seconds)),
    )
    running = uvicorn.Server(config)
    if made is not None:
        made(running)
    try:
        with _terminated_as_interrupted(), _kept_from_the_collector():
            running.run(sockets=[server])
    except KeyboardInterrupt:  # uvicorn raises the signal that stopped it once more, when all is done
        if not running.should_exit:
            raise
    finally:
        server.close()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt as SIGINT does, where this thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _kept_from_the_collector() -> Iterator[None]:
    """Inside, the garbage collector leaves aside what there is already, which lasts as long as the server.

    To look through torch and all other modules over and over takes 50 microseconds of each request.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _impatient(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which also closes connections whose request does not begin in time."""
    base: Any = AutoHTTPProtocol

    class Impatient(base):  # type: ignore[misc]
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.set_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self.set_timer()
            elif self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self.timer is not None:
                self.timer.cancel()
            super().connection_lost(exc)

        def set_timer(self) -> None:
            if self.timer is None:
                self.timer = asyncio.get_running_loop().call_later(seconds, self.give_up)

        def give_up(self) -> None:
            self.timer = None
            if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(_TIMED_OUT)
                self.transport.close()

    return Impatient
