"""Read how many bits the values of a JPEG 2000 file have, which Pillow does not keep.

Source: ITU-T T.800 (ISO/IEC 15444-1), A.5.1 (the marker SIZ) and annex I (boxes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clearsight.data.in_memory import InMemory
from clearsight.errors import Refused

SAVE = "save it as PNG"
_CODESTREAM = b"\xff\x4f\xff\x51"


def depth(path: Path | InMemory, mode: str) -> int:
    """The bits of each band.  mode: what Pillow reads the file as; Refused where it would lose or misread bits."""
    with path.open("rb") as file:
        codestream, defined = _find_codestream(file)
        file.seek(codestream)
        start = file.read(42)
        if len(start) < 42 or start[:4] != _CODESTREAM:
            raise Refused("truncated or damaged JPEG 2000")
        bands = struct.unpack_from(">H", start, 40)[0]
        parts = file.read(3 * bands)[::3]
    depths = {(part & 0x7F) + 1 for part in parts}
    if not parts or any(part & 0x80 for part in parts):
        raise Refused(f"JPEG 2000 of signed values, whose white is unknown: {SAVE}")
    if len(depths) > 1:
        raise Refused(f"JPEG 2000 whose bands have {' and '.join(map(str, sorted(depths)))} bits: {SAVE}")
    bits = depths.pop()
    if bits > 16 or (bits > 8 and not mode.startswith("I;16")) or (bits != 8 and mode in ("P", "PA")):
        raise Refused(f"JPEG 2000 colour of {bits} bits, of which only 8 are supported: {SAVE}")
    if mode in ("LA", "RGBA", "PA") and not defined:
        raise Refused(
            f"JPEG 2000 of {bands} bands, and the file does not say what the last one is: save those that the model "
            "was trained on as a picture of their own"
        )
    return bits


def _find_codestream(file: IO[bytes]) -> tuple[int, bool]:
    """Where the codestream begins, and whether the file says which band is transparency (the box cdef)."""
    if file.read(4) == _CODESTREAM:
        return 0, False
    defined = False
    for kind, begins, ends in _boxes(file, 0, 2**62):
        if kind == b"jp2c":
            return begins, defined
        if kind == b"jp2h":
            defined = any(inner == b"cdef" for inner, _, _ in _boxes(file, begins, ends))
    raise Refused("truncated or damaged JPEG 2000")


def _boxes(file: IO[bytes], at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, where its content begins, where it ends) of every box between two places."""
    while at < end:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        begins = at + 8
        if length == 1 and len(head) == 16:
            length, begins = struct.unpack_from(">Q", head, 8)[0], at + 16
        ends = end if length == 0 else at + length
        if ends < begins:
            return
        yield kind, begins, ends
        at = ends
