"""One metric that fails is one line and no value; the others go on. What is not the metric's own fault goes on up."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import distributed

from registry import UserError
from registry.wording import printable, reason
from stylenat.free_memory import memory_ran_out
from stylenat.ranks import rank

Result = TypeVar("Result")

NOT_THE_METRICS = (MemoryError, torch.OutOfMemoryError, distributed.DistError)
"""Memory that ran out and lost processes concern the whole run. Requests to stop are no ``Exception`` at all."""


def attempted(work: Callable[[], Result]) -> tuple[Result | None, str | None]:
    """Calls a metric's own code: its result and None, or None and the reason why there is no result.

    Several processes must agree afterwards (``ranks.known_to_all``): it may have failed in one of them alone. Hence no
    ``work`` may contain a collective operation.
    """
    try:
        return work(), None
    except NOT_THE_METRICS:
        raise
    except UserError as error:
        return None, str(error) or type(error).__name__
    except Exception as error:  # Plugins raise whatever they like.
        if memory_ran_out(error):
            raise
        return None, reason(error)


def lines_of(failed: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each reason, from (name of a value, reason)."""
    names: dict[str, list[str]] = {}
    for name, why in failed:
        names.setdefault(why, []).append(name)
    return [printable(f"{', '.join(those)} not measured: {why}") for why, those in names.items()]


def say(line: str) -> None:
    """On stderr, by process 0 alone."""
    if rank() == 0:
        print(line, file=sys.stderr, flush=True)
