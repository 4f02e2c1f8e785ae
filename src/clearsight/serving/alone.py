"""Whether the thread of the event loop may work on a picture itself, while everybody else waits for it.

To hand a request to another thread and back takes an eighth of the time of a short one.  So a picture is read and run
where its request came in, if nobody else is there and if that takes at most 20 milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

MOST_SECONDS = 0.02
MOST_PIXELS = 1_000_000
MOST_ASPECT = 4
MOST_HEAD = 16_384  # bytes before the scan of a JPEG
LAST = 8  # short requests whose time is remembered
QUIET_SECONDS = 0.1  # since requests met
_ARRIVAL = 3  # turns of the event loop from the bytes of a request to its task: read, begin, enter

_SCAN = b"\xff\xda"


class Alone:
    """Counts who is there, and remembers how long the last short requests took and when requests met."""

    def __init__(self) -> None:
        self.inside = 0
        self._met = float("-inf")
        self._took: deque[float] = deque(maxlen=LAST)
        self._kept_for: object = None  # the client for whom the loop was kept just now
        self._turns = 0

    def enter(self, client: object) -> None:
        """A request of any kind has come.  client: its connection's address, None where that is not known."""
        self.inside += 1
        waited = self._turns and (client is None or client != self._kept_for)
        if self.inside > 1 or waited:
            self._met = time.monotonic()

    def leave(self) -> None:
        """A request is answered."""
        self.inside -= 1

    def note(self, seconds: float) -> None:
        """Remember how long one picture took to be read and run, in whatever thread."""
        self._took.append(seconds)

    @property
    def may_keep_the_loop(self) -> bool:
        """Whether the request that asks is the only one, and such requests have been short.

        No request met another within the last 100 milliseconds; each of the last 8 pictures took at most 20.
        """
        quiet = self.inside == 1 and time.monotonic() - self._met > QUIET_SECONDS
        return quiet and bool(self._took) and max(self._took) <= MOST_SECONDS

    def kept_the_loop(self, client: object) -> None:
        """The loop was kept for a client: requests of others that enter in its next turns had to wait, and have met it.

        Of the same connection they come after the answer.
        """
        self._kept_for = client
        if not self._turns:
            asyncio.get_running_loop().call_soon(self._turn)
        self._turns = _ARRIVAL

    def _turn(self) -> None:
        self._turns -= 1
        if self._turns:
            asyncio.get_running_loop().call_soon(self._turn)


def is_short(content: bytes) -> bool:
    """Whether the time to read a picture file is bounded by its number of pixels: a JPEG of one scan with a small head.

    A scan needs a few bytes and may go over all pixels again; what stands before it is read piece by piece.  In the
    scan itself no other marker can stand.

    >>> is_short(b"\\xff\\xd8...\\xff\\xda..."), is_short(b"\\xff\\xd8...\\xff\\xda...\\xff\\xda...")
    (True, False)
    """
    if not content.startswith(b"\xff\xd8") or content.find(_SCAN, 0, MOST_HEAD) < 0:
        return False
    return content.count(_SCAN) == 1


def is_small(size: tuple[int, int]) -> bool:
    """Whether a picture has at most a million pixels, also when it is resized: it is not long and thin.

    >>> is_small((640, 480)), is_small((4000, 3000)), is_small((40000, 16))
    (True, False, False)
    """
    return size[0] * size[1] <= MOST_PIXELS and max(size) <= MOST_ASPECT * min(size)
