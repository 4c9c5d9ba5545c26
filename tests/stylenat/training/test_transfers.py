"""Training as a GPU sees it: where data is, which transfers block and when the host waits, on a pretended one."""

import os
import signal
from pathlib import Path

import pytest
from pretended_gpu import pretended_gpu

from stylenat.commands.evaluate import main as evaluate
from stylenat.commands.run import main
from stylenat.commands.sample import main as sample
from stylenat.evaluation.protocol import read_results
from stylenat.training import loop

TINY = [
    "generator.style.channels = [8, 8, 8]",
    "generator.style.latent_dim = 8",
    "generator.style.style_dim = 8",
    "generator.style.mapping_layers = 1",
    "generator.style.min_heads = 2",
    "discriminator.wavelet.channels = [8, 8]",
    "partition.split.kernel_size = 3",
    "train.batch_size = 4",
    "train.iterations = 4",
    "train.evaluate_every = 1000",
    "train.evaluation_samples = 8",
    "train.sample_count = 4",
    "train.metrics = []",
    "train.trackers = []",
    "train.threads = 1",
    "augmentation.ada.initial_p = 0.5",
    "augmentation.ada.interval = 2",
    "regularizer.r1.interval = 2",
]
BATCH = 4 * 3 * 16 * 16
"""Bytes of a batch: its pixels are sent as uint8."""

CASES = {
    "quickstart": [],
    "all of ADA": ["augmentation.ada.preset = 'bgcfnc'", "augmentation.ada.low_pass = 'sym6'"],
    "DiffAugment": ["train.augmentation = @augmentation.diffaugment()"],
    "bf16": ["train.precision = 'bf16'"],
    "fp16": ["train.precision = 'fp16'"],
    "accumulate": [
        "train.accumulate = 2",
        "discriminator.wavelet.stddev_group = 2",
        "recipe.alternating.share_fakes = False",
    ],
    "narrow ffhq256": [
        "SIDE = 16",
        "train.learning_rate_schedule = None",
        "train.dataset = @dataset.lfw_faces()",
        "dataset.lfw_faces.resolution = 16",
    ],
}

WITHOUT_ADA = ("DiffAugment", "narrow ffhq256")


def arguments(case, run="run", binds=()):
    given = ["--gin", "ffhq256.gin" if "ffhq256" in case else "quickstart.gin", "--run-dir", run]
    for bind in [*TINY, *CASES[case], *binds]:
        given += ["--bind", bind]
    return given


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_an_iteration_does_not_block_and_its_images_are_sent_one_ahead(case, monkeypatch):
    iteration, ends = loop.iteration, [0]
    with pretended_gpu() as gpu:

        def watched(state, images):
            real = next(images)
            scalars = iteration(state, iter([real]))
            assert real[0].is_cuda and scalars["loss/generator"].is_cuda
            ends.append(len(gpu.events))
            return scalars

        monkeypatch.setattr(loop, "iteration", watched)
        assert main(arguments(case)) == 0
    parts = [gpu.events[first:last] for first, last in zip(ends, ends[1:], strict=False)]
    images = [[event for event in part if "stylenat/data/ahead.py" in event.line] for part in parts]
    # The first iteration is sent the constants, its own images and the next one's.
    assert [len(sent) for sent in images] == [2, 1, 1, 1]
    assert all(event.pinned and not event.blocking and event.bytes == BATCH for sent in images for event in sent)
    for step, part in enumerate(parts[1:], start=1):
        blocking = [event for event in part if event.blocking]
        # ADA reads the signs of so many batches at once.
        reading = [event for event in blocking if event.line.startswith("plugins/augmentations/adaptation.py")]
        assert blocking == reading and len(reading) == (case not in WITHOUT_ADA and step % 2 == 1)


def stopped_after(step):
    """``loop.iteration``, with a signal in the iteration after so many."""
    iteration = loop.iteration

    def stopping(state, images):
        if state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return iteration(state, images)

    return stopping


def test_a_run_that_stops_after_any_iteration_goes_on_to_the_same_bits(monkeypatch, everything):
    binds = ["augmentation.ada.interval = 4", "train.precision = 'fp16'", "train.trackers = [@tracker.jsonl()]"]
    with pretended_gpu():
        assert main(arguments("quickstart", "whole", binds)) == 0
        for step in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(loop, "iteration", stopped_after(step))
                assert main(arguments("quickstart", "parts", binds)) == 75
        assert main(arguments("quickstart", "parts", binds)) == 0
    Path("whole/metrics.jsonl").touch()
    Path("parts/metrics.jsonl").touch()
    assert everything(Path("whole")) == everything(Path("parts"))


def test_training_measures_and_the_tools_measure_and_draw(capsys):
    binds = [
        "train.iterations = 1",
        "train.metrics = [@metric.frechet_random_features()]",
        "train.trackers = [@tracker.jsonl()]",
    ]
    with pretended_gpu():
        assert main(arguments("quickstart", binds=binds)) == 0
        assert evaluate(["run"]) == 0
        assert sample(["run", "--seeds", "0-2", "--truncation-psi", "0.7", "--out", "drawn"]) == 0
    before, after = read_results(Path("run/metrics.jsonl"))
    assert before.value == after.value
    assert len(list(Path("drawn").glob("*.png"))) >= 3
