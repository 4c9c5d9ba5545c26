"""What the data sets of image files share: from a file's bytes to the pixels that training reads."""

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from registry.wording import printable
from stylenat.data.ignored import Ignored
from stylenat.data.images import NARROW, NARROW_REMEDY, SEVERAL, Crop, Filter, Fit, read_image, square


def training_pixels(
    data: bytes, source: Path, resolution: int, crop: Crop, filter: Filter, keep_profiles: bool, fit: Fit
) -> Tensor:
    """uint8 [3, resolution, resolution], as ``tools/prepare.py`` makes them.

    Args:
        data: of the image file; source: the folder or zip that warnings name.

    Raises:
        Unusable: the image cannot be used.
    """
    decoded = read_image(data, keep_profiles)
    if "narrow_range" in decoded.notes:
        _warn(source, f"some {NARROW}; {NARROW_REMEDY}")
    if "several_frames" in decoded.notes:
        _warn(source, f"some {SEVERAL}")
    image = square(decoded.image, resolution, crop, filter, fit)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def warn_of_ignored(source: Path, ignored: Ignored) -> None:
    """Says once which files of a source are not read."""
    if ignored:
        _warn(source, f"ignored files: {printable(ignored)}")


@lru_cache
def _warn(source: Path, text: str) -> None:
    """Once for each source: Python's own rule of once is reset by every ``catch_warnings``, as around decoding."""
    warnings.warn(f"{printable(source)}: {text}", stacklevel=3)
