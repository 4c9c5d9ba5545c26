import scipy.linalg
import torch

from plugins.datasets.lfw_faces import LfwFaces
from plugins.metrics.frechet import FrechetRandomFeatures
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from stylenat.evaluation.evaluate import Evaluator
from stylenat.evaluation.frechet import GaussianStatistics, frechet_distance
from stylenat.evaluation.yardsticks import yardsticks


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


def test_metrics_rank_the_yardsticks_as_eyes_do(tmp_path):
    faces = LfwFaces(16, str(tmp_path / "faces.lmdb"))
    faces.prepare()
    metrics = [FrechetRandomFeatures(), SlicedWasserstein()]
    half, blurred, mean = yardsticks(Evaluator(faces, metrics)).values()
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
