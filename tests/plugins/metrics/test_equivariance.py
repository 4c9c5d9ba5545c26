import math

import pytest
import torch
from torch import nn

from plugins.metrics.equivariance import HIGHEST, EquivarianceRotation, EquivarianceTranslation, _uniform, decibels
from plugins.metrics.moved import limited, rotation, shifted, translated, turned
from registry import UserError
from stylenat.sampling import Sampler, takes_transform

SIDE = 64


class Plane(nn.Module):
    """A smooth picture of the plane, sampled where the transform says, unless it is asked to be wrong."""

    resolution, latent_dim, num_styles = SIDE, 2, 1

    def __init__(self, follows=True, error=0.0, checkerboard=0.0):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))
        self.follows, self.error, self.checkerboard = follows, error, checkerboard

    def mapping(self, latents, labels=None):
        return latents

    def synthesis(self, styles, transform=None):
        at = ((torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE - 0.5).expand(SIDE, SIDE)
        positions = torch.stack([at, at.t(), torch.ones_like(at)])
        moved = torch.eye(3).expand(len(styles), 3, 3) if transform is None or not self.follows else transform
        x, y, _ = torch.einsum("bij,jhw->bihw", moved.double(), positions).unbind(dim=1)
        phase = styles[:, 0, 0].double()[:, None, None]
        red, green = torch.sin(9 * x + 14 * y + phase), torch.cos(20 * x - 5 * y)
        image = torch.stack([red, green, red * green], dim=1)
        rows = torch.arange(SIDE)
        image = image + self.checkerboard * (1 - 2 * ((rows + rows[:, None]) % 2))
        return (image + (0 if transform is None else self.error)).float()


def measured(metric, generator, count=3):
    rows = metric.accumulator()
    rows.update(metric.needs.along(Sampler(generator, 0, pixel_space="symmetric"), 0, count))
    return metric.compare(metric.accumulator(), rows)


def test_an_equivariant_generator_is_measured_as_one():
    found = measured(EquivarianceTranslation(), Plane()) | measured(EquivarianceRotation(), Plane())
    assert found["eqt"] > 100  # But for rounding.
    assert found["eqt_frac"] > 45 and found["eqr"] > 45  # But for Lanczos' filter.


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_an_error_of_brightness_is_the_ratio_that_is_computed_by_hand(error):
    expected = pytest.approx(20 * math.log10(2 / error), abs=0.05)
    found = measured(EquivarianceTranslation(), Plane(error=error)) | measured(
        EquivarianceRotation(), Plane(error=error)
    )
    assert found == {"eqt": expected, "eqt_frac": expected, "eqr": expected}


def test_details_that_stick_to_the_screen_are_an_error_that_is_computed_by_hand():
    """A checkerboard of ±a differs from itself by 2a in every pixel at odd moves, and not at all at even ones."""
    metric, amplitude = EquivarianceTranslation(), 0.1
    found = measured(metric, Plane(checkerboard=amplitude), count=64)
    comparison = metric.needs.comparisons["eqt"]
    moves = [comparison.move(_uniform("eqt", block), SIDE) for block in range(4)]
    areas = [(SIDE - abs(x)) * (SIDE - abs(y)) for x, y in moves]
    odd = sum(area for area, (x, y) in zip(areas, moves, strict=True) if (x + y) % 2)
    mean = (2 * amplitude) ** 2 * odd / sum(areas)
    assert found["eqt"] == pytest.approx(10 * math.log10(4 / mean), abs=0.01)


def test_a_generator_that_does_not_move_its_picture_is_measured_as_such():
    found = measured(EquivarianceTranslation(), Plane(follows=False))
    assert max(found.values()) < 15 and measured(EquivarianceRotation(), Plane(follows=False))["eqr"] < 15


def test_sample_numbers_alone_decide_the_moves():
    walk, sampler = EquivarianceTranslation().needs, Sampler(Plane(), 0)
    whole = walk.along(sampler, 0, 40)
    torch.testing.assert_close(walk.along(sampler, 13, 6), whole[13:19])
    assert len({tuple(row.tolist()) for row in whole[:, 1::2]}) == 3  # Blocks of 16.


def test_perfect_images_have_the_highest_value_and_nothing_to_compare_is_refused():
    assert decibels(0.0, 10.0) == HIGHEST
    with pytest.raises(UserError, match="too small for the filter"):
        decibels(0.0, 0.0)


def test_a_generator_without_a_transform_is_refused():
    class Fixed(Plane):
        def synthesis(self, styles):
            return super().synthesis(styles)

    assert takes_transform(Plane()) and not takes_transform(Fixed())
    with pytest.raises(UserError, match="takes a transform of its input"):
        measured(EquivarianceTranslation(), Fixed())


def test_a_translation_by_whole_pixels_needs_no_filter():
    images = torch.randn(1, 3, 16, 16)
    for x, y in ((3, -2), (0, 5)):
        expected, _ = shifted(images, x, y)
        found, mask = translated(images, float(x), float(y))
        torch.testing.assert_close(found * mask, expected * mask, atol=1e-6, rtol=0)
        assert mask.sum() > 0


def test_turning_not_at_all_keeps_smooth_images_and_a_quarter_turn_is_exact_on_the_grid():
    smooth = Plane().synthesis(torch.zeros(1, 1, 2))
    for angle, expected in ((0.0, smooth), (math.pi / 2, smooth.rot90(-1, (2, 3)))):
        found, mask = turned(smooth, angle)
        other, other_mask = limited(expected, angle)
        both = mask * other_mask
        assert both.sum() > SIDE**2 / 3
        torch.testing.assert_close(found * both, other * both, atol=5e-3, rtol=0)
    x_axis_turned = rotation(math.pi / 2) @ torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(x_axis_turned, torch.tensor([0.0, 1.0], dtype=torch.float64))
