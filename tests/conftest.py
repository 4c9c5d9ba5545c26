import json
import os
import sys
from pathlib import Path

import pytest
import torch

# What several folders of tests share lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(int(os.environ.get("STYLENAT_TEST_THREADS", "2")))


@pytest.fixture(autouse=True, scope="session")
def statistics_cache(tmp_path_factory):
    """Real sets' statistics in a folder of the tests' own."""
    os.environ["STYLENAT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Arguments of ``run`` for a run of seconds, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    binds = [
        "generator.style.channels = [16, 16, 16]",
        "discriminator.wavelet.channels = [8, 8]",
        "train.iterations = 4",
        "train.batch_size = 4",
        "train.sample_every = 2",
        "train.evaluate_every = 4",
        "train.checkpoint_every = 2",
        "train.evaluation_samples = 16",
        "train.sample_count = 4",
        "train.trackers = [@tracker.jsonl()]",
        "train.metrics = [@metric.frechet_random_features()]",
    ]
    arguments = ["--gin", "quickstart.gin"]
    for bind in binds:
        arguments += ["--bind", bind]
    return arguments


@pytest.fixture
def everything():
    """``everything(run)``: what a finished run leaves, without times, as values that can be compared."""
    from stylenat.training import checkpoint

    def plain(value):
        if isinstance(value, torch.Tensor):
            return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    def everything(run):
        folder = checkpoint.found(run / "checkpoints")[-1]
        checkpoint.verify(folder)
        evaluations = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {
            "networks": {
                name: plain(checkpoint.weights(folder, name)) for name in ("generator", "discriminator", "ema")
            },
            "state": plain(checkpoint.state(folder)),
            "metrics": [(line["step"], line["images"], line["metrics"]) for line in evaluations],
            "samples": {path.name: path.read_bytes() for path in sorted((run / "samples").iterdir())},
        }

    return everything
