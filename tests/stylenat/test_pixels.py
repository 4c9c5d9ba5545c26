"""The way into a batch: one rounding whichever code takes it, any memory format, mirrored or not."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylenat import pixels
from stylenat.native.build import library
from stylenat.pixels import place, to_networks, to_uint8

KERNELS = library()  # Built here, not in a test's first example.

FORMATS = {
    "planes": lambda image: image,
    "pixels": lambda image: image.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "columns": lambda image: image.transpose(1, 2).contiguous().transpose(1, 2),
    "grey": lambda image: image[:1].expand(3, -1, -1),
    "part": lambda image: torch.cat([image, image], 2)[..., : image.shape[2]],
}


def pixels_of(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pixels_come_back_from_the_networks_space():
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[None, :, None]
    assert torch.equal(to_uint8(to_networks(images)), images)


@pytest.mark.parametrize("way", ["kernel", "PyTorch"])
@settings(suppress_health_check=[HealthCheck.too_slow])  # The first example may wait for the kernels' compilation.
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(sorted(FORMATS)), st.booleans())
def test_an_image_is_placed_to_the_bit_from_any_memory_format(way, height, width, layout, mirrored):
    if way == "kernel" and isinstance(KERNELS, str):
        pytest.skip(KERNELS)
    with pytest.MonkeyPatch.context() as patch:
        if way == "PyTorch":
            patch.setattr(pixels, "library", lambda: "no compiler")
        image = FORMATS[layout](pixels_of(height, width))
        expected = image.flip(-1) if mirrored else image
        batch = torch.full((3, 3, height, width), -7.0)
        place(image, batch[1], mirrored)
        assert torch.equal(batch[1], to_networks(expected))
        assert (batch[[0, 2]] == -7).all()
        small = torch.full((3, 3, height, width), 9, dtype=torch.uint8)
        place(image, small[1], mirrored)
        assert torch.equal(small[1], expected)
        assert (small[[0, 2]] == 9).all()


@pytest.mark.parametrize(
    "image, out",
    [
        (pixels_of(8, 8), torch.empty(3, 8, 9)),
        (pixels_of(8, 8).float(), torch.empty(3, 8, 8)),
        (pixels_of(8, 8), torch.empty(3, 8, 16)[..., ::2]),
        (pixels_of(8, 8)[:1], torch.empty(1, 8, 8)),
    ],
)
def test_what_does_not_fit_is_refused(image, out):
    with pytest.raises(ValueError, match="does not go into"):
        place(image, out)
