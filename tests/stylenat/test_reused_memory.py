"""Freed memory is used again: the kernel clears no new pages for the next tensor of the same size."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from stylenat.reused_memory import given_back, reuse_freed_memory
print(reuse_freed_memory())
def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(64 * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
torch.set_num_threads(1)
def least():
    print(min(touched() for _ in range(8)) * resource.getpagesize() / 2**20)
least()
with given_back():
    least()
least()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc's allocator")
@pytest.mark.parametrize("own", ["", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_next_tensor_takes_no_new_pages_unless_the_user_has_set_the_allocator(own):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "THP_"))
    }
    environment |= {own: "8" if own.startswith("MALLOC") else "glibc.malloc.arena_max=8"} if own else {}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    reused, *touched = ended.stdout.split()
    assert reused == str(not own)
    assert [float(mebibytes) > 32 for mebibytes in touched] == [bool(own), True, bool(own)], touched
