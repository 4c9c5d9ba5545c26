"""One metric that fails is one line and no value; the others go on, and all processes agree."""

import math
import os

import pytest
import torch
from image_sets import Images, copies
from torch import distributed, multiprocessing

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID, FrechetRandomFeatures
from plugins.metrics.kernel import KID
from plugins.metrics.manifold import DensityCoverage, PrecisionRecall
from plugins.metrics.spectrum import Spectrum
from registry import UserError
from stylenat.evaluation.baselines import baselines
from stylenat.evaluation.cache import StatisticsCache
from stylenat.evaluation.collect import generated_images
from stylenat.evaluation.evaluate import Evaluator
from stylenat.evaluation.failures import attempted, lines_of
from stylenat.pixels import NotFinite, to_uint8
from stylenat.ranks import rank
from stylenat.sampling import Sampler
from stylenat.testing.contract import pictures
from stylenat.training.interrupt import Stopped

REAL, FAKE = pictures(40, 16), pictures(40, 16, seed=1)


class Broken(Spectrum):
    """A metric that fails in one of its methods."""

    name = "broken"

    def __init__(self, method, error):
        super().__init__()
        setattr(self, method, self._raise)
        self._error = error

    def _raise(self, *arguments):
        raise self._error


class Spoiled(RandomConvolution):
    """Features of which one row is not finite, of images that are ``FAKE``'s or ``REAL``'s."""

    def __init__(self, images, value=math.nan):
        super().__init__()
        self.image, self.value = images[20], value

    def protocol(self):
        return super().protocol() | {"spoiled": str(self.value)}

    def __call__(self, images):
        features = super().__call__(images)
        features[(images == self.image).flatten(1).all(dim=1)] = self.value
        return features


def evaluated(metrics, said=None, cache=None, generate=None):
    said = [] if said is None else said
    evaluator = Evaluator(Images(REAL, "content"), metrics, cache=cache, say=said.append)
    return evaluator.evaluate(generate or copies(FAKE), 40)


@pytest.mark.parametrize("method", ["compare", "accumulator", "protocol"])
@pytest.mark.parametrize("error", [UserError("too few images"), RuntimeError("\x1b[31mno\nline")])
def test_a_metric_that_raises_is_one_line_and_null_and_the_others_go_on(method, error):
    said = []
    found = evaluated([FrechetRandomFeatures(), Broken(method, error), Spectrum()], said)
    alone = evaluated([FrechetRandomFeatures(), Spectrum()])
    assert math.isnan(found.metrics.pop("broken")) and found.metrics == alone.metrics
    text = "too few images" if isinstance(error, UserError) else "RuntimeError: \\x1b[31mno line"
    assert said == [f"broken not measured: {text}"] and found.protocol["metrics"]["broken"]["better"] == "lower"


def test_features_that_raise_or_are_no_vectors_cost_their_metrics_alone():
    class Raises(RandomConvolution):
        def __call__(self, images):
            raise ZeroDivisionError("by what?")

        def protocol(self):
            return {"name": "raises"}

    class Scalars(RandomConvolution):
        def __call__(self, images):
            return super().__call__(images).mean(dim=1)

        def protocol(self):
            return {"name": "scalars"}

    said = []
    metrics = [FID(Raises()), KID(Scalars(), subsets=2, subset_size=8), Spectrum()]
    found = evaluated(metrics, said)
    assert [name for name, value in found.metrics.items() if math.isfinite(value)] == ["spectrum"]
    assert said[0] == "fid_random_convolution not measured: ZeroDivisionError: by what?"
    assert said[1].startswith("kid_random_convolution not measured: TypeError: features must be [16, dim]")


@pytest.mark.parametrize("images", [REAL, FAKE])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_give_no_plausible_number(images, value):
    features, said = Spoiled(images, value), []
    metrics = [
        FID(features),
        FID(features, bootstrap=2),
        KID(features, subsets=2, subset_size=8),
        PrecisionRecall(features),
        DensityCoverage(features),
        Spectrum(),
    ]
    metrics[1].name = "bootstrapped"
    found = evaluated(metrics, said)
    assert math.isfinite(found.metrics.pop("spectrum")) and all(map(math.isnan, found.metrics.values()))
    assert {name.partition("_")[0] for name in found.metrics} == {
        "fid", "bootstrapped", "kid", "precision", "recall", "density", "coverage",
    }  # fmt: skip
    which = "real" if images is REAL else "generated"
    assert len(said) == 1 and f"random_convolution is not finite for {which} images (first among 16 to 32)" in said[0]
    assert not found.spread and not found.intervals


def test_a_value_that_is_not_finite_is_null_with_a_line():
    class Diverges(Spectrum):
        def compare(self, real, fake):
            return {"good": 1.0, "bad": math.inf}

    said = []
    found = evaluated([Diverges()], said)
    assert found.metrics["good"] == 1 and math.isnan(found.metrics["bad"])
    assert said == ["bad not measured: its value is not finite"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped, MemoryError, torch.OutOfMemoryError, SystemExit])
