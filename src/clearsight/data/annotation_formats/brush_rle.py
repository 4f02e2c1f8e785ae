"""Label Studio's brush masks: the bit stream of @thi.ng/rle-pack over the RGBA values of the picture, row by row.

32 bits: how many values there are; 5 bits: bits of a value, less 1; 4 times 4 bits: bits of a length, less 1, in each
of four classes.  Then runs: 1 bit, whether one value is repeated; 2 bits, the class; the length, less 1; then the value
once, or each value where they are not repeated.  It is not COCO's RLE.
"""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from clearsight.data.annotation_formats.regions import Size
from clearsight.data.annotation_formats.sheets import by
from clearsight.data.images import MOST_PIXELS
from clearsight.errors import Refused


def decode(rle: object, size: Size) -> NDArray[np.bool_]:
    """bool (H, W), True where alpha is not 0.  rle: bytes as a list of numbers.  size: (width, height) of the picture.

    Decodes at most four values of each pixel, however many the stream promises.  Raises Refused with the reason alone
    for a stream that is invalid, ends early, goes on after its end or does not fill the picture.
    """
    try:
        data = bytes(rle if isinstance(rle, list) else [-1])
    except (TypeError, ValueError):
        raise Refused("its rle is not a list of bytes") from None
    area = size[0] * size[1]
    if area > MOST_PIXELS:
        raise Refused(f"a picture of {by(size)} pixels, more than {MOST_PIXELS / 1e6:.0f} million")
    bits = _Bits(data)
    count, word = bits.read(32), bits.read(5) + 1
    classes = [bits.read(4) + 1 for _ in range(4)]
    if count != 4 * area:
        raise Refused(f"its rle holds {count} values, not 4 for each of {by(size)} pixels")
    ends, inside, at = array("Q", [0]), bytearray(), 0
    while at < count:
        repeated, length = bits.read(1), bits.read(classes[bits.read(2)]) + 1
        if at + length > count:
            raise Refused("its rle runs beyond the picture")
        ends.extend([at + length] if repeated else range(at + 1, at + length + 1))
        inside += bits.set_in(1 if repeated else length, word)
        at += length
    if bits.has_data_left():
        raise Refused("its rle goes on after the last pixel")
    # values 3, 7, 11, ... are alpha: end // 4 of them lie before an end
    alphas = np.diff(np.frombuffer(ends, np.uint64).astype(np.int64) // 4)
    return np.repeat(np.frombuffer(inside, bool), alphas).reshape(size[1], size[0])


class _Bits:
    """Numbers from a stream of bits, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, n: int) -> int:
        """The next n bits, at most 32, as a number."""
        end = self.at + n
        if end > 8 * len(self.data):
            raise Refused("its rle ends before the last pixel")
        last = (end + 7) // 8
        window = int.from_bytes(self.data[self.at // 8 : last], "big")
        self.at = end
        return (window >> (8 * last - end)) & ((1 << n) - 1)

    def set_in(self, count: int, n: int) -> bytes:
        """For each of the next numbers of n bits, 1 where it is not 0."""
        if count == 1:
            return bytes([self.read(n) != 0])
        start, end = self.at, self.at + count * n
        if end > 8 * len(self.data):
            raise Refused("its rle ends before the last pixel")
        self.at = end
        single = np.unpackbits(np.frombuffer(self.data[start // 8 : (end + 7) // 8], np.uint8))
        return single[start % 8 : start % 8 + count * n].reshape(count, n).any(1).tobytes()

    def has_data_left(self) -> bool:
        """Whether any bit that follows is set: the last byte is filled up with zeros, and one of zeros may follow."""
        remaining = 8 * len(self.data) - self.at
        return remaining > 16 or (remaining > 0 and self.read(remaining) != 0)
