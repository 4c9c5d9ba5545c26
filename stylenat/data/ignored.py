"""Files of a source that are not taken for images, counted by the reason."""

import os
from collections import Counter
from pathlib import Path

REASONS = 100
"""Different ones that are counted apart; names come from other people."""
LONGEST_SUFFIX = 16
SHOWN = 8
HIDDEN, NO_SUFFIX, OTHER = "hidden", "without a suffix", "with other suffixes"
LINKED_FOLDER = "links to folders"
LINK, SPECIAL = "links", "pipes or devices"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, has a name that begins with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


class Ignored(Counter[str]):
    """How many files were ignored, by the suffix or another reason."""

    def add(self, reason: str) -> None:
        self[reason if reason in self or len(self) < REASONS else OTHER] += 1

    def add_file(self, name: str) -> None:
        """A file that ``is_image_name`` does not take."""
        suffix = os.path.splitext(name)[1].lower()
        if is_hidden(name):
            self.add(HIDDEN)
        elif suffix:
            self.add(suffix if len(suffix) <= LONGEST_SUFFIX else OTHER)
        else:
            self.add(NO_SUFFIX)

    def __str__(self) -> str:
        """``3 .txt, 1 hidden``, the most frequent first."""
        ordered = sorted(self.items(), key=lambda entry: (-entry[1], entry[0]))
        parts = [f"{number} {reason}" for reason, number in ordered[:SHOWN]]
        rest = sum(number for _, number in ordered[SHOWN:])
        return ", ".join([*parts, f"{rest} others"] if rest else parts)


def none_below(source: Path, ignored: Ignored) -> str:
    """The message for a source without images."""
    others = f"; images are files such as .png or .jpg; ignored: {ignored}" if ignored else ""
    return f"there are no images below {source}{others}"
