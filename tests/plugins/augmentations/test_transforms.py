"""Each transform, at p = 1 and alone, against Kornia's stand-alone operation or a closed form."""

import math

import kornia
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kornia.geometry.conversions import axis_angle_to_rotation_matrix

from plugins.augmentations import affine, bands, colour, corruption
from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.augmentations.displayed import from_displayed, to_displayed
from plugins.augmentations.draws import ORDER, ROW, Draws, draw, probabilities
from plugins.augmentations.warp import _grid, warp

SIDE = 24
CLOSE = {"atol": 1e-9, "rtol": 0}
WARP = {"padding_mode": "reflection", "align_corners": False}


def images(batch=32, side=SIDE):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def only(*names, seed=0, x=None, **options):
    """Images, what the augmentation made of them with these transforms alone at p = 1, and what it drew."""
    x = images() if x is None else x
    multipliers = dict.fromkeys(ORDER, 0.0) | dict.fromkeys(names, 1.0)
    ada = AdaptiveAugmentation("bgcfnc", multipliers, initial_p=1.0, policy="fixed", **options)
    drawn = draw(
        probabilities(1.0, np.array([multipliers[n] for n in ORDER])), len(x), torch.Generator().manual_seed(seed)
    )
    return x, ada(x, torch.Generator().manual_seed(seed)), drawn


def tensor(values):
    return torch.from_numpy(np.asarray(values))


def scaled_grid(factors):
    """Where the output's pixels lie in the input, in [-1, 1], after scaling by factors [batch, 2]."""
    maps = torch.cat([torch.diag_embed(1 / factors), torch.zeros(len(factors), 2, 1)], dim=2)
    return F.affine_grid(maps, [len(factors), 3, SIDE, SIDE], align_corners=False)


