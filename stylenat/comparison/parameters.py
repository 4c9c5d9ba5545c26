"""Which parameters tell experiments apart."""

from collections.abc import Mapping, Sequence

WATCHING = ("train.seed", "train.threads", "train.workers", "train.trackers", "tracker.")
"""What makes no experiment another one: its seed, how it is computed, and who watches."""


def telling(experiments: Sequence[Mapping[str, str]]) -> list[str]:
    """The parameters that differ, without those that another one's difference implies; sorted.

    A parameter that only some experiments use, and that has one value in all of those, comes with a part that is
    named elsewhere: where ``block.hydra.partition`` differs, ``partition.split.kernel_size`` says nothing more.
    """
    names = sorted({name for experiment in experiments for name in experiment})
    return [
        name for name in names if not name.startswith(WATCHING) and len({e[name] for e in experiments if name in e}) > 1
    ]
