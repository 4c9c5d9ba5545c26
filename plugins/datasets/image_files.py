"""What the data sets of image files share: from a file's bytes to the pixels that training reads."""

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from registry.wording import printable
from stylenat.data.images import NARROW, NARROW_REMEDY, Crop, Filter, read_image, square


def training_pixels(
    data: bytes, source: Path, resolution: int, crop: Crop, filter: Filter, keep_profiles: bool
) -> Tensor:
    """uint8 [3, resolution, resolution], as ``tools/prepare.py`` makes them.

    Args:
        data: of the image file; source: the folder or zip that warnings name.

    Raises:
        Unusable: the image cannot be used.
    """
    decoded = read_image(data, keep_profiles)
    if "narrow_range" in decoded.notes:
        _warn_of_narrow_range(source)
    image = square(decoded.image, resolution, crop, filter)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@lru_cache
def _warn_of_narrow_range(source: Path) -> None:
    """Once for each source: Python's own rule of once is reset by every ``catch_warnings``, as around decoding."""
    warnings.warn(f"{printable(source)}: some {NARROW}; {NARROW_REMEDY}", stacklevel=3)
