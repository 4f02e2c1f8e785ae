"""Freed memory stays with the process only where it was asked for."""

import os
import platform
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


# Counts the pages of three blocks of 8 MB that are filled and freed together, as layers of a small network are.
PASSES = """
import ctypes, resource, sys
from clearsight.core.memory import free_one_block
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def filled():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [c.malloc(8 * 2**20) for _ in range(3)]
    for b in blocks:
        ctypes.memset(ctypes.c_void_p(b), 1, 8 * 2**20)
    for b in blocks[::-1]:
        c.free(b)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [filled() for _ in range(3)][-1]
free_one_block()
print(usual, [filled() for _ in range(2)][-1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's thresholds")
def test_what_passes_of_a_small_network_free_stays_once_a_large_block_has_been_freed() -> None:
    done = subprocess.run([sys.executable, "-c", PASSES], capture_output=True, text=True, env=unset_thresholds())
    usual, after = (int(k) for k in done.stdout.split())
    assert 4 * after < usual


def unset_thresholds() -> dict[str, str]:
    """This process's environment without what tells glibc how much to keep."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}


@pytest.mark.parametrize("free", [-1, 2**31])
def test_what_the_system_cannot_keep_is_refused(free: int) -> None:
    with pytest.raises(cs.Refused, match=f"free is {free} bytes"):
        cs.reuse_memory(free)
