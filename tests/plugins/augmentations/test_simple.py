import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from plugins.augmentations.bcr import BalancedConsistencyTransforms
from plugins.augmentations.diffaugment import DiffAugment
from plugins.augmentations.displayed import from_displayed, to_displayed
from registry import UserError
from stylenat.pixels import to_networks, to_uint8

STILL = dict.fromkeys(("flip", "translation", "brightness", "saturation", "contrast", "cutout"), 0.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=500, side=16, dtype=torch.float32):
    return torch.randn(batch, 3, side, side, generator=seeded(1)).to(dtype)


def test_displayed_colours_are_the_pixels():
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)[None]
    shown = to_displayed(to_networks(pixels))
    torch.testing.assert_close(shown, pixels / 127.5 - 1, atol=1e-6, rtol=0)
    assert torch.equal(to_uint8(from_displayed(shown)), pixels)


def test_the_colours_of_bcr_act_in_the_networks_space_and_those_of_diffaugment_on_what_is_displayed():
    x = images()
    change = BalancedConsistencyTransforms(**(STILL | {"brightness": 0.5}))(x, seeded()) - x
    torch.testing.assert_close(change, change[:, :1, :1, :1].expand_as(x), atol=1e-5, rtol=0)
    assert -0.5 <= change.min() < -0.48 and 0.48 < change.max() <= 0.5

    y, draws = to_displayed(DiffAugment("color")(x, seeded())), torch.rand(7, 500, generator=seeded())[..., None]
    shown = to_displayed(x) + (draws[0] - 0.5)[..., None, None]
    grey = shown.mean(dim=1, keepdim=True)
    shown = grey + 2 * draws[1][..., None, None] * (shown - grey)
    mean = shown.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(y, mean + (0.5 + draws[2])[..., None, None] * (shown - mean), atol=1e-5, rtol=0)


def test_bcr_scales_saturation_from_0_to_2_and_contrast_from_a_half_to_three_halves():
    x = images()
    y = BalancedConsistencyTransforms(**(STILL | {"saturation": 1.0}))(x, seeded())
    chroma = [(i - i.mean(dim=1, keepdim=True)).flatten(1).norm(dim=1) for i in (x, y)]
    factor = chroma[1] / chroma[0]
    assert factor.min() < 0.05 and 1.95 < factor.max() <= 2.0001
    y = BalancedConsistencyTransforms(**(STILL | {"contrast": 0.5}))(x, seeded())
    factor = y.flatten(1).std(dim=1) / x.flatten(1).std(dim=1)
    assert 0.4999 <= factor.min() < 0.52 and 1.48 < factor.max() <= 1.5001


@pytest.mark.parametrize(
    "augmentation, fill",
    [
        (BalancedConsistencyTransforms(**(STILL | {"translation": 0.125})), torch.zeros(3, 1, 1)),
        (DiffAugment("translation"), from_displayed(torch.zeros(3, 1, 1))),
    ],
)
def test_translation_moves_up_to_an_eighth_and_fills_with_the_zero_of_its_space(augmentation, fill):
    x = images()
    y = augmentation(x, seeded())
    canvas = fill.expand(500, 3, 20, 20).clone()
    canvas[:, :, 2:18, 2:18] = x
    places = [
        (canvas[:, :, i : i + 16, j : j + 16] - y).abs().amax(dim=(1, 2, 3)) < 1e-5 for i in range(5) for j in range(5)
    ]
    counts = torch.stack(places).sum(dim=1)
    assert counts.sum() == 500 and counts.min() >= 5  # 20 expected at each


@pytest.mark.parametrize(
    "augmentation, fill",
    [
        (BalancedConsistencyTransforms(**(STILL | {"cutout": 0.5})), torch.zeros(3, 1, 1)),
        (DiffAugment("cutout"), from_displayed(torch.zeros(3, 1, 1))),
    ],
)
def test_cutout_takes_half_a_side_and_fills_with_the_zero_of_its_space(augmentation, fill):
    x = images()
    y = augmentation(x, seeded())
    gone = ((y - fill).abs() < 1e-5).all(dim=1)
    torch.testing.assert_close(torch.where(gone[:, None], x, y), x, atol=1e-5, rtol=0)
    assert gone.sum(dim=(1, 2)).max() == 64 and gone.any(dim=1).sum(dim=1).min() == 4


@pytest.mark.parametrize("make", [DiffAugment, BalancedConsistencyTransforms])
def test_every_transform_has_draws_of_its_own(make, monkeypatch):
    """Also those of one transform: y and x, or brightness, saturation and contrast."""
    module, given = sys.modules[make.__module__], []

    def noting(images, *arguments, **named):
        tensors = [t for t in (*arguments, *named.values()) if isinstance(t, torch.Tensor)]
        given.extend(row for tensor in tensors for row in tensor.reshape(-1, 500))
        return images

    for name in ("moved", "jittered", "cut"):
        monkeypatch.setattr(module, name, noting)
    make()(images(), seeded())
    assert len(given) == (8 if make is BalancedConsistencyTransforms else 7)
    correlation = torch.corrcoef(torch.stack([row.float() for row in given]))
    assert (correlation - torch.eye(len(given))).abs().max() < 0.25


@pytest.mark.parametrize("augmentation", [DiffAugment(), BalancedConsistencyTransforms()])
def test_they_are_twice_differentiable_draw_from_their_generator_and_keep_no_state(augmentation):
    x = images(2, 8, torch.float64).requires_grad_()

    def augment(x):
        return augmentation(x, seeded(3))

    assert gradcheck(augment, x, fast_mode=True) and gradgradcheck(augment, x, fast_mode=True)
    before = torch.random.get_rng_state()
    assert torch.equal(augment(x), augment(x)) and torch.equal(torch.random.get_rng_state(), before)
    assert augmentation.state_dict() == {} and augmentation.scalars() == {}


@pytest.mark.parametrize("options", [{"policy": "color,spin"}, {"policy": ""}, {"cutout": 2.0}])
def test_bad_options_are_refused(options):
    with pytest.raises(UserError, match="diffaugment"):
        DiffAugment(**options)
