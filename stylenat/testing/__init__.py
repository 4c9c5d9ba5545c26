"""What every kind of plugin has to keep, as one call each: ``check_partition(MyPartition())`` in a test.

A checker returns nothing, or raises ``ContractError`` (an ``AssertionError``) that says which rule is broken and how.
Kinds that are bound as classes are checked as classes, the others as instances, just as gin has them.
"""

from collections.abc import Callable

from stylenat.testing.attention import check_attention
from stylenat.testing.augmentation import check_augmentation
from stylenat.testing.checkpoint_layout import check_checkpoint_layout
from stylenat.testing.contract import CannotCheck, ContractError
from stylenat.testing.dataset import check_dataset
from stylenat.testing.evaluation import check_features, check_metric
from stylenat.testing.networks import check_block, check_discriminator, check_generator
from stylenat.testing.objective import check_loss, check_regularizer
from stylenat.testing.partition import check_partition
from stylenat.testing.tracker import check_tracker

CHECKERS: dict[str, Callable[..., None]] = {
    "partition": check_partition,
    "attention": check_attention,
    "block": check_block,
    "generator": check_generator,
    "discriminator": check_discriminator,
    "loss": check_loss,
    "regularizer": check_regularizer,
    "augmentation": check_augmentation,
    "dataset": check_dataset,
    "features": check_features,
    "metric": check_metric,
    "tracker": check_tracker,
    "checkpoint_layout": check_checkpoint_layout,
}
"""The checker of each kind."""

__all__ = ["CHECKERS", "CannotCheck", "ContractError", *(checker.__name__ for checker in CHECKERS.values())]
