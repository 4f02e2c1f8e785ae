"""Who may ask, and whether the limits of that key allow it: every charge is made before the work, in one place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import Request

from clearsight.serving.keys import Key, Limit, digest
from clearsight.serving.ledger import Ledger, seconds_left
from clearsight.serving.problems import Problem, try_again

_HOW = "send Authorization: Bearer KEY, or X-API-Key: KEY"


class Gate:
    """Lets requests in.

    Args:
        keys: by hash; None where everybody may ask.
        ledger: what keys have used; None where no key has limits.
    """

    def __init__(self, keys: Mapping[str, Key] | None = None, ledger: Ledger | None = None) -> None:
        self._keys, self._ledger = keys, ledger
        self._turns: dict[str, asyncio.Lock] = {}

    @property
    def guarded(self) -> bool:
        """Whether a key is asked for."""
        return self._keys is not None

    def key_of(self, request: Request) -> Key | None:
        """The key of a request; None where nobody needs one.

        Refused: no key, and a key that is not known.
        """
        if self._keys is None:
            return None
        sent = request.headers.get("x-api-key", "")
        kind, _, word = request.headers.get("authorization", "").partition(" ")
        sent = word.strip() if kind.lower() == "bearer" else sent
        challenge = {"WWW-Authenticate": "Bearer"}
        if not sent:
            raise Problem(401, "this server asks for an API key", _HOW, challenge)
        key = self._keys.get(digest(sent))
        if key is None:
            raise Problem(401, "the API key is not known", _HOW, challenge)
        return key

    def knows(self, request: Request) -> bool:
        """Whether a request may be answered: it has a known key, or nobody needs one."""
        try:
            self.key_of(request)
        except Problem:
            return False
        return True

    def take(self, key: Key | None, resource: str, amount: int) -> None:
        """Charge requests, bytes or pixels.  Refused: where a limit of the key forbids it; then nothing is charged."""
        if key is None or self._ledger is None:
            return
        limit = self._ledger.take(key, resource, amount)
        if limit is not None:
            raise _over(key, limit)

    def takes_turns(self, key: Key | None) -> bool:
        """Whether the requests of a key go through the model one after the other, see `timed`."""
        return key is not None and self._ledger is not None and bool(key.of("seconds"))

    @asynccontextmanager
    async def timed(self, key: Key | None) -> AsyncIterator[list[float]]:
        """Inside, the model works for a key: the seconds that it took are put into the list, and charged on leaving.

        Requests of a key with a limit on seconds work one after the other, and each begins only while something is
        left: so a limit is overrun by the last of them alone, however many come at once.

        Refused: where nothing is left.
        """
        spent: list[float] = []
        if key is None or self._ledger is None or not self.takes_turns(key):
            yield spent
            return
        async with self._turns.setdefault(key.name, asyncio.Lock()):
            limit = self._ledger.take(key, "seconds", 0, least_left=1)
            if limit is not None:
                raise _over(key, limit)
            try:
                yield spent
            finally:
                used = round(sum(spent) * 1e6)
                if used:
                    self._ledger.add(key, "seconds", used)

    def close(self) -> None:
        """Close the ledger."""
        if self._ledger is not None:
            self._ledger.close()


def _over(key: Key, limit: Limit) -> Problem:
    what = f"the key {key.name} may use {limit}, and this would be more"
    left = seconds_left(limit, time.time())
    if left is None:
        return Problem(429, what, "ask whoever gave you the key for more")
    return try_again(429, what, f"come again in {max(1, -int(-left // 1))} seconds", left)
