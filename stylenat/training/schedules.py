"""Numbers that move in time: whether those of an experiment stay valid throughout its run."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from registry import UserError
from stylenat.interfaces import Schedule, Time

if TYPE_CHECKING:
    from stylenat.training.settings import Training

LOOKED_AT = 100
"""Iterations, from the first to the last, in which each schedule is evaluated before a run starts."""


def check_schedules(settings: "Training") -> None:
    """Evaluates the schedules of the run and of its parts.

    Raises:
        UserError: one is negative, not finite or no number.
    """
    parts = {
        "train": settings,
        "train.loss": settings.loss,
        "train.augmentation": settings.augmentation,
        "train.average": settings.average,
        "train.generator_optimizer": settings.generator_optimizer,
        "train.discriminator_optimizer": settings.discriminator_optimizer,
    }
    parts |= {f"regularizer {regularizer.name!r}": regularizer for regularizer in settings.regularizers}
    for owner, part in parts.items():
        for name, schedule in schedules_of(part):
            check_schedule(
                f"train.{name}" if part is settings else f"{owner}: {name}",
                schedule,
                settings.iterations,
                settings.batch_size,
            )


def check_schedule(name: str, schedule: Schedule, iterations: int, batch_size: int) -> None:
    """Raises UserError where the schedule has no finite value from 0 in an iteration of a run of so many."""
    if hasattr(schedule, "check"):
        schedule.check(iterations)
    for iteration in sorted({(iterations - 1) * i // (LOOKED_AT - 1) for i in range(LOOKED_AT)}):
        value = schedule(Time(iteration, iteration * batch_size, iterations, batch_size))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise UserError(
                f"{name} is {value!r} in iteration {iteration}; a schedule has to give finite numbers from 0 "
                "throughout the run"
            )


def schedules_of(part: Any) -> Iterator[tuple[str, Schedule]]:
    """The schedules that an object was given, by its parameters' names, under which it keeps them."""
    hints = get_type_hints(type(part).__init__) if hasattr(type(part).__init__, "__annotations__") else {}
    for name, hint in hints.items():
        value = getattr(part, name, None)
        for item in value if isinstance(value, list | tuple) else [value]:
            if callable(item) and _mentions_schedule(hint):
                yield name, item


def _mentions_schedule(hint: Any) -> bool:
    return hint is Schedule or any(map(_mentions_schedule, get_args(hint)))
