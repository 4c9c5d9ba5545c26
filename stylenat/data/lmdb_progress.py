"""The account of a preparation that is not finished: what was read of the source, by which settings."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

NOTED = ("enlarged", "profiles_converted", "profiles_broken", "narrow_range", "several_frames")
"""What is counted of the images: entries of the manifest."""
EARLIER = {"keep_profiles": True, "fit": "crop", "follow_links": False}
"""What earlier versions did where their settings do not say."""


@dataclass
class Progress:
    """How far the source was read: ``consumed`` items, the last of them ``last``; ``count`` became records.

    ``names`` is a hash of all the names so far, in order; empty where an earlier version began.
    """

    settings: dict[str, Any]
    consumed: int = 0
    last: str = ""
    count: int = 0
    skipped: int = 0
    enlarged: int = 0
    profiles_converted: int = 0
    profiles_broken: int = 0
    narrow_range: int = 0
    several_frames: int = 0
    classes: list[str] = field(default_factory=list)
    names: str = ""

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Progress":
        """From a file. Raises TypeError for other names, other types or negative numbers."""
        begun, kinds = cls(**values), cls({})
        for name, default in asdict(kinds).items():
            value = getattr(begun, name)
            if type(value) is not type(default) or (type(value) is int and value < 0):
                raise TypeError(f"{name} is {value!r}")
        if not all(isinstance(name, str) for name in begun.classes):
            raise TypeError("a class that is no text")
        return begun


def chained(names: str, name: str) -> str:
    """``Progress.names`` with one more."""
    return hashlib.sha256(f"{names}/{name}".encode(errors="surrogateescape")).hexdigest()


def differing(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings of a data set that are not the wanted ones, in words; empty if all are."""
    other = [name for name, value in wanted.items() if made.get(name) != value]
    return "; ".join(f"{name} {made.get(name)}, not {wanted[name]}" for name in other)
