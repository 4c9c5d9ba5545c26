"""The kinds of things that a gin file can name. Their interfaces are the core's (``stylenat.interfaces``).

A parameter called like a kind, or its plural (``loss``, ``metrics``), takes things of that kind alone.
"""

from dataclasses import dataclass

API_VERSION = 1
"""What plugins can rely on. Raised with whatever is new to them: a hook, a kind, a field of ``AttentionSite``."""

OLDEST_API_VERSION = 1
"""The oldest that still works. Raised, in a release that says so a version ahead, when something is taken away.

A plugin says which it was written for with ``STYLENAT_API = 1`` beside its ``stylenat_register``, and is loaded
when that lies between the two. One that does not say is taken to fit.
"""


@dataclass(frozen=True)
class Kind:
    """What a gin file binds when it names something of this kind.

    Attributes:
        doc: one line.
        bound_as_class: True for ``@block.hydra`` (its user builds many), False for ``@partition.split()``.
        supplied: arguments that the consumer passes and a gin file therefore cannot bind.
    """

    doc: str
    bound_as_class: bool = False
    supplied: tuple[str, ...] = ()


def kind_of_parameter(name: str) -> str | None:
    """The kind that a parameter's name promises: ``metric`` for ``metric`` and ``metrics``."""
    return next((kind for kind in KINDS if name in (kind, f"{kind}s", f"{kind}es")), None)


KINDS: dict[str, Kind] = {
    "partition": Kind("splits the heads of a layer into groups with a kernel size and a dilation each"),
    "attention": Kind("one way to compute the neighborhood attention op"),
    "block": Kind("one generator block", bound_as_class=True, supplied=("site", "style_dim")),
    "generator": Kind("the network from latents to images", bound_as_class=True),
    "discriminator": Kind("the network from images to logits", bound_as_class=True),
    "loss": Kind("an adversarial loss"),
    "regularizer": Kind("an extra term of one network's loss"),
    "augmentation": Kind("what every image passes on its way into the discriminator"),
    "dataset": Kind("real images"),
    "features": Kind("an image embedding that metrics are measured in"),
    "metric": Kind("compares generated with real images"),
    "tracker": Kind("records a run while it trains"),
    "checkpoint_layout": Kind("how others' checkpoints name their weights"),
}
