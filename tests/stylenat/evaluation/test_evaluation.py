import copy

import pytest
import scipy.linalg
import torch

from plugins.datasets.lfw_faces import LfwFaces
from plugins.metrics.frechet import FrechetRandomFeatures
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from registry import UserError
from stylenat.evaluation.baselines import baselines
from stylenat.evaluation.evaluate import Evaluator
from stylenat.evaluation.frechet import GaussianStatistics, frechet_distance


def test_frechet_distance_equals_the_sqrtm_route():
    torch.manual_seed(0)
    sets = [torch.randn(400, 24) @ torch.randn(24, 24) + shift for shift in (0, 1)]
    gaussians = []
    for features in sets:
        statistics = GaussianStatistics()
        for batch in features.split(37):
            statistics.update(batch)
        gaussians.append(statistics.mean_and_covariance())
        torch.testing.assert_close(gaussians[-1][1], features.double().t().cov())
    (m1, c1), (m2, c2) = gaussians
    root = scipy.linalg.sqrtm((c1 @ c2).numpy()).real
    expected = float((m1 - m2).square().sum() + (c1 + c2).trace()) - 2 * root.trace()
    assert abs(frechet_distance(m1, c1, m2, c2) / expected - 1) < 1e-6
    assert abs(frechet_distance(m1, c1, m1, c1)) < 1e-6 * float(c1.trace())


@pytest.mark.parametrize("count", [12, 2])
def test_fewer_images_than_dimensions_give_the_distance_of_degenerate_gaussians(count):
    """Known in closed form where both covariances share a null space: nothing but the visible part counts."""
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(24, 24, generator=random, dtype=torch.float64)).Q[:, : count - 1]
    spread = torch.rand(count - 1, generator=random, dtype=torch.float64) + 0.5
    covariances = [(basis * (scale * spread)) @ basis.t() for scale in (1.0, 4.0)]
    mean = torch.zeros(24, dtype=torch.float64)
    assert torch.linalg.matrix_rank(covariances[0]) == count - 1
    # Of commuting covariances: the sum of (√a - √b)².
    expected = float(((spread.sqrt() - (4 * spread).sqrt()).square()).sum())
    found = frechet_distance(mean, covariances[0], mean, covariances[1])
    assert found == pytest.approx(expected, rel=1e-6)
    assert abs(frechet_distance(mean, covariances[0], mean, covariances[0])) < 1e-6


def test_statistics_of_fewer_images_than_dimensions_are_finite_and_of_one_refused():
    random = torch.Generator().manual_seed(0)
    gaussians = []
    for _ in range(2):
        statistics = GaussianStatistics()
        statistics.update(torch.randn(10, 64, generator=random))
        gaussians.append(statistics.mean_and_covariance())
    assert 0 < frechet_distance(*gaussians[0], *gaussians[1]) < 1000
    alone = GaussianStatistics()
    alone.update(torch.zeros(1, 4))
    with pytest.raises(UserError, match="at least 2 images; there are 1"):
        alone.mean_and_covariance()


def test_statistics_of_two_rows_by_hand_survive_a_round_trip_and_go_on():
    statistics, resumed = GaussianStatistics(), GaussianStatistics()
    statistics.update(torch.tensor([[1.0, 2.0]]))
    statistics.update(torch.tensor([[3.0, 6.0]]))
    assert statistics.count == 2
    resumed.load_state_dict(copy.deepcopy(statistics.state_dict()))
    for one in (statistics, resumed):
        mean, covariance = one.mean_and_covariance()
        assert mean.tolist() == one.mean().tolist() == [2, 4] and covariance.tolist() == [[2, 4], [4, 8]]
        one.update(torch.full((3, 2), 5.0))
        assert one.count == 5 and one.mean().tolist() == pytest.approx([(4 + 15) / 5, (8 + 15) / 5])


@pytest.mark.parametrize(
    "change, error",
    [
        ({"count": torch.tensor(-1)}, ValueError),
        ({"sum": torch.zeros(2, 2).double()}, ValueError),
        ({"outer": torch.zeros(2, 3).double()}, ValueError),
        ({"sum": torch.zeros(2)}, TypeError),
        ({"outer": torch.zeros(2, 2)}, TypeError),
    ],
)
def test_a_state_that_is_not_one_is_refused(change, error):
    state = {"count": torch.tensor(0), "sum": torch.zeros(2).double(), "outer": torch.zeros(2, 2).double()}
    GaussianStatistics().load_state_dict(state)
    with pytest.raises(error):
        GaussianStatistics().load_state_dict(state | change)


def test_sums_in_float64_keep_what_float32_loses():
    random = torch.Generator().manual_seed(0)
    rows = 1000 + 0.01 * torch.randn(4096, 3, generator=random)
    statistics = GaussianStatistics()
    for part in rows.split(16):
        statistics.update(part)
    torch.testing.assert_close(statistics.mean_and_covariance()[1], rows.double().t().cov(), rtol=1e-4, atol=1e-8)


def test_metrics_rank_the_baselines_as_eyes_do(tmp_path):
    faces = LfwFaces(16, str(tmp_path / "faces.lmdb"))
    faces.prepare()
    metrics = [FrechetRandomFeatures(), SlicedWasserstein()]
    half, blurred, mean = baselines(Evaluator(faces, metrics)).values()
    for metric in metrics:
        assert half[metric.name] < blurred[metric.name] < mean[metric.name]


def test_a_copy_of_the_data_is_at_distance_zero(tmp_path):
    faces = LfwFaces(16, str(tmp_path / "faces.lmdb"))
    faces.prepare()

    def copy(start, count):
        return torch.stack([faces[min(i, 99)] for i in range(start, start + count)])

    evaluation = Evaluator(faces, [FrechetRandomFeatures(), SlicedWasserstein()]).evaluate(copy, 100)
    assert abs(evaluation.metrics["frechet_random_features"]) < 1e-4 and evaluation.metrics["swd"] == 0


def test_features_leave_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    first, second = FrechetRandomFeatures().needs, FrechetRandomFeatures().needs
    images = torch.randint(0, 255, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(first(images), second(images))
    assert torch.equal(torch.random.get_rng_state(), before)
