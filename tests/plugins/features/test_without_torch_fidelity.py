import pytest

from plugins.features import published
from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID, FDDinov2, FrechetRandomFeatures
from plugins.metrics.inception_score import InceptionScore
from plugins.metrics.kernel import KID
from plugins.metrics.path_length import PerceptualPathLength
from stylenat.evaluation.evaluate import usable


@pytest.mark.parametrize(
    "make", [FID, FDDinov2, lambda: KID(RandomConvolution()), InceptionScore, PerceptualPathLength]
)
def test_what_needs_it_says_so_and_the_other_metrics_go_on(make, monkeypatch):
    monkeypatch.setattr(published, "find_spec", lambda package: None)
    lines, other = [], FrechetRandomFeatures()
    assert usable([make(), other], lines.append) == [other]
    assert len(lines) == 1 and lines[0].endswith("pip install torch-fidelity")
