"""What each metric says where the answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_sets import Images, copies

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID
from plugins.metrics.kernel import KID
from plugins.metrics.manifold import DensityCoverage, PrecisionRecall
from plugins.metrics.path_length import PerceptualPathLength, Steps, _arc
from plugins.metrics.sliced_wasserstein import MOST, SlicedWasserstein, _descriptors, _quantiles
from plugins.metrics.spectrum import AzimuthalPower, Spectrum
from registry import UserError
from stylenat.evaluation.accumulators import Rows
from stylenat.evaluation.evaluate import Evaluator, metric_protocol
from stylenat.evaluation.manifold import density_and_coverage, precision_and_recall, tiles
from stylenat.testing.contract import pictures
from stylenat.training.live_memory import LiveMemory


@pytest.mark.parametrize("metric, better", [
    (FID(RandomConvolution()), "lower"),
    (KID(RandomConvolution()), "lower"),
    (SlicedWasserstein(), "lower"),
    (Spectrum(), "lower"),
    (PrecisionRecall(RandomConvolution()), "higher"),
    (DensityCoverage(RandomConvolution()), "higher"),
])  # fmt: skip
def test_its_protocol_says_which_way_is_better(metric, better):
    assert metric_protocol(metric)["better"] == better


def rows(features):
    collected = Rows()
    for part in features.split(16):
        collected.update(part)
    return collected


def naive(real, fake, k):
    """The papers' formulas, with whole matrices of distances and loops over images."""

    def ball(features):
        return [sorted(np.linalg.norm(features - f, axis=1))[k] for f in features]

    around_real, around_fake = ball(real), ball(fake)
    between = [[np.linalg.norm(f - r) for r in real] for f in fake]
    inside = [[between[j][i] <= around_real[i] for i in range(len(real))] for j in range(len(fake))]
    precision = np.mean([any(row) for row in inside])
    recall = np.mean([any(between[j][i] <= around_fake[j] for j in range(len(fake))) for i in range(len(real))])
    density = np.sum(inside) / (k * len(fake))
    coverage = np.mean([min(between[j][i] for j in range(len(fake))) < around_real[i] for i in range(len(real))])
    return precision, recall, density, coverage


@pytest.mark.parametrize("counts", [(40, 30), (25, 60)])
def test_neighbourhoods_in_blocks_equal_the_naive_formulas(counts, monkeypatch):
    random = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(count, 6, generator=random) for count in counts)
    fake = 1.2 * fake + 0.3
    expected = naive(real.numpy(), fake.numpy(), 3)
    monkeypatch.setattr("stylenat.evaluation.manifold.TILE", 7)
    found = (*precision_and_recall(real, fake, 3), *density_and_coverage(real, fake, 3))
    assert found == pytest.approx(expected) and 0 < min(found)


def from_differences(real, fake, k):
    """The papers' formulas on float64 distances, each from the differences of its coordinates."""

    def distances(a, b):
        return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")

    def radii(a):
        return distances(a, a).fill_diagonal_(torch.inf).kthvalue(k, dim=1).values

    around_real, around_fake, between = radii(real), radii(fake), distances(fake, real)
    inside = between < around_real
    shares = (between <= around_real).any(dim=1), (between <= around_fake[:, None]).any(dim=0), inside.any(dim=0)
    precision, recall, coverage = (float(share.double().mean()) for share in shares)
    return precision, recall, int(inside.sum()) / (k * len(fake)), coverage


