"""Files of pictures written byte by byte, so that every value in them is known: TIFF, PNG and BMP."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

_SIZES = {1: "B", 3: "H", 4: "I", 9: "i", 11: "f"}  # the types of TIFF's tags


def packed(values: np.ndarray, bits: int, kind: int, order: str) -> bytes:
    """(H, N) -> bytes, each row beginning at a byte.  kind: 1 unsigned, 2 signed, 3 floating point; order: < or >."""
    if kind == 3:
        return values.astype(f"{order}f{bits // 8}").tobytes()
    if bits % 8 == 0:
        return values.astype(f"{order}{'ui'[kind - 1]}{bits // 8}").tobytes()
    rows = []
    for row in values:
        text = "".join(format(int(v) & (2**bits - 1), f"0{bits}b") for v in row)
        text += "0" * (-len(text) % 8)
        rows += [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]
    return bytes(rows)


def tiff(
    values: np.ndarray,
    bits: int,
    photometric: int,
    kind: int = 1,
    order: str = "<",
    fill: int = 1,
    planar: int = 1,
    extra: Sequence[int] = (),
    deflated: bool = False,
    tags: Mapping[int, tuple[int, Sequence[float]]] | None = None,
    without: Sequence[int] = (),
) -> bytes:
    """A TIFF of (H, W, bands): its values, the tags that say what they are, and more {number: (type, values)}."""
    high, wide, bands = values.shape
    planes = [values.reshape(high, -1)] if planar == 1 else [values[..., i] for i in range(bands)]
    strips = [packed(plane, bits, kind, order) for plane in planes]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    strips = [bytes(int(f"{b:08b}"[::-1], 2) for b in strip) for strip in strips] if fill == 2 else strips
    says = {256: (3, [wide]), 257: (3, [high]), 258: (3, [bits] * bands), 259: (3, [8 if deflated else 1])}
    says |= {262: (3, [photometric]), 266: (3, [fill]), 273: (4, [0] * len(strips)), 277: (3, [bands])}
    says |= {278: (3, [high]), 279: (4, [len(strip) for strip in strips]), 284: (3, [planar]), 339: (3, [kind] * bands)}
    says |= {338: (3, list(extra))} if extra else {}
    says |= {k: (t, list(v)) for k, (t, v) in (tags or {}).items()}
    says = {k: v for k, v in says.items() if k not in without}
    beyond = 8 + 2 + 12 * len(says) + 4
    lengths = {k: len(v) * struct.calcsize(_SIZES[t]) for k, (t, v) in says.items()}
    data_at = beyond + sum(n + n % 2 for n in lengths.values() if n > 4)
    says[273] = (4, [data_at + sum(map(len, strips[:i])) for i in range(len(strips))])
    table, more = struct.pack(order + "H", len(says)), b""
    for number, (kind_of, numbers) in sorted(says.items()):
        raw = struct.pack(f"{order}{len(numbers)}{_SIZES[kind_of]}", *numbers)
        table += struct.pack(order + "HHI", number, kind_of, len(numbers))
        table += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(order + "I", beyond + len(more))
        more += raw + b"\0" * (len(raw) % 2) if len(raw) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + table + struct.pack(order + "I", 0) + more + b"".join(strips)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: np.ndarray, bits: int, colour: int, before: bytes = b"") -> bytes:
    """A PNG of (H, W, bands); colour: its type (0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA); before: chunks."""
    high, wide, _ = values.shape
    rows = [b"\0" + packed(row.reshape(1, -1), bits, 1, ">") for row in values]
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, bits, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + head + before + data + chunk(b"IEND", b"")


def bmp(values: np.ndarray, bits: int, masks: Sequence[int] = ()) -> bytes:
    """A BMP of (H, W) whole pixels of 16 or 32 bits, with the masks that say where its colours lie."""
    high, wide = values.shape
    rows = [row.astype(f"<u{bits // 8}").tobytes() for row in values[::-1]]
    data = b"".join(row + b"\0" * (-len(row) % 4) for row in rows)
    size = 108 if len(masks) == 4 else 40
    compression, more = (3 if masks else 0), struct.pack(f"<{len(masks)}I", *masks)
    about = struct.pack("<IiiHHIIiiII", size, wide, high, 1, bits, compression, len(data), 0, 0, 0, 0)
    about += more.ljust(68, b"\0") if size == 108 else more
    return struct.pack("<2sIHHI", b"BM", 14 + len(about) + len(data), 0, 0, 14 + len(about)) + about + data
