"""What the data sets of image files share: from a file's bytes to the pixels that training reads."""

import warnings

import numpy as np
import torch
from torch import Tensor

from stylenat.data.images import NARROW, NARROW_REMEDY, Crop, Filter, read_image, square


def training_pixels(data: bytes, resolution: int, crop: Crop, filter: Filter, keep_profiles: bool) -> Tensor:
    """uint8 [3, resolution, resolution], as ``tools/prepare.py`` makes them.

    Raises:
        Unusable: the image cannot be used.
    """
    decoded = read_image(data, keep_profiles)
    if "narrow_range" in decoded.notes:  # Shown once in a process, however many there are.
        warnings.warn(f"some {NARROW}; {NARROW_REMEDY}", stacklevel=2)
    image = square(decoded.image, resolution, crop, filter)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
