"""Main memory: how much this process can still take, and how it looks when it ran out.

Where a process takes more than there is, the kernel kills it without a message, unless a limit (``ulimit``) or the
kernel's accounting refuses the memory before.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

NO_LIMIT = 2**60
"""Control groups of version 1 have a limit of about 2 ** 63 where there is none."""


def memory_ran_out(error: BaseException) -> bool:
    """Whether the error says so, of a GPU's memory or of the main one."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # PyTorch has no type for it.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes: what the machine has left, and at most what control groups, as of containers, leave to this process.

    None where the system does not say, as outside of Linux. Swap counts, files that the kernel can drop too.

    Args:
        root: of the file system that describes the machine.
    """
    known = [*_of_machine(root), *_of_groups(root)]
    return max(min(known), 0) if known else None


def _of_machine(root: Path) -> Iterator[int]:
    values = _numbers(root / "proc/meminfo")
    if "MemAvailable:" in values:
        yield 1024 * (values["MemAvailable:"] + values.get("SwapFree:", 0))


def _of_groups(root: Path) -> Iterator[int]:
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        mounted = root / "sys/fs/cgroup"
        if "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            mounted = mounted / "memory"
        elif not controllers:
            names = "memory.max", "memory.current", "inactive_file"
        else:
            continue
        # The limits of the groups around it hold too. In a container its own may be the root.
        inner = (mounted / path.lstrip("/")).relative_to(mounted)
        for folder in (mounted / inner, *(mounted / above for above in inner.parents)):
            yield from _of_group(folder, *names)


def _of_group(folder: Path, limit: str, usage: str, droppable: str) -> Iterator[int]:
    try:
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
    except (OSError, ValueError):  # It is not there, or has no limit.
        return
    if most < NO_LIMIT:
        yield most - used + _numbers(folder / "memory.stat").get(droppable, 0)


def _numbers(path: Path) -> dict[str, int]:
    """The second word of each line by the first; empty for a file that cannot be read."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdecimal()}