def hard_sets():
    """Features that float32 products lose: little variance against the mean, clusters, duplicates, ties, scales."""
    random = torch.Generator().manual_seed(0)

    def noise(dim=16):
        return torch.randn(150, dim, generator=random)

    centres = 1e3 * torch.randn(15, 16, generator=random).repeat(10, 1)
    same, copied = noise()[:1].expand(150, -1), noise()
    return {
        "collapsed": (5 + 1e-4 * noise(), 5 + 1e-4 * noise()),
        "mean of 1e3": (1e3 + 1e-2 * noise(), 1e3 + 1e-2 * noise()),
        "scale of 1e-6": (1e-6 * noise(), 1e-6 * noise()),
        "scale of 1e-30": (1e-30 * noise(), 1e-30 * noise()),
        "clusters": (centres + 1e-3 * noise(), centres + 1e-3 * noise()),
        "one far away": (torch.cat([1e-3 * noise(), 1e6 + noise()[:1]]), 1e-3 * noise()),
        "one image": (same, same.clone()),
        "copies": (copied, copied.flip(0)),
        "ties": (noise(3).round(), noise(3).round()),
        "generator collapsed": (noise(), noise()[:1] + 1e-6 * noise()),
    }


@pytest.mark.parametrize("name", hard_sets())
@pytest.mark.parametrize("tile", [64, 1024])
def test_neighbourhoods_are_those_of_float64_distances(name, tile, monkeypatch):
    monkeypatch.setattr("stylenat.evaluation.manifold.TILE", tile)
    real, fake = hard_sets()[name]
    for k in (3, 5):
        found = (*precision_and_recall(real, fake, k), *density_and_coverage(real, fake, k))
        assert found == pytest.approx(from_differences(real, fake, k), rel=1e-6, abs=0)


