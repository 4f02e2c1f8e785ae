"""What a server allows, and how it works; each field is an option of `clearsight serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clearsight.errors import Refused, nearest

HIDDEN = ("map", "explain", "embed", "outlier")  # what a server may be told not to tell


@dataclass(frozen=True)
class Settings:
    """Limits of one request, and how requests share the model.

    Args:
        most_bytes: maximum size of a request's body in bytes.
        most_pixels: maximum number of pixels of a picture, from the head of its file, before it is decoded.
        most_rows: maximum number of pictures in one request.
        body_seconds: time that a client has to send its request's body.
        explain_seconds: time that an explanation may take.
        batch: maximum number of pictures that go through the network at once.
        wait: maximum time in seconds that a picture waits for others that have arrived but are not decoded yet.
        waiting: maximum number of requests that are worked on or wait; more are told to come again.
        stop_seconds: time that accepted requests have to end when the server is stopped.

    Refused: numbers that are not above 0; a wait below 0.
    """

    most_bytes: int = 20_000_000
    most_pixels: int = 50_000_000
    most_rows: int = 64
    body_seconds: float = 10.0
    explain_seconds: float = 10.0
    batch: int = 4
    wait: float = 0.002
    waiting: int = 256
    stop_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name != "wait"):
                raise Refused(f"{name}={value}", "give a number above 0")


def check_hidden(hide: Sequence[str]) -> None:
    """Refuse to hide what is not there."""
    for word in hide:
        if word not in HIDDEN:
            raise Refused(f"hide {word!r}", nearest(word, HIDDEN))
