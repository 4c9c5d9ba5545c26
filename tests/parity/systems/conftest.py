"""What several files of recordings need."""

import pytest
import torch


@pytest.fixture(scope="session")
def recorded_draws():
    """Of HiT's consistency transforms, as uniform numbers."""
    return _recorded_draws


def _recorded_draws(drawn, side):
    """[7, batch] in [0, 1) that give the recorded numbers: a whole number n of k is the middle of its interval."""
    largest, offsets = side // 8, side + 1 - side // 2 % 2
    rows = [drawn[name].flatten() for name in ("brightness", "saturation", "contrast")]
    shifts = [drawn[f"translation_axis{axis}"].flatten() for axis in (1, 2)]
    squares = [drawn[f"cutout_axis{axis}"].flatten() for axis in (1, 2)]
    rows += [(shift + largest + 0.5) / (2 * largest + 1) for shift in shifts]
    return torch.stack([*rows, *((start + 0.5) / offsets for start in squares)])
