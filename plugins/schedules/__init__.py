"""Schedules: numbers that change during a run."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("schedule", "constant", "plugins.schedules.schedules:Constant")
    register("schedule", "linear_decay", "plugins.schedules.schedules:LinearDecay")
    register("schedule", "warmup", "plugins.schedules.schedules:Warmup")
    register("schedule", "cosine", "plugins.schedules.schedules:Cosine")
    register("schedule", "step", "plugins.schedules.schedules:Step")


@hookimpl
def stylenat_renamed(renamed):
    def decay_start(start):
        if start is None:
            return "train.learning_rate_schedule = None"
        return f"train.learning_rate_schedule = @schedule.linear_decay()\nschedule.linear_decay.start = {start!r}"

    renamed("train.decay_start", decay_start)
