"""Which images a data set holds, as far as a part of them tells. Checkpoints keep it, so that a resume on other images
is noticed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stylenat.interfaces import Dataset

SPREAD = 64
"""Images whose bytes are looked at where there is no digest of all."""


def identity(dataset: Dataset) -> dict[str, Any]:
    """Plain values that differ where the images do, of a data set that is prepared.

    A data set that has a ``content_hash`` is known by it. Another may describe itself by ``identity()``; of the rest,
    the number of images and the pixels of ``SPREAD`` of them are compared.
    """
    count = {"images": len(dataset)}
    if hasattr(dataset, "content_hash") and (content := dataset.content_hash()) is not None:
        return count | {"content": content}
    if hasattr(dataset, "identity"):
        return count | dict(dataset.identity())
    images = (dataset[index] for index in spread(len(dataset)))
    return count | {"pixels": digest(image.contiguous().numpy().tobytes() for image in images)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What tells two identities apart, one line for each entry; none where the images are the same."""
    common = before.keys() & now.keys()
    lines = [f"{name} {_short(before[name])} before, {_short(now[name])} now" for name in sorted(common)]
    lines = [line for line, name in zip(lines, sorted(common), strict=True) if before[name] != now[name]]
    if not common - {"images"}:
        lines.append(f"known by {', '.join(sorted(before))} before, by {', '.join(sorted(now))} now")
    return lines


def _short(value: Any) -> str:
    return f"{value[:8]}..." if isinstance(value, str) else str(value)


def spread(count: int) -> Sequence[int]:
    """At most ``SPREAD`` indices from the first to the last, evenly spaced."""
    if count <= SPREAD:
        return range(count)
    return [i * (count - 1) // (SPREAD - 1) for i in range(SPREAD)]


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of byte strings, each with its length, in hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()
