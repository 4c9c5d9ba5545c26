"""On the same images, with the same random weights, our numbers are torch-fidelity's."""

import pytest
import torch
from torch.utils.data import TensorDataset

from plugins.features.inception import Inception
from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID
from plugins.metrics.inception_score import InceptionScore
from plugins.metrics.kernel import KID
from plugins.metrics.manifold import PrecisionRecall
from stylenat.evaluation.accumulators import Rows
from stylenat.evaluation.evaluate import values


class Unpacked(TensorDataset):
    def __getitem__(self, index):
        return super().__getitem__(index)[0]


@pytest.fixture(scope="module")
def theirs(inception_weights, image_sets):
    import torch_fidelity

    real, fake = image_sets
    return torch_fidelity.calculate_metrics(
        input1=Unpacked(fake),
        input2=Unpacked(real),
        cuda=False,
        batch_size=16,
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subsets=5,
        kid_subset_size=5,
        isc_splits=2,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=inception_weights,
        cache=False,
        verbose=False,
    )


@pytest.fixture(scope="module")
def ours(inception_weights, image_sets):
    features = Inception(inception_weights)
    vectors = [features(images) for images in image_sets]
    metrics = [
        FID(features),
        KID(features, subsets=5, subset_size=5),
        PrecisionRecall(features),
        InceptionScore(features, splits=2),
    ]
    found = {}
    for metric in metrics:
        collected = metric.accumulator(), metric.accumulator()
        for accumulator, rows in zip(collected, vectors, strict=True):
            accumulator.update(rows)
        found |= values(metric, *collected)
    return found


@pytest.mark.parametrize(
    ("name", "their_name"),
    [
        ("fid", "frechet_inception_distance"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("inception_score", "inception_score_mean"),
    ],
)
def test_the_value_is_torch_fidelitys(ours, theirs, name, their_name):
    assert ours[name].value == pytest.approx(theirs[their_name], rel=1e-4)


def test_kid_is_torch_fidelitys(ours, theirs):
    """It subtracts kernels a thousand times larger in float32 where we do in float64: its own error is about 1e-6."""
    assert ours["kid"].value == pytest.approx(theirs["kernel_inception_distance_mean"], abs=5e-6)
    assert ours["kid"].spread == pytest.approx(theirs["kernel_inception_distance_std"], abs=5e-6)
    assert abs(theirs["kernel_inception_distance_mean"]) > 1e-3


def test_the_inception_scores_spread_is_torch_fidelitys(ours, theirs):
    assert ours["inception_score"].spread == pytest.approx(theirs["inception_score_std"], rel=1e-4)


def test_the_numbers_compared_are_no_trivial_ones(theirs):
    assert theirs["frechet_inception_distance"] > 0.1
    assert theirs["inception_score_mean"] > 1.01


class Logits(RandomConvolution):
    def logits(self, features):
        return 3 * features


def collected(count, seed):
    rows = Rows()
    rows.update(torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)))
    return rows


def test_subsets_that_are_converted_one_by_one_give_torch_fidelitys_very_value():
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = collected(57, 0), collected(41, 1)
    options = {"kid_subsets": 4, "kid_subset_size": 9, "rng_seed": 2020, "verbose": False}
    expected = kid_features_to_metric(fake.all().double(), real.all().double(), **options)
    found = KID(RandomConvolution(), subsets=4, subset_size=9).compare(real, fake)
    assert [found.value, found.spread] == list(expected.values())


@pytest.mark.parametrize("splits", [1, 4])
def test_splits_that_are_computed_one_by_one_give_torch_fidelitys_inception_score(splits):
    from torch_fidelity.metric_isc import isc_features_to_metric

    fake = collected(41, 1)
    expected = isc_features_to_metric(Logits().logits(fake.all()), splits, True, 2020)
    found = InceptionScore(Logits(), splits=splits).compare(collected(0, 0), fake)
    assert found.value == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert (found.spread or 0) == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)
