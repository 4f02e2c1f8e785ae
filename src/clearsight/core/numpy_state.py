"""The state of NumPy's global generator, kept and given back: where it was just seeded, as it lies in memory.

NumPy copies its 625 numbers one by one, 25 us each way.  Beside them half of a pair of normal numbers may wait, which
only NumPy can read; behind a seed none does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

import numpy as np

BYTES = 4 * 625  # 624 numbers of 32 bits, and which of them is next
FEW = 4  # of the states behind a seed, that are remembered

_seeded: dict[bytes, int] = {}  # the states behind a seed, with the seed


def seed(number: int) -> None:
    """Seed NumPy's global generator."""
    np.random.seed(number)
    if (state := _state()) is not None:
        _seeded.pop(state, None)
        _seeded[state] = number
        if len(_seeded) > FEW:
            del _seeded[next(iter(_seeded))]


def kept() -> Callable[[], None]:
    """A function that gives NumPy's global generator back as it is now."""
    state = _state()
    if state is not None and (number := _seeded.get(state)) is not None:
        return partial(seed, number)
    return partial(np.random.set_state, np.random.get_state(legacy=False))


def _state() -> bytes | None:
    """The numbers as they lie in memory; None of a generator that is not NumPy's usual one."""
    generator = np.random.mtrand.get_bit_generator()
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, BYTES)
