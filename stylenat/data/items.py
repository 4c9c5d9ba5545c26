"""What every source of images has in common: its items, and what a source is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from stylenat.data.ignored import Ignored

MAX_FILE_BYTES = 2**29
"""A file beyond 512 MiB is not read: no image that fits MAX_PIXELS needs as much."""


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes:
        name: its path within the source; place: what ``read`` needs; position: in units of the source's ``size``.
        label: its class, where the source stores classes (an LMDB).
    """

    name: str
    place: tuple[Any, ...]
    position: int
    label: str | None = None


class Source(Protocol):
    """``kind`` names the sort; ``size`` is the position behind the last item; ``ignored`` counts the files that are not
    taken for images, as far as it was walked."""

    kind: str
    size: int
    ignored: Ignored

    def __iter__(self) -> Iterator[Item]: ...

    def names(self) -> Iterator[str]:
        """Of the items, in their order, without reading them."""

    def file(self, name: str, limit: int) -> bytes | None:
        """Another file at the root, None where there is none; of a longer one, ``limit + 1`` bytes."""
