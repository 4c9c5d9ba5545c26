"""StyleNAT: style-based generators with variadic neighborhood attention (arXiv 2211.05770), and their training.

``stylenat.load(PATH)`` is a trained model. Importing this package imports no torch, so that command lines answer at
once. It never imports ``plugins``.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stylenat.model import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Model", "load"):
        from stylenat import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
