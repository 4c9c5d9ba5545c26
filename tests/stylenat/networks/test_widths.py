"""Widths of the networks: the published ones, and one list for every resolution."""

import pytest

from registry import UserError
from stylenat.networks.widths import resolutions, widths

SIDES = resolutions(1024, "resolution")


def test_the_published_widths_are_those_of_the_papers():
    assert widths(SIDES, 2, None, "channels") == {
        4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("channels", "side", "expected"),
    [
        ([64, 64, 32], 16, [64, 64, 32]),
        ([64, 64, 32], 8, [64, 64]),
        ([64, 64, 32], 128, [64, 64, 32, 16, 8, 8]),
        ([6, 6], 16, [6, 6, 6]),
        ([512], 32, [512, 256, 128, 64]),
    ],
)
def test_a_list_is_cut_to_the_resolution_or_continued_by_halving(channels, side, expected):
    sides = resolutions(side, "resolution")
    assert widths(sides, 2, channels, "channels") == dict(zip(sides, expected, strict=True))


def test_an_empty_list_is_refused():
    with pytest.raises(UserError, match="channels needs at least the width at 4x4"):
        widths(SIDES, 2, [], "channels")
