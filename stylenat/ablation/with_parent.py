"""Starts a command that is sent a signal when its parent ends: ``python with_parent.py PARENT SIGNAL COMMAND...``

On Linux; elsewhere the command is started as it is. Run by its path and importing nothing of the project, it takes
milliseconds.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
STOPPED = 75


def main(parent: int, number: int, command: list[str]) -> None:
    """Becomes the command. ``parent``: process id of the caller, which may have ended before this began."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:
            sys.exit(STOPPED)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
