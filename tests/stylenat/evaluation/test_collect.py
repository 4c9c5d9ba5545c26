"""One pass serves all metrics, and any number of processes ends with the same bits."""

import os
import weakref
from typing import ClassVar

import pytest
import torch
from image_sets import Images, copies
from torch import distributed, multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode

from plugins.features.random_convolution import RandomConvolution
from plugins.metrics.frechet import FID, FrechetRandomFeatures
from plugins.metrics.inception_score import InceptionScore
from plugins.metrics.kernel import KID
from plugins.metrics.sliced_wasserstein import SlicedWasserstein
from plugins.metrics.spectrum import AzimuthalPower, Spectrum
from registry import UserError
from stylenat.evaluation import accumulators
from stylenat.evaluation.collect import Collection, collect_generated
from stylenat.evaluation.evaluate import Evaluator, warnings_for
from stylenat.networks.generator import StyleGenerator
from stylenat.sampling import sampler_of
from stylenat.testing.contract import pictures
from stylenat.training.live_memory import LiveMemory


class Counted(RandomConvolution):
    """Counts the images that it embeds, over all instances."""

    embedded = 0

    def __call__(self, images):
        Counted.embedded += len(images)
        return super().__call__(images)


def generator():
    from plugins.blocks.hydra import HydraBlock
    from plugins.partitions.split import Split

    torch.manual_seed(0)

    def block(**options):
        return HydraBlock(partition=Split(), mlp_ratio=2, **options)

    return StyleGenerator(
        resolution=16, block=block, channels=[16, 16, 16], latent_dim=16, style_dim=16, mapping_layers=2, min_heads=2
    ).eval()


def test_metrics_that_need_the_same_features_embed_each_image_once():
    metrics = [FID(Counted()), KID(Counted(), subsets=2, subset_size=8), FID(Counted(channels=8))]
    metrics[2].name = "other"
    Counted.embedded = 0
    images = pictures(32, 16)
    evaluation = Evaluator(Images(images), metrics).evaluate(lambda start, count: images[start : start + count], 32)
    assert Counted.embedded == 2 * (32 + 32)  # Two embeddings, of the real and of the generated images.
    assert set(evaluation.metrics) == {"fid_random_convolution", "kid_random_convolution", "other"}


def test_metrics_of_one_embedding_share_what_they_collect():
    first, second, third = FID(RandomConvolution()), FrechetRandomFeatures(), KID(RandomConvolution())
    found = Collection([first, second, third])
    assert found[0] is found[1] and found[2] is not found[0] and len(found.streams) == 1
    alone = Collection([first])
    assert alone[0] is not found[0]


def test_features_without_a_protocol_are_not_taken_for_others():
    class Unknown:
        name, dim = "unknown", 3

        def __call__(self, images):
            return images.float().mean(dim=(2, 3))

    found = Collection([FID(Unknown()), FID(Unknown())])
    assert found[0] is not found[1]
    metric = FID(Unknown())
    images = pictures(8, 16)
    protocol = Evaluator(Images(images), [metric]).evaluate(lambda s, c: images[:1].expand(c, -1, -1, -1), 8).protocol
    assert protocol["metrics"]["fid_unknown"]["extractor"]["class"].endswith("Unknown")


def test_two_metrics_that_give_one_name_are_refused():
    images = pictures(8, 16)
    metrics = [FrechetRandomFeatures(), FrechetRandomFeatures()]
    with pytest.raises(UserError, match="two metrics give a value called 'frechet_random_features'"):
        Evaluator(Images(images), metrics).evaluate(lambda start, count: images[:1].expand(count, -1, -1, -1), 8)


def measured(counts=(37, 21)):
    torch.set_num_threads(1)
    images, reals = counts
    metrics = [
        FrechetRandomFeatures(),
        KID(RandomConvolution(), subsets=3, subset_size=8),
        SlicedWasserstein(),
        Spectrum(),
    ]
    real = Images(pictures(reals, 16))
    found = []
    for batch in (16, 20):  # 20 are cut from blocks of 32.
        evaluator = Evaluator(real, metrics, batch=batch)
        evaluation = evaluator.evaluate(sampler_of(generator(), 3, truncation_psi=0.7, batch=batch), images)
        pixels = evaluation.protocol["real"]["pixels_sha256"]
        found += [*evaluation.metrics.values(), *evaluation.spread.values(), float(int(pixels[:12], 16))]
    return found


def _one_of(rank: int, processes: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    place = f"file://{folder}/rendezvous-{processes}"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=processes)
    torch.save(torch.tensor(measured(), dtype=torch.float64), f"{folder}/{processes}-{rank}.pt")
    distributed.destroy_process_group()


def test_one_two_and_four_processes_find_the_same_bits_on_every_rank(tmp_path):
    """37 images are two and a half blocks of 16: ranks without a block of their own, and a last one that is cut."""
    threads = torch.get_num_threads()
    alone = torch.tensor(measured(), dtype=torch.float64)
    torch.set_num_threads(threads)
    for processes in (2, 4):
        multiprocessing.start_processes(_one_of, (processes, str(tmp_path)), nprocs=processes, start_method="fork")
        for rank in range(processes):
            assert torch.equal(torch.load(tmp_path / f"{processes}-{rank}.pt", weights_only=True), alone)


