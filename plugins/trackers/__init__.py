"""Trackers: objects with lifecycle hooks that show or record a run."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("tracker", "progress", "plugins.trackers.progress:Progress")
    register("tracker", "jsonl", "plugins.trackers.jsonl:JsonLines")
    register("tracker", "aim", "plugins.trackers.aim_tracker:AimTracker")
    register("tracker", "tensorboard", "plugins.trackers.tensorboard:TensorBoard")
    register("tracker", "wandb", "plugins.trackers.wandb:WeightsAndBiases")
    register("tracker", "attention", "plugins.trackers.attention:AttentionStatistics")
