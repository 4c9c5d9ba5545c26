"""The kinds of things that a gin file can name: one row each, and all that the framework knows of a kind.

``--list``, the contract checkers (``stylenat.testing``), ``new_plugin`` and the tests of the docs read this table.
A new kind is a row here, the functions that the row names, ``stylenat/templates/KIND.txt`` (the example plugin), and
a row in docs/plugins.md.
"""

import importlib
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

API_VERSION = 2
"""What plugins can rely on. Raised with whatever is new to them: a hook, a kind, a field of ``AttentionSite``."""

OLDEST_API_VERSION = 2
"""The oldest that still works. Raised when something is taken away.

A plugin says which it was written for with ``STYLENAT_API = 2`` beside its ``stylenat_register``, and is loaded
when that lies between the two. One that does not say is taken to fit.
"""

CHANGES = "networks were given class labels and losses the logits of both sets"
"""What plugins of API 1 do not know, in a few words."""


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        doc: one line.
        protocol: the interface that things of this kind implement, as ``"module:Class"``.
        checker: the function that holds a plugin to it, as ``"module:function"``; named ``check_KIND``.
        example: lines that put ``$name`` into ``quickstart.gin`` (a ``string.Template``).
        check: how an example's test calls the checker.
        bound_as_class: True for ``@block.hydra`` (its consumer builds many), False for ``@partition.split()``.
        supplied: arguments that the consumer passes and a gin file therefore cannot bind.
    """

    doc: str
    protocol: str
    checker: str
    example: str
    check: str = "check_$kind($Class())"
    bound_as_class: bool = False
    supplied: tuple[str, ...] = ()


# fmt: off
KINDS: dict[str, Kind] = {
    "partition": Kind(
        "splits the heads of a layer into groups with a kernel size and a dilation each",
        "stylenat.interfaces:Partition", "stylenat.testing.partition:check_partition",
        "block.hydra.partition = @partition.$name()"),
    "attention": Kind(
        "one way to compute the neighborhood attention op",
        "stylenat.interfaces:AttentionBackend", "stylenat.testing.attention:check_attention",
        "block.hydra.backend = @attention.$name()"),
    "block": Kind(
        "one generator block",
        "stylenat.interfaces:Block", "stylenat.testing.networks:check_block",
        "generator.style.block = @block.$name",
        "check_block($Class)", bound_as_class=True, supplied=("site", "style_dim")),
    "generator": Kind(
        "the network from latents to images",
        "stylenat.interfaces:Generator", "stylenat.testing.networks:check_generator",
        "train.generator = @generator.$name\ngenerator.$name.resolution = %SIDE",
        "check_generator($Class, resolution=16)", bound_as_class=True),
    "discriminator": Kind(
        "the network from images to logits",
        "stylenat.interfaces:Discriminator", "stylenat.testing.networks:check_discriminator",
        "train.discriminator = @discriminator.$name\ndiscriminator.$name.resolution = %SIDE",
        "check_discriminator($Class, resolution=16)", bound_as_class=True),
    "backbone": Kind(
        "a network from float images to feature maps, differentiable",
        "stylenat.interfaces:Backbone", "stylenat.testing.backbone:check_backbone",
        "train.discriminator = @discriminator.projected\ndiscriminator.projected.resolution = %SIDE\n"
        "discriminator.projected.pixel_space = 'imagenet'\ndiscriminator.projected.backbones = [@backbone.$name]",
        "check_backbone($Class)", bound_as_class=True),
    "loss": Kind(
        "an adversarial loss",
        "stylenat.interfaces:Loss", "stylenat.testing.objective:check_loss",
        "train.loss = @loss.$name()"),
    "regularizer": Kind(
        "an extra term of one network's loss",
        "stylenat.interfaces:Regularizer", "stylenat.testing.objective:check_regularizer",
        "train.regularizers = [@regularizer.r1(), @regularizer.$name()]"),
    "recipe": Kind(
        "what an iteration steps, in which order, from which images and fakes",
        "stylenat.interfaces:Recipe", "stylenat.testing.recipe:check_recipe",
        "train.recipe = @recipe.$name()"),
    "optimizer": Kind(
        "makes the optimizer of one network",
        "stylenat.interfaces:Optimizer", "stylenat.testing.recipe:check_optimizer",
        "train.generator_optimizer = @optimizer.$name()"),
    "schedule": Kind(
        "a number that moves in time",
        "stylenat.interfaces:Schedule", "stylenat.testing.recipe:check_schedule",
        "train.learning_rate_schedule = @schedule.$name()"),
    "average": Kind(
        "averages of the generator's weights, which are sampled and measured",
        "stylenat.interfaces:Average", "stylenat.testing.recipe:check_average",
        "train.average = @average.$name()"),
    "augmentation": Kind(
        "what every image passes on its way into the discriminator",
        "stylenat.interfaces:Augmentation", "stylenat.testing.augmentation:check_augmentation",
        "train.augmentation = @augmentation.$name()"),
    "dataset": Kind(
        "real images",
        "stylenat.interfaces:Dataset", "stylenat.testing.dataset:check_dataset",
        "train.dataset = @dataset.$name()\ndataset.$name.resolution = %SIDE",
        "check_dataset($Class(resolution=16))"),
    "features": Kind(
        "an image embedding that metrics are measured in",
        "stylenat.interfaces:Features", "stylenat.testing.evaluation:check_features",
        "metric.frechet_random_features.features = @features.$name()"),
    "metric": Kind(
        "compares generated with real images",
        "stylenat.interfaces:Metric", "stylenat.testing.evaluation:check_metric",
        "train.metrics = [@metric.frechet_random_features(), @metric.$name()]"),
    "tracker": Kind(
        "records a run while it trains",
        "stylenat.interfaces:Tracker", "stylenat.testing.tracker:check_tracker",
        "train.trackers = [@tracker.progress(), @tracker.$name()]",
        "check_tracker($Class(), tmp_path)"),
    "checkpoint_layout": Kind(
        "how others' checkpoints name their weights",
        "stylenat.interfaces:CheckpointLayout", "stylenat.testing.checkpoint_layout:check_checkpoint_layout",
        "# A layout is found by the names in a checkpoint (tools/import_weights.py): nothing to bind."),
}
# fmt: on


def kind_of_parameter(name: str) -> str | None:
    """The kind that a parameter's name promises: ``metric`` for ``metric`` and ``metrics``."""
    return next((kind for kind in KINDS if name in (kind, f"{kind}s", f"{kind}es")), None)


def imported(target: str) -> Any:
    """What ``"package.module:attribute"`` names. Raises whatever importing it raises."""
    module, _, attribute = target.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))