def test_parts_are_given_up_while_their_rows_are_joined():
    """A result of fresh memory is filled page by page, so that the rows are in memory once."""
    whole = torch.arange(6400.0).view(100, 64)
    parts = [part.clone() for part in whole.split(16)]
    there = [weakref.ref(part) for part in parts]

    class Watching(TorchDispatchMode):
        left: ClassVar[list[int]] = []

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.copy_.default:
                self.left.append(sum(part() is not None for part in there))
            return function(*args, **(kwargs or {}))

    with Watching():
        assert torch.equal(accumulators._joined(parts), whole)
    assert Watching.left == [7, 6, 5, 4, 3, 2, 1]


def test_memory_of_the_inception_score_is_that_of_one_split():
    class Logits(RandomConvolution):
        def logits(self, features):
            return features.repeat(1, 8)

    rows = accumulators.Rows()
    rows.update(torch.randn(1000, 16, generator=torch.Generator().manual_seed(0)))
    with LiveMemory() as memory:
        InceptionScore(Logits(), splits=10).compare(accumulators.Rows(), rows)
    one_split = 100 * 128 * 8
    assert memory.peak < 8 * one_split


def test_a_sample_is_a_function_of_the_seed_and_its_number_alone():
    sampler = sampler_of(generator(), 3)
    whole = sampler(0, 32)
    assert torch.equal(sampler(16, 16), whole[16:]) and not torch.equal(whole[:16], whole[16:])
    assert torch.equal(sampler.latents(5, 3), sampler.latents(0, 16)[5:8])
    assert not torch.equal(sampler_of(generator(), 4)(0, 16), whole[:16])


@pytest.mark.parametrize("features", [RandomConvolution(), AzimuthalPower()])
def test_batches_of_any_size_give_the_vectors_of_blocks_of_16_but_for_rounding(features, monkeypatch):
    """Within 1e-5 of the largest number, of the same images."""
    images, cpu, embedded = pictures(50, 16), torch.device("cpu"), []
    embed = type(features).__call__
    monkeypatch.setattr(type(features), "__call__", lambda self, x: (embedded.append(len(x)), embed(self, x))[1])

    def vectors(batch):
        return collect_generated([KID(features)], copies(images), 50, cpu, batch=batch)[0].all()

    reference = vectors(16)
    assert len(reference) == 50
    for batch in (1, 7, 48):
        embedded.clear()
        torch.testing.assert_close(vectors(batch), reference, rtol=0, atol=1e-5 * float(reference.abs().max()))
        assert max(embedded) == batch


@pytest.mark.parametrize("batch", [4, 7, 20])
def test_an_image_has_the_same_bits_whatever_else_is_asked_for(batch):
    sampler = sampler_of(generator(), 3, batch=batch)
    whole = sampler(0, 32)
    assert torch.equal(sampler(3, 1), whole[3:4]) and torch.equal(sampler(15, 10), whole[15:25])
    assert (whole.int() - sampler_of(generator(), 3)(0, 32).int()).abs().max() <= 1
    batches = [sampler.batch_of(i) for i in range(96)]
    assert all(i in made and len(made) <= batch for i, made in enumerate(batches))
    assert sorted({made.start for made in batches}) == [0, *sorted({made.stop for made in batches})[:-1]]


def test_generated_images_stay_on_their_device():
    copied = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func in (torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist) and args[0].ndim == 4:
                copied.append(func)
            return super().__torch_function__(func, types, args, kwargs)

    network = generator()
    synthesis = network.synthesis
    network.synthesis = lambda styles: synthesis(styles).as_subclass(Watched)
    metrics = [FID(RandomConvolution()), KID(RandomConvolution()), SlicedWasserstein(), Spectrum()]
    collect_generated(metrics, sampler_of(network, 3), 32, torch.device("cpu"))
    assert isinstance(sampler_of(network, 3)(0, 1), Watched) and not copied


def test_the_protocol_says_what_was_measured():
    images = pictures(20, 16)
    evaluator = Evaluator(Images(images, "content"), [FrechetRandomFeatures()], real_samples=18)
    protocol = evaluator.evaluate(sampler_of(generator(), 3, 0.5), 24).protocol
    assert protocol["generated"] == {
        "count": 24,
        "seed": 3,
        "resolution": 16,
        "truncation_psi": 0.5,
        "truncation_centre": "mean of 4096 styles, seed 0",
        "precision": "float32",
        "batch": 16,
        "labels": None,
    }
    real = protocol["real"]
    assert (real["count"], real["resolution"], real["content"]) == (18, 16, "content")
    other = Evaluator(Images(images[:18]), [FrechetRandomFeatures()]).evaluate(sampler_of(generator(), 3), 16)
    assert other.protocol["real"]["pixels_sha256"] == real["pixels_sha256"]
    assert protocol["metrics"]["frechet_random_features"]["extractor"]["name"] == "random_convolution"


def test_metrics_of_generated_images_alone_leave_the_data_set_alone():
    class Missing:
        resolution = 16

    class Brightness(Spectrum):
        uses_real = False

        def compare(self, real, fake):
            return float(fake.mean()[0])

    evaluation = Evaluator(Missing(), [Brightness()]).evaluate(sampler_of(generator(), 3), 16)
    assert evaluation.metrics["spectrum"] and evaluation.protocol["real"] == {}


def test_more_real_images_than_there_are_is_one_line():
    images = pictures(8, 16)
    with pytest.raises(UserError, match="images in memory has 8 images, not 9"):
        Evaluator(Images(images), [Spectrum()], real_samples=9).evaluate(lambda s, c: images, 8)


def test_few_images_are_warned_of():
    assert warnings_for(9_999) and not warnings_for(10_000)
