"""Limits of the shell (``ulimit``) under which PyTorch cannot be loaded, aborts, or is ended by a signal."""

import resource
import sys

LIMITS = (
    ("-v", resource.RLIMIT_AS, 8 * 2**30),
    ("-d", resource.RLIMIT_DATA, 4 * 2**30),
    ("-s", resource.RLIMIT_STACK, 256 * 2**10),
)
"""The option of ``ulimit``, the limit, and the bytes below which it is named."""


def name_low_limits() -> None:
    """Prints a line for each limit that is low. It must come first: an abort leaves no time for a message."""
    for option, limit, enough in LIMITS:
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and soft < enough:
            print(
                f"note: `ulimit {option}` allows this process {soft // 1024} KiB, and PyTorch may need "
                f"{enough // 1024}; if the command fails, raise the limit (`ulimit {option} {enough // 1024}`)",
                file=sys.stderr,
            )
