"""What the heads of a built network look at, as plain values."""

from torch import nn

from registry import AttentionSite, HeadGroup
from stylenat.attention.hydra import HydraAttention

Neighborhoods = tuple[tuple[AttentionSite, tuple[HeadGroup, ...]], ...]


def neighborhoods(generator: nn.Module) -> Neighborhoods:
    """The head groups of each attention layer that has any, with its site; empty where a generator names no sites."""
    found = []
    for sites, stage in zip(getattr(generator, "sites", []), getattr(generator, "stages", []), strict=False):
        for site, block in zip(sites, stage.blocks, strict=True):
            found += [(site, tuple(m.groups)) for m in block.modules() if isinstance(m, HydraAttention)]
    return tuple(found)
