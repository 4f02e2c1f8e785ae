"""NumPy's global generator is given back as it was, whichever way its state was kept."""

import numpy as np
import pytest
import torch

from clearsight.core import numpy_state, rng


def drawn() -> list[float]:
    return [*np.random.randn(3).tolist(), *np.random.rand(2).tolist()]


@pytest.mark.parametrize("before", [0, 1, 2, 1249])
def test_what_is_drawn_inside_does_not_show_outside(before: int) -> None:
    """Also where half of a pair of normal numbers waits, and when the same state is kept again, by its memory alone."""
    x = torch.rand(1, 1, 2, 2)
    np.random.seed(3)
    np.random.randn(before)
    state = np.random.get_state()
    expected = drawn()
    for _ in range(3):
        np.random.set_state(state)
        with rng.seeded(5, x):
            with rng.seeded(6, x):
                drawn()
            outer = drawn()
            with rng.seeded(5, x):
                assert drawn() == outer  # also where the generator had just been seeded
            half = np.random.randn()
            with rng.seeded(6, x):
                drawn()
            rest = drawn()
        assert drawn() == expected
    np.random.seed(5)
    assert [*drawn(), np.random.randn(), *drawn()] == [*outer, half, *rest]


def test_another_generator_is_kept_by_numpy_itself() -> None:
    before = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(3))
        put_back = numpy_state.kept()
        first = drawn()
        put_back()
        assert drawn() == first
    finally:
        np.random.set_bit_generator(before)


def test_a_state_that_was_seeded_and_drawn_from_is_not_taken_for_a_fresh_one() -> None:
    """What lies in memory differs in the last number alone, which says what is next."""
    numpy_state.seed(5)
    np.random.rand()
    put_back = numpy_state.kept()
    first = drawn()
    numpy_state.seed(6)
    put_back()
    assert drawn() == first
