"""What every command line shares: exit codes, and where the shipped experiments lie."""

import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from registry import UserError
from registry.wording import printable
from stylenat.commands import _streams
from stylenat.commands._limits import name_low_limits
from stylenat.training.interrupt import signals_are_ctrl_c

USER_ERROR, STOPPED = 2, 75

# Before torch is imported: large tensors in huge pages; clearing fresh memory page by page takes a fifth of the time.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[[Sequence[str] | None], int]:
    """Turns a user's mistake into one line on stderr and exit code 2. Faults keep their traceback."""

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        _streams.prepare()
        name_low_limits()
        try:
            with signals_are_ctrl_c():
                try:
                    return main(argv)
                finally:
                    sys.stdout.flush()  # Here, where a failure is still reported.
        except UserError as error:
            print(f"error: {printable(error)}", file=sys.stderr)
            return USER_ERROR
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            print(f"error: the name {printable(error.filename, 80)} is too long; choose a shorter one", file=sys.stderr)
            return USER_ERROR
        except KeyboardInterrupt:
            print("stopped immediately; saved files are kept", file=sys.stderr)
            return STOPPED

    return guarded


LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What ``torchrun``, and whatever else starts several processes as it does, tells each of them."""


def one_of_several() -> bool:
    """Whether this process was started as one of several that share the work.

    Raises UserError where only a part of what ``torchrun`` sets is set: each process would do all of the work alone.
    """
    if {"TORCHELASTIC_RUN_ID", "RANK"} <= os.environ.keys():
        return True
    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if (rank, size) == ("0", "1"):
        return False
    missing = [name for name in LAUNCHED if name not in os.environ]
    if missing or not (rank.isdecimal() and size.isdecimal()):
        lacking = f"{', '.join(missing)} are not set" if missing else "they must be numbers"
        raise UserError(
            f"RANK = {rank} and WORLD_SIZE = {size} ask for several processes, but {lacking}; start them with "
            "`torchrun --nproc-per-node N tools/run.py ...`, or unset both for one process"
        )
    return True


def experiments_folder() -> Path:
    """The shipped gin files: inside the package in a wheel, ``gin/`` in a checkout."""
    package = Path(__file__).parents[1]
    return package / "experiments" if (package / "experiments").is_dir() else package.parent / "gin"


CORE = {"train": "stylenat.training.settings:Training"}
"""The core's own gin selectors."""

ASIDE = {"ablation": "stylenat.ablation.variants:Ablation"}
"""What a gin file may hold beside an experiment. ``run`` passes over it."""
