"""Neighborhood attention with a learned relative position bias, on any device, and HydraAttention around it."""

from stylenat.attention.hydra import HydraAttention
from stylenat.attention.op import neighborhood_attention

__all__ = ["HydraAttention", "neighborhood_attention"]
