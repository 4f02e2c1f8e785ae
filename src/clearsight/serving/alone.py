"""Whether the thread of the event loop may work on a picture itself, while everybody else waits for it.

To hand a request to another thread and back takes a good part of the time of a short one.  So a picture is read and run
where its request came in, if nobody else is there and if the last ones took at most 20 milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

MOST_SECONDS = 0.02
MOST_PIXELS = 1_000_000
MOST_ASPECT = 4
MOST_PIECES = 64  # before the scan of a JPEG
LAST = 8  # short requests whose time is remembered
QUIET_SECONDS = 0.1  # since requests met
_ARRIVAL = 3  # turns of the event loop from the bytes of a request to its task: read, begin, enter

_FRAMES = (b"\xff\xc0", b"\xff\xc1")  # neither progressive, nor without loss, nor with arithmetic coding
_TABLES = tuple(bytes((0xFF, k)) for k in (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))  # also data and comments
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
    """Whether a picture file is read in a time that is known before: a JPEG of one scan and few pixels.

    It is so where the scan has all channels of a frame that is not progressive: what stands behind it is not read.
    What stands before it are at most 64 pieces.  The picture has at most a million pixels, and is not long and thin,
    since it would have more when it is resized.

    Source: ITU T.81, appendix B.
    """
    at, frame = 2, b""
    for _ in range(MOST_PIECES if content.startswith(b"\xff\xd8") else 0):
        marker, length = content[at : at + 2], int.from_bytes(content[at + 2 : at + 4])
        if marker in _FRAMES and not frame:
            frame = content[at + 4 : at + 10]
        elif marker == _SCAN:
            return len(frame) == 6 and frame[5] == content[at + 4] and _is_small(frame)
        elif marker not in _TABLES:
            return False
        at += 2 + length
    return False


def _is_small(frame: bytes) -> bool:
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    return height * width <= MOST_PIXELS and max(height, width) <= MOST_ASPECT * min(height, width)