def grating(side):
    return torch.tensor([1.0, -1.0]).repeat(side // 2).expand(1, 3, side, side)


def test_flips_equal_kornias():
    x, y, drawn = only("x_flip")
    flip = affine.geometry(drawn, SIDE).flip
    assert set(flip) == {-1, 1}
    flipped = torch.where(tensor(flip)[:, None, None, None] < 0, kornia.geometry.hflip(x), x)
    torch.testing.assert_close(y, flipped, **CLOSE)


def test_quarter_turns_equal_kornias():
    x, y, drawn = only("rotate_90")
    quarters = affine.geometry(drawn, SIDE).quarters
    assert set(quarters) == {0, 1, 2, 3}
    torch.testing.assert_close(
        y, torch.stack([i.rot90(int(k), (1, 2)) for i, k in zip(x, quarters, strict=True)]), **CLOSE
    )
    turned = kornia.geometry.rotate(x, tensor(90 * quarters), **WARP)
    torch.testing.assert_close(y, turned, **CLOSE)


def test_integer_translations_equal_kornias_and_move_whole_pixels():
    x, y, drawn = only("integer_translation")
    pixels = affine.geometry(drawn, SIDE).pixels
    assert set(pixels.flatten()) == {-3, -2, -1, 0, 1, 2, 3}
    torch.testing.assert_close(y, kornia.geometry.translate(x, tensor(pixels), **WARP), **CLOSE)
    for before, after, (dx, dy) in zip(x, y, pixels.astype(int), strict=True):
        inside = slice(3, SIDE - 3)
        rolled = before.roll((dy, dx), (1, 2))
        torch.testing.assert_close(after[:, inside, inside], rolled[:, inside, inside], **CLOSE)


def test_enlarging_equals_kornias_scale():
    x, y, drawn = only("isotropic_scale")
    zoom = affine.geometry(drawn, SIDE).zoom
    larger = zoom >= 1
    assert 5 < larger.sum() < 27
    scaled = kornia.geometry.scale(x, tensor(zoom)[:, None].expand(-1, 2), **WARP)
    torch.testing.assert_close(y[larger], scaled[larger], **CLOSE)


def test_rotation_equals_kornias():
    # Two rotations, each with a chance of 1 - sqrt(1 - p), which is 1 here.
    x, y, drawn = only("rotation")
    g = affine.geometry(drawn, SIDE)
    turned = kornia.geometry.rotate(x, tensor(np.degrees(g.first + g.second)), **WARP)
    torch.testing.assert_close(y, turned, **CLOSE)


def test_fractional_translation_equals_kornias():
    x, y, drawn = only("fractional_translation")
    shift = affine.geometry(drawn, SIDE).shift * SIDE
    torch.testing.assert_close(y, kornia.geometry.translate(x, tensor(shift), **WARP), **CLOSE)


def test_anisotropic_scale_equals_kornias_on_two_levels():
    # It always shrinks one axis: the mixture of the image and its half-size copy is part of the closed form.
    x, y, drawn = only("anisotropic_scale")
    stretch = affine.geometry(drawn, SIDE).stretch
    factors = tensor(np.stack([stretch, 1 / stretch], axis=1))
    fine = kornia.geometry.scale(x, factors, **WARP)
    half = kornia.geometry.resize(x, SIDE // 2, interpolation="area")
    coarse = F.grid_sample(half, scaled_grid(factors), padding_mode="reflection", align_corners=False)
    level = tensor(np.abs(np.log2(stretch)))[:, None, None, None]
    torch.testing.assert_close(y, torch.lerp(fine, coarse, level), **CLOSE)


def test_all_geometry_is_the_product_of_kornias_matrices():
    _, _, drawn = only(
        "x_flip",
        "rotate_90",
        "integer_translation",
        "isotropic_scale",
        "rotation",
        "anisotropic_scale",
        "fractional_translation",
    )
    g = affine.geometry(drawn, SIDE)
    middle = torch.full((32, 2), (SIDE - 1) / 2, dtype=torch.float64)
    zero, one = torch.zeros(32, 2, dtype=torch.float64), torch.ones(32, 2, dtype=torch.float64)

    def step(angle=0.0, scale=1.0, move=zero):
        angle = torch.as_tensor(angle, dtype=torch.float64).expand(32)
        return kornia.geometry.get_affine_matrix2d(move, middle, scale * one, torch.rad2deg(angle))

    # Kornia turns clockwise for a negative angle; images are turned as kornia.geometry.rotate turns them.
    to = torch.from_numpy
    flip = step(scale=to(np.stack([g.flip, np.ones(32)], axis=1)))
    product = step(move=to(SIDE * g.shift))
    for next_ in (
        step(-to(g.second)),
        step(scale=to(np.stack([g.stretch, 1 / g.stretch], axis=1))),
        step(-to(g.first)),
        step(scale=to(g.zoom)[:, None]),
        step(-to(g.quarters) * (math.pi / 2)),
        flip,
        step(move=to(g.pixels)),
    ):
        product = product @ next_
    # From pixels, whose centres are whole numbers, to [-1, 1] over the image's edges.
    n = torch.tensor([[2 / SIDE, 0, 1 / SIDE - 1], [0, 2 / SIDE, 1 / SIDE - 1], [0, 0, 1]], dtype=torch.float64)
    expected = torch.linalg.inv(n @ product @ torch.linalg.inv(n))[:, :2]
    torch.testing.assert_close(to(affine.matrices(g, SIDE)), expected, atol=1e-12, rtol=0)
    largest = torch.linalg.svdvals(expected[:, :, :2])[:, 0]
    torch.testing.assert_close(to(affine.minification(expected.numpy())), largest, atol=1e-12, rtol=0)


def test_brightness_and_contrast_equal_kornias():
    x, y, drawn = only("brightness")
    change = colour.colours(drawn).brightness
    assert 0.1 < change.std() < 0.3
    bright = kornia.enhance.adjust_brightness(to_displayed(x), tensor(change), clip_output=False)
    torch.testing.assert_close(to_displayed(y), bright, **CLOSE)
    x, y, drawn = only("contrast")
    contrast = kornia.enhance.adjust_contrast(
        to_displayed(x), tensor(colour.colours(drawn).contrast), clip_output=False
    )
    torch.testing.assert_close(to_displayed(y), contrast, **CLOSE)


def test_luma_flip_is_the_reflection_along_the_grey_axis():
    x, y, drawn = only("luma_flip")
    sign = tensor(colour.colours(drawn).luma)[:, None, None, None]
    shown = to_displayed(x)
    luma = shown.mean(dim=1, keepdim=True)
    torch.testing.assert_close(to_displayed(y), torch.where(sign < 0, shown - 2 * luma, shown), **CLOSE)


def test_hue_is_the_rotation_about_the_grey_axis():
    x, y, drawn = only("hue")
    axis = tensor(colour.colours(drawn).hue)[:, None] / 3**0.5 * torch.ones(3)
    turned = torch.einsum("bij,bjhw->bihw", axis_angle_to_rotation_matrix(axis), to_displayed(x))
    torch.testing.assert_close(to_displayed(y), turned, **CLOSE)


def test_saturation_scales_the_distance_from_grey():
    x, y, drawn = only("saturation")
    factor = tensor(colour.colours(drawn).saturation)[:, None, None, None]
    shown = to_displayed(x)
    grey = shown.mean(dim=1, keepdim=True)
    torch.testing.assert_close(to_displayed(y), grey + factor * (shown - grey), atol=1e-9, rtol=1e-9)


def test_all_colour_is_the_transforms_in_order():
    x, y, drawn = only("brightness", "contrast", "luma_flip", "hue", "saturation")
    c = colour.colours(drawn)
    brightness, contrast, luma, saturation = (
        tensor(v)[:, None, None, None] for v in (c.brightness, c.contrast, c.luma, c.saturation)
    )
    shown = (to_displayed(x) + brightness) * contrast
    shown = shown + (luma - 1) * shown.mean(dim=1, keepdim=True)
    turn = axis_angle_to_rotation_matrix(tensor(c.hue)[:, None] * torch.ones(3) / 3**0.5)
    shown = torch.einsum("bij,bjhw->bihw", turn, shown)
    grey = shown.mean(dim=1, keepdim=True)
    expected = grey + saturation * (shown - grey)
    torch.testing.assert_close(to_displayed(y), expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("side", [48, 16])
def test_a_grating_is_scaled_by_the_gain_of_its_band(side):
    gains = np.array([[2.0, 0.7, 1.3, 0.5]])

    def filtered(shown):
        return to_displayed(bands.filtered(from_displayed(shown), gains))

    # Along the axis on which the image is constant, the lowest band's gain of 2 applies.
    flat = torch.full((1, 3, side, side), 0.1)
    torch.testing.assert_close(filtered(flat), 4 * flat, atol=1e-5, rtol=0)
    torch.testing.assert_close(filtered(grating(side)), 2 * 0.5 * grating(side), atol=1e-5, rtol=0)
    # In between, the closed form is the taps' frequency response.
    frequency = 2 * math.pi * 6 / (side - 1)
    wave = torch.cos(frequency * torch.arange(side)).expand(1, 3, side, side)
    response = (gains @ bands.filter_bank() * np.cos(frequency * np.arange(-21, 22))).sum()
    torch.testing.assert_close(filtered(wave), 2 * float(response) * wave, atol=1e-5, rtol=0)


def test_the_bands_add_up_to_the_identity_and_each_prevails_in_its_own():
    bank = bands.filter_bank()
    np.testing.assert_allclose(bank.sum(axis=0), np.eye(1, 43, 21)[0], atol=1e-12)
    for band, middle in enumerate([0.0, 3 / 16, 3 / 8, 1.0]):
        response = bank @ np.cos(math.pi * middle * np.arange(-21, 22))
        assert response[band] > 0.7 and abs(np.delete(response, band)).max() < 0.3, band


def test_filtering_equals_kornias_and_keeps_the_expected_power():
    x = images(side=48)
    x, y, drawn = only("band_1", "band_2", "band_3", "band_4", x=x)
    gains = bands.gains(drawn)
    kernel = tensor(gains @ bands.filter_bank())
    expected = kornia.filters.filter2d_separable(to_displayed(x), kernel, kernel)
    torch.testing.assert_close(to_displayed(y), expected, **CLOSE)
    _, _, drawn = only("band_3")
    one = bands.gains(drawn)
    np.testing.assert_allclose(one**2 @ bands.EXPECTED_POWER, 1)
    np.testing.assert_allclose(one[:, 2] / one[:, 0], np.exp2(drawn.normal[0, ROW["band_3"]]))


def test_noise_has_the_drawn_deviation_on_displayed_colours():
    x, y, drawn = only("noise", x=images(64, 32))
    deviation = corruption.deviations(drawn)
    assert 0.05 < deviation.mean() < 0.11  # sqrt(2 / pi) / 10
    difference = (to_displayed(y) - to_displayed(x)).flatten(1)
    ratio = difference.std(dim=1) / tensor(deviation)
    # The standard error of a deviation from n values is 1 / sqrt(2n).
    assert float((ratio - 1).abs().max()) < 5 / math.sqrt(2 * difference.shape[1])
    assert float(difference.mean()) < 5e-3


def test_cutout_greys_half_a_side_around_its_centre():
    x, y, drawn = only("cutout")
    grey = from_displayed(torch.zeros(3, 1, 1, dtype=torch.float64))
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    for k in range(len(x)):
        cx, cy = drawn.uniform[:, ROW["cutout"], k] * SIDE
        missing = torch.from_numpy((abs(columns - cx) < SIDE / 4) & (abs(rows - cy) < SIDE / 4))
        assert SIDE**2 / 16 * 0.8 < missing.sum() <= SIDE**2 / 4
        torch.testing.assert_close(y[k], torch.where(missing, grey, x[k]), atol=0, rtol=0)


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.5, 2.0, 3.0])
def test_minifying_takes_a_nyquist_grating_away_as_the_mip_map_says(factor):
    # The half-size copy of the grating is 0, so its share log2(factor) is lost: the energy falls by (1 - log2 f)².
    stripes = grating(SIDE)
    shrunk = F.grid_sample(
        stripes,
        scaled_grid(torch.full((1, 2), 1 / factor)),
        padding_mode="reflection",
        align_corners=False,
    )
    y = warp(stripes, np.array([[[factor, 0, 0], [0, factor, 0]]]))
    ratio = float(y.square().mean() / shrunk.square().mean())
    assert ratio == pytest.approx(max(0.0, 1 - math.log2(factor)) ** 2, abs=1e-5)


def test_sym6_is_the_identity_where_nothing_moves_and_low_passes_where_it_minifies():
    x = images(2)
    still = np.array([[[1.0, 0, 0], [0, 1, 0]]] * 2)
    inside = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(warp(x, still, "sym6")[inside], x[inside], atol=1e-6, rtol=0)
    half = np.array([[[2.0, 0, 0], [0, 2.0, 0]]])
    # Away from the seams of the reflection, at a quarter and three quarters of the side.
    assert float(warp(grating(64), half, "sym6")[..., 20:44].abs().max()) < 1e-4
    wave = torch.cos(2 * math.pi * torch.arange(64) / 32) * torch.linspace(0, 1, 64)
    flipped = warp(wave.expand(1, 3, 64, 64), np.array([[[-1.0, 0, 0], [0, 1, 0]]]), "sym6")
    torch.testing.assert_close(flipped, wave.flip(0).expand(1, 3, 64, 64), atol=0.02, rtol=0)


@pytest.mark.parametrize("low_pass", ["mip", "sym6"])
def test_reflection_leaves_no_border(low_pass):
    # Wherever the geometry takes a flat image, nothing but its colour may come in.
    flat = from_displayed(torch.tensor([0.9, -0.5, 0.3]).view(3, 1, 1)).expand(64, 3, SIDE, SIDE)
    ada = AdaptiveAugmentation("bg", initial_p=1.0, policy="fixed", low_pass=low_pass)
    for seed in range(4):
        torch.testing.assert_close(ada(flat, torch.Generator().manual_seed(seed)), flat, atol=1e-5, rtol=0)


def test_sampling_places_are_pytorchs():
    maps = torch.randn(4, 2, 3, dtype=torch.float64)
    expected = F.affine_grid(maps, [4, 3, SIDE, SIDE], align_corners=False)
    torch.testing.assert_close(_grid(maps, SIDE), expected, atol=1e-12, rtol=0)


def test_single_precision_is_enough():
    pixels = torch.rand(32, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    names = [name for name in ORDER if name != "noise"]
    _, double, _ = only(*names, x=pixels.double())
    _, single, _ = only(*names, x=pixels)
    scale = double.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(single / scale, double.float() / scale, atol=1e-5, rtol=0)


def test_every_transform_has_its_distribution_in_stylegan2_adas_appendix_b():
    """At the quantiles 0.75 and 0.25 of what is uniform, and at 1.5 and -0.5 deviations of what is normal."""
    rows = np.ones((len(ROW), 1))
    drawn = Draws(rows > 0, np.stack([0.75 * rows, 0.25 * rows]), np.stack([1.5 * rows, -0.5 * rows]))
    g = affine.geometry(drawn, 32)
    assert (g.flip, g.quarters) == (-1, 3) and g.pixels.tolist() == [[2, -2]]  # 1 - 2 floor(2u); 4u; -4 + 8u of 32.
    assert g.shift == pytest.approx(np.array([[0.1875, -0.0625]]))  # N(0, 0.125).
    assert (g.zoom, g.stretch) == pytest.approx((2**0.3, 2**0.3))  # 2 ** N(0, 0.2).
    assert (g.first, g.second) == pytest.approx((np.pi / 2, np.pi / 2))  # U(-pi, pi).
    c = colour.colours(drawn)
    assert (c.brightness, c.contrast, c.luma) == pytest.approx((0.3, 2**0.75, -1))  # N(0, 0.2); 2 ** N(0, 0.5).
    assert (c.hue, c.saturation) == pytest.approx((np.pi / 2, 2**1.5))  # U(-pi, pi); 2 ** N(0, 1).
    assert corruption.deviations(drawn) == pytest.approx(0.15)  # |N(0, 0.1)|.
    columns, lines = corruption.holes(drawn, 8)
    assert np.flatnonzero(columns[0]).tolist() == [4, 5, 6, 7] and np.flatnonzero(lines[0]).tolist() == [0, 1, 2, 3]
