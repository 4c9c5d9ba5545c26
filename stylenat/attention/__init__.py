"""Neighborhood attention with a learned relative position bias, on any device, and HydraAttention around it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylenat.attention.hydra import HydraAttention
    from stylenat.attention.op import neighborhood_attention

__all__ = ["HydraAttention", "neighborhood_attention"]

# On first use: pictures of partitions need ``window`` from this package, and no torch.
_HOMES = {"HydraAttention": "stylenat.attention.hydra", "neighborhood_attention": "stylenat.attention.op"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
