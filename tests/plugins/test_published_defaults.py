"""Defaults that a paper or its code gives are those."""

import inspect

import pytest
import torch
from torch.nn import functional as F

from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.augmentations.bcr import BalancedConsistencyTransforms
from plugins.augmentations.diffaugment import DiffAugment
from plugins.metrics.inception_score import InceptionScore
from plugins.metrics.kernel import KID
from plugins.metrics.manifold import DensityCoverage, PrecisionRecall
from plugins.metrics.path_length import PerceptualPathLength
from plugins.metrics.sliced_wasserstein import _laplacian_pyramid
from registry import UserError


@pytest.mark.parametrize(
    ("factory", "published"),
    [
        # torch-fidelity's, which reproduce the papers': 10 splits; 100 subsets of 1,000 images, shuffled from 2020.
        (InceptionScore, {"splits": 10, "seed": 2020}),
        (KID, {"subsets": 100, "subset_size": 1000, "seed": 2020}),
        (PrecisionRecall, {"k": 3}),  # arXiv 1904.06991.
        (DensityCoverage, {"k": 5}),  # arXiv 2002.09797.
        (PerceptualPathLength, {"epsilon": 1e-4}),  # arXiv 1912.04958.
        # StyleSwin's balanced consistency and DiffAugment (arXiv 2006.10738): an eighth, half a side, half, all, half.
        (
            BalancedConsistencyTransforms,
            {"flip": 0.5, "translation": 0.125, "brightness": 0.5, "saturation": 1.0, "contrast": 0.5, "cutout": 0.5},
        ),
        (DiffAugment, {"policy": "color,translation,cutout", "translation": 0.125, "cutout": 0.5}),
        # arXiv 2006.06676: bgc, target 0.6, every 4 iterations, 500,000 images from 0 to 1.
        (AdaptiveAugmentation, {"preset": "bgc", "target": 0.6, "interval": 4, "images_to_full": 500_000}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_default_is_the_published_one(factory, published):
    parameters = inspect.signature(factory.__init__).parameters
    assert {name: parameters[name].default for name in published} == published


def test_the_bands_of_the_laplacian_pyramid_add_up_to_the_image():
    image = torch.randn(2, 3, 32, 32)
    *bands, rest = _laplacian_pyramid(image, 8)
    assert [band.shape[-1] for band in (*bands, rest)] == [32, 16, 8]
    for band in reversed(bands):
        rest = band + F.interpolate(rest, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(rest, image)


def test_the_inception_score_needs_an_image_a_split():
    InceptionScore(splits=4).check_images(None, 4)
    with pytest.raises(UserError, match="splits = 4 needs as many generated images; there are 3"):
        InceptionScore(splits=4).check_images(None, 3)
    assert InceptionScore.higher_is_better and not InceptionScore.uses_real
