"""Writes evaluations to a ``metrics.jsonl``; ``stylenat.evaluation.protocol`` reads them."""

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stylenat.files import named, open_in_folder


def append_evaluation(
    path: Path, step: int | None, images: int | None, metrics: Mapping[str, float], details: Mapping[str, Any]
) -> None:
    """Appends one line and sees it to the disk.

    Args:
        step, images: iterations and real images that the weights have seen; None for weights that do not say.
        details: as the hook ``metrics_evaluated`` has them.

    Raises:
        UserError: the path is a link or no regular file. OSError: it cannot be written.
    """
    record = {
        "step": step,
        "images": images,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "metrics": metrics,
        **details,
    }
    line = json.dumps(_finite(record), allow_nan=False) + "\n"
    with named(path), open(open_in_folder(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _finite(value: Any) -> Any:
    """With null for every number that JSON cannot write."""
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
