"""Memory that runs out: what is said, and what number it names."""

from pathlib import Path

import pytest
import torch

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.split import Split
from registry import UserError
from stylenat import checkpoint
from stylenat.commands.run import main as run
from stylenat.draws import Draw
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator
from stylenat.training import memory
from stylenat.training.memory import (
    accumulate_for,
    out_of_memory_is_one_line,
    pass_of_one,
    smaller_batch,
    too_little_for,
)
from stylenat.training.state import TrainingState


class Gpu:
    """A GPU's counters: ``weights`` bytes are taken, and an image takes ``image`` more."""

    total = 1000

    def __init__(self, monkeypatch, weights=100, image=100, stays=0):
        self.taken, self.image, self.stays, self.peak = weights, image, stays, 0
        for name in (
            "empty_cache",
            "reset_peak_memory_stats",
            "memory_allocated",
            "max_memory_allocated",
            "mem_get_info",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def empty_cache(self): ...

    def reset_peak_memory_stats(self, device):
        self.peak = self.taken

    def memory_allocated(self, device):
        return self.taken

    def max_memory_allocated(self, device):
        return self.peak

    def mem_get_info(self, device):
        return self.total - self.taken, self.total

    def one(self):
        self.taken += self.stays
        if self.taken + self.image > self.total:
            raise torch.OutOfMemoryError
        self.peak = max(self.peak, self.taken + self.image)


def line(gpu, images):
    with (
        pytest.raises(UserError) as raised,
        out_of_memory_is_one_line(lambda: images, gpu.one, torch.device("cuda", 0), smaller_batch),
    ):
        raise torch.OutOfMemoryError
    return str(raised.value)


def test_the_batch_that_fits_is_measured_with_one_image(monkeypatch):
    assert line(Gpu(monkeypatch), 16) == (
        "out of memory on cuda:0 with 16 image(s) at once; add --batch 8; saved files are kept"
    )
    # Gradients, which stay, are not counted for each image.
    assert "add --batch 6;" in line(Gpu(monkeypatch, stays=200), 16)
    # More would fit than did: the memory went elsewhere.
    assert "add --batch 2;" in line(Gpu(monkeypatch), 4)
    assert "one does not fit either" in line(Gpu(monkeypatch, image=950), 16)


def test_what_filled_the_memory_is_let_go_before_it_is_measured(monkeypatch):
    import weakref

    kept = []

    def forward():
        activations = torch.zeros(3)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError

    gpu = Gpu(monkeypatch)
    one = gpu.one
    gpu.one = lambda: (one(), kept.append(kept[0]() is None))
    with (
        pytest.raises(UserError),
        out_of_memory_is_one_line(lambda: 16, gpu.one, torch.device("cuda", 0), smaller_batch),
    ):
        forward()
    assert kept[1]


def test_other_errors_keep_their_traceback(monkeypatch):
    with (
        pytest.raises(ZeroDivisionError),
        out_of_memory_is_one_line(lambda: 1, lambda: 1, torch.device("cpu"), smaller_batch),
    ):
        raise ZeroDivisionError


def test_microbatches_divide_the_batch():
    assert accumulate_for(32, 1, 5) == 8 and accumulate_for(32, 4, 16) == 8 and accumulate_for(12, 1, 5) == 3
    assert accumulate_for(32, 1, 5, group=4) == 8 and accumulate_for(32, 1, 2, group=4) is None
    assert accumulate_for(32, 32, 5) is None and accumulate_for(4, 1, 0) is None


def failing(monkeypatch, graph, images, passes=0):
    """Memory runs out for more than so many images, with or without a graph, after so many ``passes`` of them."""
    synthesis, done = StyleGenerator.synthesis, []

    def limited(self, styles):
        if torch.is_grad_enabled() == graph and len(styles) > images:
            if len(done) == passes:
                raise torch.OutOfMemoryError("CUDA out of memory")
            done.append(len(styles))
        return synthesis(self, styles)

    monkeypatch.setattr(StyleGenerator, "synthesis", limited)


def error_of(argv, capsys):
    assert run(argv) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_training_says_how_to_accumulate_and_keeps_its_checkpoints(tiny, monkeypatch, capsys):
    failing(monkeypatch, graph=True, images=2, passes=1)
    binds = ["--bind", "train.checkpoint_every = 1", "--bind", "discriminator.wavelet.stddev_group = 2"]
    line = error_of([*tiny, *binds, "--run-dir", "run"], capsys)
    assert "with 4 image(s) at once; bind train.accumulate = 2 (2 at once, the same result)" in line
    checkpoint.verify(Path("run/checkpoints/step-000000001"))
    assert not list(Path("run").rglob("*.partial*"))


@pytest.mark.parametrize(
    ("passes", "remedy"),
    [
        (1, "lower train.batch_size to 2: sample grids are made that many at once"),
        (5, "bind train.metrics = [] and measure with tools/evaluate.py --batch 2"),
    ],
)
def test_samples_and_metrics_that_do_not_fit_are_named_as_such(tiny, monkeypatch, capsys, passes, remedy):
    # First the discriminator's step, then a block of 16 samples in fours, then as many for the metrics.
    failing(monkeypatch, graph=False, images=2, passes=passes)
    assert remedy in error_of([*tiny, "--run-dir", "run", "--bind", "train.iterations = 1"], capsys)


@pytest.mark.parametrize("pending", [[], ["samples"]])
def test_one_image_of_a_conditional_network_with_draws_can_be_measured(experiment, pending):
    class Drawing(StyleGenerator):
        draws = {"noise": Draw((1, 8, 8))}

        def forward(self, latents, labels=None, *, noise):
            return super().forward(latents, labels) + noise

    small = dict(channels=[16, 16], latent_dim=8, style_dim=8, mapping_layers=2, min_heads=2)
    settings = experiment(
        generator=lambda: Drawing(
            resolution=8, block=lambda **site: HydraBlock(partition=Split(3), **site), num_classes=3, **small
        ),
        discriminator=lambda: WaveletDiscriminator(resolution=8, channels=[8], num_classes=3),
    )
    state = TrainingState(settings, torch.device("cpu"))
    state.pending = pending
    pass_of_one(state, torch.device("cpu"))
    reached = [p.grad is not None for p in state.generator.parameters()]
    assert any(reached) is not bool(pending)


@pytest.mark.parametrize("images, advice", [(16, "add --batch 8"), (1, "one does not fit either: use more memory")])
def test_main_memory_that_the_system_refuses_is_one_line(images, advice):
    cpu = torch.device("cpu")
    with (
        pytest.raises(UserError, match=f"out of memory on cpu with {images} image.s. at once; {advice}"),
        out_of_memory_is_one_line(lambda: images, None, cpu, smaller_batch),
    ):
        torch.empty(2**50, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="a fault"), out_of_memory_is_one_line(lambda: 1, None, cpu, smaller_batch):
        raise RuntimeError("a fault")


def test_networks_that_main_memory_cannot_hold_in_training_are_noted(monkeypatch):
    network = torch.nn.Linear(256, 1024, bias=False)  # 1 MiB.
    cpu = torch.device("cpu")
    for free, noted in ((None, False), (6 * 2**20, False), (6 * 2**20 - 1, True)):
        monkeypatch.setattr(memory, "free_memory", lambda free=free: free)
        assert bool(too_little_for(network, network, device=cpu)) is noted
    assert "need 6 MiB of main memory" in too_little_for(network, network, device=cpu)
    assert too_little_for(network, network, device=torch.device("cuda")) is None
