"""Files of extractors' weights, given to the extractors that they belong to."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from registry import UserError
from stylenat import weights


def provide(sources: Sequence[Any], files: Iterable[Path], download: bool = False) -> None:
    """Gives the extractors their weights' files, and permission to fetch the others.

    Raises:
        UserError: a file is missing, unreadable, or of none of these extractors.
    """
    for path in files:
        if not path.is_file():
            raise UserError(f"--extractor-weights: there is no file {path}")
        state = weights.read(path).states.get("", {})
        if not any([source.take(path, state) for source in sources if hasattr(source, "take")]):
            names = ", ".join(sorted({source.name for source in sources if hasattr(source, "take")})) or "none"
            raise UserError(f"{path} holds weights of none of the extractors that are used ({names})")
    for source in sources:
        if download and hasattr(source, "download"):
            source.download = True
