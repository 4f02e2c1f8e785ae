"""A picture file that is held in memory, such as one that came over a network."""

from __future__ import annotations

import io
from dataclasses import dataclass, field


@dataclass(frozen=True)
class InMemory:
    """The bytes of a file, which is opened like one on disk.

    >>> InMemory(b"GIF8").open("rb").read()
    b'GIF8'
    """

    content: bytes = field(repr=False)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """A new file over the bytes, at their beginning.  mode: only "rb"."""
        assert mode == "rb"
        return io.BytesIO(self.content)
