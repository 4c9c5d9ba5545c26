import json
import os
import sys
from pathlib import Path

import pytest
import torch

# Before anything imports Triton: without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# What several folders of tests share. Not this folder: its registry/ and plugins/ would stand in for the packages.
sys.path.insert(0, str(Path(__file__).parent / "common"))


# The networks of most tests are so small that a second thread only waits.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """Whatever ``train.threads`` of the test before was."""
    torch.set_num_threads(1)


@pytest.fixture
def all_threads(one_thread):
    """For a test with large products."""
    torch.set_num_threads(os.cpu_count() or 1)


@pytest.fixture(autouse=True, scope="session")
def statistics_cache(tmp_path_factory):
    """Real sets' statistics, and the list of plugins that were run, in folders of the tests' own."""
    os.environ["STYLENAT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


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
        "train.threads = 1",
    ]
    arguments = ["--gin", "quickstart.gin"]
    for bind in binds:
        arguments += ["--bind", bind]
    return arguments


@pytest.fixture
def everything():
    """``everything(run)``: what a finished run leaves, without times, as values that can be compared."""
    from stylenat import checkpoint

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


ABLATION = """
include 'quickstart.gin'
ablation.variants = {
    'near': ['block.hydra.partition = @partition.uniform()'],
    'far': ['block.hydra.partition = @partition.global()'],
}
ablation.seeds = [0, 1]
train.threads = 1
ablation.quick = ['train.iterations = 4', 'ablation.seeds = [0]']
partition.uniform.kernel_size = 3
partition.global.kernel_size = 3
generator.style.channels = [16, 16, 16]
discriminator.wavelet.channels = [8, 8]
train.iterations = 8
train.batch_size = 4
train.sample_every = 4
train.evaluate_every = 2
train.checkpoint_every = 4
train.evaluation_samples = 16
train.sample_count = 4
train.metrics = [@metric.frechet_random_features()]
train.trackers = [@tracker.progress(), @tracker.jsonl(), @tracker.aim()]
tracker.aim.every = 1
dataset.lfw_faces.path = '%s/faces.lmdb'
tracker.aim.repo = '%s'
"""


@pytest.fixture(scope="session")
def ablation_file(tmp_path_factory):
    """A small ablation of two variants and two seeds, whose data and Aim repository lie beside it."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "heads.gin").write_text(ABLATION % (folder, folder))
    return folder / "heads.gin"


@pytest.fixture(scope="session")
def ablated(ablation_file):
    """The folder of that ablation's four finished runs, trained in this process."""
    from registry import load_plugins
    from stylenat.ablation.planning import planned
    from stylenat.commands._command import ASIDE, CORE, experiments_folder
    from stylenat.commands.run import main

    out = ablation_file.parent / "runs" / "heads"
    registry = load_plugins(core=CORE, aside=ASIDE)
    plan = planned(registry, [str(ablation_file)], [], [experiments_folder()], out=out)
    plan.write()
    for job in plan.jobs:
        assert main(["--gin", str(job.config), "--run-dir", str(job.directory)]) == 0
    return Path(out)
