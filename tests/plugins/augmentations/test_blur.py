import math

import pytest
import torch

from plugins.augmentations.blur import FadingBlur, kernel
from plugins.augmentations.diffaugment import DiffAugment
from plugins.augmentations.displayed import from_displayed, to_displayed
from stylenat.interfaces import Time
from stylenat.testing import check_augmentation


def at(blur, images_seen):
    blur.begin(Time(0, images_seen, 10, 4))
    return blur


def applied(blur, images, seed=0):
    return blur(images, torch.Generator().manual_seed(seed))


def test_the_kernel_is_a_gaussian_of_deviation_sigma_over_the_root_of_2_ln_2():
    taps, at = kernel(8.0, 24), range(-24, 25)
    assert taps.sum() == pytest.approx(1)
    deviation = math.sqrt(sum(tap * k * k for tap, k in zip(taps, at, strict=True)))
    assert deviation == pytest.approx(8 / math.sqrt(2 * math.log(2)), rel=5e-3)  # The ends are cut.


def test_a_bright_pixel_becomes_the_kernel_on_grey_as_displayed():
    displayed = torch.zeros(1, 3, 9, 9)
    displayed[:, :, 4, 4] = 1
    found = to_displayed(applied(FadingBlur(sigma=1.0), from_displayed(displayed)))
    taps = torch.tensor([2.0 ** -(k * k) for k in range(-3, 4)])
    taps = taps / taps.sum()
    torch.testing.assert_close(found[0, 0, 1:8, 1:8], torch.outer(taps, taps), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[0, 0, 0], torch.zeros(9), atol=1e-6, rtol=0)


def test_sigma_falls_linearly_and_the_blur_ends_below_a_third_of_a_pixel():
    blur, images = FadingBlur(sigma=2.0, images=300), torch.randn(2, 3, 8, 8)
    for seen, sigma in ((0, 2.0), (150, 1.0), (249, 0.34), (251, 0.98 / 3), (300, 0.0), (900, 0.0)):
        assert at(blur, seen).scalars() == {"augmentation/blur_sigma": pytest.approx(sigma)}
        assert (applied(blur, images) is images) == (seen > 250)


def test_another_augmentation_follows_and_keeps_its_state():
    then, images = DiffAugment(), torch.randn(4, 3, 16, 16)
    blur = FadingBlur(sigma=1.0, then=then)
    torch.testing.assert_close(applied(blur, images), applied(then, applied(FadingBlur(sigma=1.0), images)))
    check_augmentation(blur)
