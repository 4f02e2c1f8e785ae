"""An encoder of Label Studio's brush masks, written after the words in `data.annotation_formats.brush_rle`."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def rle_of(
    values: NDArray[np.uint8], literal: bool, classes: Sequence[int] = (3, 4, 8, 16), word: int = 8
) -> list[int]:
    """The bytes of the values of a picture, channel by channel: in runs, or literal in pieces of 1 to 8."""
    said = [f"{len(values):032b}{word - 1:05b}", *(f"{n - 1:04b}" for n in classes)]
    if literal:
        for at in range(0, len(values), 8):
            piece = values[at : at + 8]
            said += [f"000{len(piece) - 1:0{classes[0]}b}", *(f"{v:0{word}b}" for v in piece)]
    else:
        edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
        for start, end in pairwise(edges):
            for at in range(start, end, 2 ** classes[3]):
                length = min(end, at + 2 ** classes[3]) - at
                kind = next(k for k, n in enumerate(classes) if length <= 2**n)
                said.append(f"1{kind:02b}{length - 1:0{classes[kind]}b}{values[start]:0{word}b}")
    bits = "".join(said)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
