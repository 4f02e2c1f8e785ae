"""Freed memory stays with the process only where it was asked for."""

import subprocess
import sys

import pytest

import clearsight as cs

# Counts the pages of 8 blocks of 40 MB, each freed before the next: the system clears them anew, or once.
BLOCKS = """
import resource, sys
from clearsight.core.memory import reuse_memory
if sys.argv[1] == "reuse" and not reuse_memory():
    sys.exit("unable")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    block = bytearray(b"1") * (40 * 2**20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", BLOCKS, word], capture_output=True, text=True)
    if "unable" in done.stderr:
        pytest.skip("this system's C library has no mallopt")
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_blocks_are_cleared_once_when_memory_is_reused_and_every_time_when_it_is_not() -> None:
    assert 4 * faults("reuse") < faults("leave")


@pytest.mark.parametrize("free", [-1, 2**31])
def test_what_the_system_cannot_keep_is_refused(free: int) -> None:
    with pytest.raises(cs.Refused, match=f"free is {free} bytes"):
        cs.reuse_memory(free)
