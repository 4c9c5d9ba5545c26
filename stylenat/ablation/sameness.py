"""Whether two variants are the same model: what is built is compared, and the gin settings of everything else."""

import hashlib
import json
import re
from collections.abc import Mapping

from torch import nn

from stylenat.comparison.parameters import WATCHING
from stylenat.networks.neighborhoods import neighborhoods

PARTITION = re.compile(r"@(?:[\w/.-]+/)?partition\.\w")
"""A reference to a head partition in gin text with full selectors."""
SEEN = (
    *("generator.style.channels", "generator.style.channel_multiplier"),
    *("generator.style.head_dim", "generator.style.min_heads"),
    *("discriminator.wavelet.channels", "discriminator.wavelet.channel_multiplier"),
)
"""Parameters whose whole effect is in the attention sites and the parameters' shapes."""


def model_of(settings: Mapping[str, str], generator: nn.Module, discriminator: nn.Module) -> str:
    """A checksum that two experiments share if they are the same model, trained and measured alike but for the seed.

    Built networks answer for ``block.hydra.partition`` and for widths: the head groups and site of every attention
    layer, and the shape of every parameter and buffer. All other settings count as they are written.

    Args:
        settings: everything in use as gin text by parameter; generator, discriminator: as built from it, on any device.
    """
    kept = {name: text for name, text in settings.items() if not name.startswith(WATCHING) and _bare(name) not in SEEN}
    seen = {name for name in kept if _bare(name) == "block.hydra.partition"}
    referring = {name for name, text in kept.items() if PARTITION.search(text)}
    if referring <= seen:  # Else something uses a partition in a way that is not seen here.
        kept = {name: text for name, text in kept.items() if name not in seen and not _is_partition(name)}
    shapes = [[(name, list(t.shape)) for name, t in net.state_dict().items()] for net in (generator, discriminator)]
    layers = [[repr(site), [repr(group) for group in groups]] for site, groups in neighborhoods(generator)]
    sites = repr(getattr(generator, "sites", None))
    text = json.dumps([sorted(kept.items()), sites, layers, shapes])
    return hashlib.sha256(text.encode()).hexdigest()


def _bare(name: str) -> str:
    """Without gin scopes."""
    return name.rpartition("/")[2]


def _is_partition(name: str) -> bool:
    return _bare(name).startswith("partition.")
