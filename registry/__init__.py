"""The core's vocabulary: hooks, and small values that pass between the core and plugins. No torch, no GANs."""

from registry.errors import UserError
from registry.hooks import hookimpl, hookspec
from registry.values import AttentionSite, HeadGroup, even_groups

__all__ = ["AttentionSite", "HeadGroup", "UserError", "even_groups", "hookimpl", "hookspec"]