def test_what_concerns_the_whole_run_goes_on_up(error):
    with pytest.raises(error):
        evaluated([Broken("compare", error())])


def test_a_metric_that_fails_once_keeps_the_names_of_its_values():
    class Sometimes(Spectrum):
        fails = False

        def compare(self, real, fake):
            if self.fails:
                raise RuntimeError("no")
            return {"one": 1.0, "two": 2.0}

    metric = Sometimes()
    evaluator = Evaluator(Images(REAL), [metric], say=lambda line: None)
    assert evaluator.evaluate(copies(FAKE), 40).metrics == {"one": 1, "two": 2}
    metric.fails = True
    assert set(evaluator.evaluate(copies(FAKE), 40).metrics) == {"one", "two"}


def test_images_that_are_not_finite_have_no_metrics():
    def generate(start, count):
        return to_uint8(torch.full((count, 3, 16, 16), math.nan if start else 0.0))

    said = []
    found = evaluated([FrechetRandomFeatures(), Spectrum()], said, generate=generate)
    assert all(map(math.isnan, found.metrics.values()))
    assert said == ["frechet_random_features, spectrum not measured: 16 of 16 images hold values that are not finite"]


def test_statistics_that_are_not_finite_are_neither_kept_nor_taken(tmp_path):
    cache = StatisticsCache(tmp_path, print)
    evaluated([KID(Spoiled(REAL), subsets=2, subset_size=8)], cache=cache)
    assert not list(tmp_path.iterdir())
    metric = KID(RandomConvolution(), subsets=2, subset_size=8)
    expected = evaluated([metric], cache=cache).metrics
    (path,) = tmp_path.iterdir()
    real = Evaluator(Images(REAL, "content"), [metric], cache=cache).real
    (stream,) = real.collection().streams.values()
    key = real._key(stream, "rows", stream.accumulators["rows"])
    tensors, notes = cache.load(key, 2**20, lambda *found: None)
    tensors["rows"][3] = math.nan
    cache.save(key, tensors, notes)
    assert cache.path(key) == path and evaluated([metric], cache=cache).metrics == expected


def test_baselines_leave_out_what_fails():
    said = []
    evaluator = Evaluator(Images(REAL), [Broken("compare", RuntimeError("no")), Spectrum()], say=said.append)
    assert all(set(values) == {"spectrum"} for values in baselines(evaluator).values())
    assert set(said) == {"baselines: broken not measured: RuntimeError: no"}


def test_memory_that_ran_out_is_not_a_metrics_own_fault():
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        attempted(lambda: torch.empty(2**50, dtype=torch.uint8))


def test_one_reason_is_one_line():
    assert lines_of([("a", "x"), ("b", "y"), ("c", "x")]) == ["a, c not measured: x", "b not measured: y"]


class _Generator(torch.nn.Module):
    latent_dim, num_styles = 2, 1

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value))

    def mapping(self, latents):
        return latents

    def synthesis(self, styles):
        return self.value.expand(len(styles), 3, 4, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_generator_that_is_not_finite_is_refused_and_a_grid_says_so(value, capsys):
    with pytest.raises(NotFinite, match="generator's images are not finite") as refused:
        Sampler(_Generator(value), 0)(0, 20)
    assert refused.value.pixels.shape == (20, 3, 4, 4)

    def generate(start, count):
        return Sampler(_Generator(value), 0)(start, count)

    assert generated_images(generate, 20).shape == (20, 3, 4, 4)
    assert "not finite" in capsys.readouterr().err
    assert Sampler(_Generator(0.0), 0)(0, 3).float().std() > 0


class _OnOneRank(RandomConvolution):
    """Features that fail in process 1 alone, and not at once."""

    calls = 0

    def protocol(self):
        return {"name": "on one rank"}

    def __call__(self, images):
        self.calls += 1
        if rank() == 1 and self.calls > 1:
            raise RuntimeError("this process alone")
        return super().__call__(images)


class _ComparedOnOneRank(Spectrum):
    name = "compared"

    def compare(self, real, fake):
        if rank() == 1:
            raise RuntimeError("compared here alone")
        return 1.0


def _one_of(number, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=2)
    torch.set_num_threads(1)
    said = []
    metrics = [FID(_OnOneRank()), _ComparedOnOneRank(), Spectrum()]
    found = Evaluator(Images(pictures(80, 16)), metrics, say=said.append).evaluate(copies(pictures(80, 16)), 80)
    torch.save({"metrics": found.metrics, "said": said}, f"{folder}/{number}.pt")
    distributed.destroy_process_group()


def test_a_metric_that_fails_in_one_process_is_null_in_all(tmp_path):
    multiprocessing.start_processes(_one_of, (str(tmp_path),), nprocs=2, start_method="fork")
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert [name for name, value in found["metrics"].items() if math.isfinite(value)] == ["spectrum"]
        assert found["said"] == [
            "fid_random_convolution not measured: RuntimeError: this process alone",
            "compared not measured: RuntimeError: compared here alone",
        ]