def test_tiles_are_bounded_and_hold_every_pair_once():
    shapes = [tile.least.shape for tile in tiles(torch.zeros(1000, 2), torch.zeros(5_000, 2))]
    assert max(map(max, shapes)) <= 1024 and sum(shape.numel() for shape in shapes) == 5_000_000


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_features_that_are_not_finite_have_no_neighbours(value, which):
    sets = [torch.randn(20, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    sets[which][7, 2] = value
    for measure in (precision_and_recall, density_and_coverage):
        with pytest.raises(UserError, match="not finite"):
            measure(*sets, 3)


def test_precision_and_recall_tell_quality_from_variety():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(300, 4, generator=random)
    narrow, far = 0.1 * torch.randn(300, 4, generator=random), real + 50
    metric, other = PrecisionRecall(RandomConvolution()), DensityCoverage(RandomConvolution())
    of_narrow, of_far = (metric.compare(rows(real), rows(fake)) for fake in (narrow, far))
    precision, recall = "precision_random_convolution", "recall_random_convolution"
    assert of_narrow[precision] > 0.95 and of_narrow[recall] < 0.2
    assert of_far == {precision: 0, recall: 0}
    assert other.compare(rows(real), rows(far)) == {
        "density_random_convolution": 0,
        "coverage_random_convolution": 0,
    }


def test_too_few_images_for_neighbours_is_one_line():
    with pytest.raises(UserError, match="needs more than 3 images; there are 3"):
        precision_and_recall(torch.zeros(3, 2), torch.zeros(3, 2), 3)


@pytest.mark.parametrize("counts", [(200, 1000), (1000, 200)])
def test_neighbours_that_no_image_can_have_are_refused_before_anything_is_measured(counts):
    metric = PrecisionRecall(RandomConvolution(), k=200)
    with pytest.raises(UserError, match=r"^metric.precision_recall.k = 200 needs more than 200 images.*there are 200"):
        metric.check_images(*counts)
    metric.check_images(201, 201)
    metric.check_images(None, 201)


def test_kid_is_unbiased_where_fid_is_not():
    """Over two sets of one distribution its mean is 0, whatever their size; the Fréchet distance's is not."""
    random = torch.Generator().manual_seed(0)
    kid, fid = KID(RandomConvolution(), subsets=1, subset_size=40), FID(RandomConvolution())
    kids, fids = [], []
    for _ in range(60):
        real, fake = torch.randn(40, 8, generator=random), torch.randn(40, 8, generator=random)
        kids.append(kid.compare(rows(real), rows(fake)).value)
        fids.append(fid.compare(_gaussian(real), _gaussian(fake)).value)
    error = np.std(kids) / np.sqrt(len(kids))
    assert abs(np.mean(kids)) < 3 * error and min(kids) < 0
    assert np.mean(fids) > 10 * np.std(fids) / np.sqrt(len(fids))


def _gaussian(features):
    statistics = FID(RandomConvolution()).accumulator()
    statistics.update(features)
    return statistics


def test_kid_takes_smaller_subsets_of_smaller_sets_and_says_so_when_there_is_nothing_to_compare():
    metric = KID(RandomConvolution(), subsets=2)
    random = torch.Generator().manual_seed(0)
    metric.compare(rows(torch.randn(9, 4, generator=random)), rows(torch.randn(7, 4, generator=random)))
    with pytest.raises(UserError, match="at least 2 images"):
        metric.compare(rows(torch.randn(9, 4)), rows(torch.randn(1, 4)))


@pytest.mark.parametrize(
    ("subsets", "subset_size", "counts", "has_spread"),
    [
        (5, 1000, (30, 30), False),  # Every subset is both sets.
        (1, 8, (30, 30), False),
        (5, 8, (30, 30), True),
        (5, 1000, (30, 40), True),
    ],
)
def test_kid_has_a_spread_only_where_its_subsets_can_differ(subsets, subset_size, counts, has_spread):
    random = torch.Generator().manual_seed(0)
    real, fake = (rows(torch.randn(count, 8, generator=random)) for count in counts)
    found = KID(RandomConvolution(), subsets=subsets, subset_size=subset_size).compare(real, fake)
    assert (found.spread is not None and found.spread > 1e-6) if has_spread else found.spread is None


def test_one_resampling_and_one_sample_have_no_spread():
    random = torch.Generator().manual_seed(0)
    real, fake = (rows(torch.randn(30, 8, generator=random)) for _ in range(2))
    found = FID(RandomConvolution(), bootstrap=1).compare(real, fake)
    assert found.spread is None and found.interval is None
    assert PerceptualPathLength().compare(rows(torch.empty(0, 1)), rows(torch.ones(1, 1))).spread is None


def test_the_bootstrap_gives_the_same_value_with_an_interval_that_narrows_with_more_images():
    random = torch.Generator().manual_seed(0)
    real = torch.randn(500, 6, generator=random)
    widths = []
    for count in (100, 1600):
        fake = 1.3 * torch.randn(count, 6, generator=random)
        plain, bootstrapped = FID(RandomConvolution()), FID(RandomConvolution(), bootstrap=20)
        expected = plain.compare(_streamed(plain, real), _streamed(plain, fake))
        found = bootstrapped.compare(rows(real), rows(fake))
        assert found.value == expected.value and expected.interval is None
        assert found.interval[0] < found.value < found.interval[1]
        assert found == bootstrapped.compare(rows(real), rows(fake))
        widths.append(found.spread)
    assert widths[1] < widths[0] / 2


def _streamed(metric, features):
    collected = metric.accumulator()
    for part in features.split(16):
        collected.update(part)
    return collected


def test_a_metric_on_other_features_than_the_fields_has_another_name():
    features = RandomConvolution()
    assert FID(features).name == "fid_random_convolution" and KID(features).name == "kid_random_convolution"
    assert FID().name == "fid" and KID().name == "kid"


def test_the_spectrum_is_that_of_a_known_wave():
    side, cycles = 32, 5
    wave = torch.sin(2 * torch.pi * cycles * torch.arange(side) / side)
    image = (128 + 100 * wave).round().to(torch.uint8).expand(1, 3, side, side)
    power = AzimuthalPower()(image)[0]
    assert power.shape == (24,) and int(power.argmax()) == cycles
    assert torch.equal(AzimuthalPower()(image.transpose(-1, -2)).argmax(), torch.tensor(cycles))


def test_the_spectrum_distance_is_the_gain_of_a_brighter_set_in_decibels():
    images = pictures(32, 32) // 2
    found = Evaluator(Images(images), [Spectrum()]).evaluate(copies(2 * images), 32).metrics["spectrum"]
    assert found == pytest.approx(20 * np.log10(2), rel=1e-3)


def test_checkerboards_that_blur_the_eye_are_seen_in_the_spectrum():
    images = pictures(32, 32)
    board = 3 * ((torch.arange(32)[:, None] + torch.arange(32)) % 2)
    marked = (images.int() + board).clamp(0, 255).to(torch.uint8)
    evaluator = Evaluator(Images(images), [Spectrum()])
    plain = evaluator.evaluate(copies(images), 32).metrics["spectrum"]
    assert plain == 0 and evaluator.evaluate(copies(marked), 32).metrics["spectrum"] > 3


def test_sliced_wasserstein_keeps_a_bounded_number_of_patches():
    collected = SlicedWasserstein(patches=1).accumulator()
    collected.update(pictures(4, 16).repeat(MOST // 4, 1, 1, 1))
    (before,) = collected.quantiles(8, 0)
    collected.update(255 - pictures(16, 16))
    assert torch.equal(before, collected.quantiles(8, 0)[0])


def test_sliced_wasserstein_is_the_mean_distance_of_sorted_projections():
    metric = SlicedWasserstein(patches=16, projections=4)
    real, fake = metric.accumulator(), metric.accumulator()
    real.update(pictures(32, 16))
    for count in (16, 32):  # What was found for fewer images is not kept.
        fake.update(255 - pictures(16, 16))
        found = metric.compare(real, fake)
        assert count < 32 or found == metric.compare(real, fake)
    directions = torch.nn.functional.normalize(torch.randn(147, 4, generator=torch.Generator().manual_seed(0)), dim=0)
    # 512 patches a set and 512 quantiles: each is a sample.
    ours, theirs = (_descriptors(patches._levels[0]).double() @ directions.double() for patches in (real, fake))
    expected = 1000 * (ours.sort(0).values - theirs.sort(0).values).abs().mean()
    assert found == pytest.approx(float(expected), rel=1e-4)


class Line:
    """A sampler whose picture is its style, spread out, and whose styles are its latents."""

    generator = SimpleNamespace(mapping=None, synthesis=None)

    def labels(self, start, count):
        return None

    def latents(self, start, count):
        drawn = [torch.randn(4, generator=torch.Generator().manual_seed(i)) for i in range(start, start + count)]
        return torch.stack(drawn)

    def styles(self, latents, labels=None):
        return 2 * latents

    def pixels(self, styles):
        return styles[:, :3, None, None].expand(-1, -1, 2, 2)


def squared_distance(one, other):
    return (one - other).square().mean(dim=(1, 2, 3))


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_path_length_in_w_is_the_squared_speed_along_the_line(sampling):
    steps, sampler = Steps(squared_distance, "w", sampling, 1e-2), Line()
    found = steps.along(sampler, 16, 16)
    ends = sampler.styles(sampler.latents(32, 32))[:, :3]
    assert found.shape == (16, 1)
    torch.testing.assert_close(found[:, 0], (ends[1::2] - ends[0::2]).square().mean(dim=1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(steps.along(sampler, 20, 3), found[4:7])


def test_the_way_in_z_is_an_arc_of_normal_latents_length():
    here, there = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    for at in (0.0, 0.3, 1.0):
        point = _arc(here, there, torch.full((5, 1), at))
        torch.testing.assert_close(point.norm(dim=1), torch.full((5,), 8.0))
    torch.testing.assert_close(point, there / there.norm(dim=1, keepdim=True) * 8, rtol=1e-4, atol=1e-4)


def test_images_alone_have_no_path_length():
    with pytest.raises(UserError, match="measures a generator"):
        Steps(squared_distance, "w", "end", 1e-2).along(copies(pictures(4, 16)), 0, 16)


def test_memory_of_swd_is_that_of_some_directions_at_a_time():
    samples, directions = torch.randn(4000, 147), torch.randn(147, 256)
    with LiveMemory() as memory:
        found = _quantiles(samples, directions)
    assert memory.peak < 4 * 4000 * 256 / 2
    ordered = (samples @ directions).sort(dim=0).values
    torch.testing.assert_close(found[:, 0], ordered[(torch.tensor(0.5) / 512 * 4000).long()], rtol=1e-4, atol=1e-4)
