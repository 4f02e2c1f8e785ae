"""A request's body, read within its limits, and the picture in it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from clearsight.serving.multipart import form_files
from clearsight.serving.parameters import check_alone
from clearsight.serving.pictures import of_base64
from clearsight.serving.problems import Problem
from clearsight.serving.settings import Settings

_FIELDS = ("picture", "file", "image")  # of a form
_READ_ON = 8  # how many times the maximum of a body that is too long
_SEND = "send the picture itself, a form with a field picture, or JSON with picture as base64"


def stated_length(request: Request) -> int | None:
    """The length of the body that the client states; None where it states none.

    Refused: what is no length, and compressed bodies.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "the body is compressed", "send it without Content-Encoding")
    stated = request.headers.get("content-length")
    if stated is None:
        return None
    if not stated.isdecimal():
        raise Problem(400, f"Content-Length {stated[:40]!r}", "state the number of bytes")
    return int(stated)


async def body_of(request: Request, settings: Settings) -> bytes:
    """The whole body.  One that is too long is read on and thrown away, so that its client comes to read the answer.

    Refused: one that is longer than allowed, that takes longer than allowed, or whose client went away.
    """
    parts, length = [], 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for part in request.stream():
                length += len(part)
                if length <= settings.most_bytes:
                    parts.append(part)
                elif length > _READ_ON * settings.most_bytes:
                    break
    except TimeoutError:
        what = f"the body did not come within {settings.body_seconds:g} seconds"
        raise Problem(408, what, "send it at once", {"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "the body is truncated", "the connection ended before all of it came") from None
    if length > settings.most_bytes:
        raise too_long(length, settings.most_bytes)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_long(length: int, most: int) -> Problem:
    """The problem of a body of so many bytes."""
    return Problem(413, f"a body of {length:,} bytes", f"send at most {most:,}", {"Connection": "close"})


def picture_in(body: bytes, content_type: str) -> bytes:
    """The picture file in a body: the body itself, the field `picture` of a form, or base64 in JSON.

    A body that is neither a form nor JSON is taken for the picture, whatever type is stated: clients that send files
    state many, or none.  What begins with { is JSON, as no picture does.

    Refused: a form without one picture, JSON that is broken or has none, and what stands beside the picture.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = form_files(body, content_type)
        pictures = [content for name, content in found if name in _FIELDS]
        if len(pictures) != 1:
            names = ", ".join(repr(name) for name, _ in found[:5]) or "no field"
            raise Problem(400, f"the form holds {len(pictures)} pictures ({names})", "send one, in a field picture")
        check_alone([name for name, _ in found if name not in _FIELDS], "form")
        return pictures[0]
    if kind == "application/json" or body.lstrip()[:1] == b"{":
        value = json_of(body)
        if not isinstance(value, dict) or "picture" not in value:
            raise Problem(400, "the JSON holds no picture", 'send {"picture": "<base64 of the file>"}')
        check_alone([name for name in value if name != "picture"], "JSON")
        return of_base64(value["picture"])
    if not body:
        raise Problem(400, "the body is empty", _SEND)
    return body


def json_of(body: bytes) -> Any:
    """The value of a body of JSON.  Refused: what is no JSON, and numbers that are not finite."""

    def refuse(word: str) -> float:
        raise Problem(400, f"the JSON holds {word}", "send finite numbers")

    try:
        return json.loads(body, parse_constant=refuse)
    except Problem:
        raise
    except (ValueError, RecursionError) as e:
        reason = "it is nested too deeply" if isinstance(e, RecursionError) else str(e)
        raise Problem(400, f"the body is no JSON ({reason[:120]})", "send one JSON object in UTF-8") from None
