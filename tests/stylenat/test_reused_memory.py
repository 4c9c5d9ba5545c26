"""Freed memory is used again: the kernel clears no new pages for the next block of the same size."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
from pathlib import Path
from stylenat.reused_memory import given_back, reuse_freed_memory
print(reuse_freed_memory())
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(64 * 2**20))
    libc.memset(block, 1, ctypes.c_size_t(64 * 2**20))
    libc.free(block)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / 2**20
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
print(min(touched() for _ in range(8)))
before = held()
with given_back():
    print(before - held())
print(min(touched() for _ in range(8)))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or sys.platform != "linux", reason="it is about glibc's allocator"
)
@pytest.mark.parametrize("own", ["", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_next_block_takes_no_new_pages_unless_the_user_has_set_the_allocator(own):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "THP_"))
    }
    environment |= {own: "8" if own.startswith("MALLOC") else "glibc.malloc.arena_max=8"} if own else {}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    reused, *mebibytes = ended.stdout.split()
    touched, given, touched_again = map(float, mebibytes)
    assert reused == str(not own)
    if own:
        assert min(touched, touched_again) > 32 and abs(given) < 1
    else:
        assert max(touched, touched_again) < 1 and given > 32
