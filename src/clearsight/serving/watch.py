"""The outermost layer: each request is counted, timed and logged, whatever becomes of it."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearsight.serving.alone import Alone
from clearsight.serving.measures import Measures
from clearsight.serving.problems import try_again

Write = Callable[[str], object]


class Watch:
    """Wraps an application.  A line of JSON is written for each request; it never holds a picture or a key.

    Args:
        app: the application.
        measures: what is counted.
        write: takes the line; None writes nothing.
        most: maximum number of requests at once; more are told to come again.
        alone: learns who is there.
    """

    def __init__(self, app: ASGIApp, measures: Measures, write: Write | None, most: int, alone: Alone) -> None:
        self._app, self._measures, self._write, self._most, self._alone = app, measures, write, most, alone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, name, status = time.perf_counter(), secrets.token_hex(8), 499  # 499: the client went away
        facts: dict[str, Any] = scope.setdefault("state", {}).setdefault("facts", {})

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", name.encode())]
            await send(message)

        self._alone.enter(scope.get("client"))
        try:
            if self._alone.inside > self._most:
                await _busy(self._most, send_and_note)
            else:
                await self._app(scope, receive, send_and_note)
        finally:
            self._alone.leave()
            self._note(scope, name, status, time.perf_counter() - began, facts)

    def _note(self, scope: Scope, name: str, status: int, seconds: float, facts: dict[str, Any]) -> None:
        route = getattr(scope.get("route"), "path", "other")  # not the path: anybody can write anything there
        self._measures.requests.labels(route, str(status)).inc()
        self._measures.seconds.labels(route).observe(seconds)
        if self._write is not None:
            line = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "request": name,
                "method": scope["method"],
                "route": route,
                "status": status,
                "seconds": round(seconds, 6),
                "client": (scope.get("client") or ("",))[0],
                **facts,
            }
            self._write(json.dumps(line, ensure_ascii=True))


async def _busy(most: int, send: Send) -> None:
    problem = try_again(503, f"{most} requests are worked on already", "come again later", 1.0)
    body = json.dumps({"error": str(problem)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"retry-after", b"1"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
