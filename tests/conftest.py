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
