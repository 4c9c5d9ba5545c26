"""The memory of a training iteration grows with the image's pixels, never with their square."""

from types import SimpleNamespace

import pytest
import torch
from unlaunched import Unlaunched

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.split import Split
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator
from stylenat.training.live_memory import LiveMemory
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration


def iterated(experiment, side, backend, **changed):
    """The memory of one iteration."""
    levels = side.bit_length() - 2
    settings = experiment(
        generator=lambda: StyleGenerator(
            resolution=side,
            block=lambda **site: HydraBlock(partition=Split(3), mlp_ratio=1, gamma_bias=1.0, backend=backend, **site),
            channels=[8] * levels,
            latent_dim=8,
            style_dim=8,
            mapping_layers=2,
            min_heads=2,
        ),
        discriminator=lambda: WaveletDiscriminator(resolution=side, channels=[8] * (levels - 1), stddev_group=2),
        dataset=SimpleNamespace(resolution=side),
        batch_size=2,
        **changed,
    )
    state = TrainingState(settings, torch.device("cpu"))
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with LiveMemory() as memory:
        iteration(state, iter([(images, None)]))
    return memory


@pytest.mark.parametrize("changed", [{"regularizers": []}, {}], ids=["alone", "with second derivatives"])
@pytest.mark.parametrize("backend", ["tiled", "compiled", "triton"])
def test_an_iteration_at_four_times_the_pixels_takes_four_times_the_memory(backend, changed, experiment):
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds for Linux")
    chosen = Unlaunched() if backend == "triton" else backend
    small, large = (iterated(experiment, side, chosen, **changed) for side in (32, 64))
    assert large.peak <= 4.5 * small.peak
    assert large.largest <= 4.5 * small.largest and small.largest < 32**4
