"""Networks that are not style-based: no mapping, declared draws, several logits an image, the [-1, 1] pixel space."""

import shutil
from pathlib import Path

import pytest
import torch

from stylenat import checkpoint
from stylenat.commands.evaluate import main as evaluate
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample

PLUGIN = """
from torch import nn
from registry import hookimpl
from stylenat.draws import Draw

class Plain(nn.Module):
    latent_dim = 8

    def __init__(self, *, resolution: int):
        super().__init__()
        self.resolution = resolution
        self.linear = nn.Linear(8, 3 * resolution**2)
        self.strength = nn.Parameter(nn.init.ones_(nn.Linear(1, 1).weight))
        self.draws = {"noise": Draw((1, resolution, resolution))}

    def forward(self, latents, noise):
        return self.linear(latents).view(-1, 3, self.resolution, self.resolution).tanh() + 0.1 * self.strength * noise

class Patches(nn.Module):
    def __init__(self, *, resolution: int):
        super().__init__()
        self.resolution = resolution
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Softplus(), nn.Conv2d(8, 1, 1), nn.Flatten())

    def forward(self, images):
        return self.layers(images)

@hookimpl
def stylenat_register(register):
    register("generator", "plain", Plain)
    register("discriminator", "patches", Patches)
"""
GIN = """
include 'quickstart.gin'
train.generator = @generator.plain
generator.plain.resolution = %SIDE
train.discriminator = @discriminator.patches
discriminator.patches.resolution = %SIDE
train.pixel_space = 'symmetric'
train.metrics = [@metric.frechet_random_features()]
train.trackers = [@tracker.jsonl()]
train.iterations = 4
train.batch_size = 4
train.checkpoint_every = 2
train.evaluate_every = 4
train.evaluation_samples = 16
train.sample_count = 4
augmentation.ada.initial_p = 0.5
train.threads = 1
"""


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("networks.py").write_text(PLUGIN)
    Path("plain.gin").write_text(GIN)
    return ["--gin", "plain.gin", "--plugin", "networks.py"]


def test_they_train_resume_exactly_and_divide_into_microbatches(arguments):
    assert run([*arguments, "--run-dir", "whole"]) == 0
    shutil.copytree("whole", "parts")
    shutil.rmtree("parts/checkpoints/step-000000004")
    assert run([*arguments, "--run-dir", "parts"]) == 0
    divided = ["--bind", "train.accumulate = 2", "--bind", "recipe.alternating.share_fakes = False"]
    undivided = ["--bind", "recipe.alternating.share_fakes = False"]
    assert run([*arguments, *undivided, "--run-dir", "one"]) == 0
    assert run([*arguments, *divided, "--run-dir", "two"]) == 0
    for name in ("generator", "discriminator", "ema"):
        of = {folder: checkpoint.weights(Path(folder) / "checkpoints/step-000000004", name)
              for folder in ("whole", "parts", "one", "two")}  # fmt: skip
        for key, value in of["whole"].items():
            assert torch.equal(value, of["parts"][key])
            torch.testing.assert_close(of["one"][key], of["two"][key], rtol=1e-4, atol=1e-5)


def test_they_are_sampled_with_their_draws_and_measured_but_not_truncated(arguments, capsys):
    assert run([*arguments, "--run-dir", "run"]) == 0
    for batch in ("3", "1"):
        assert sample(["run", "--plugin", "networks.py", "--seeds", "0-2", "--out", batch, "--batch", batch]) == 0
    assert Path("1/seed-000002.png").read_bytes() == Path("3/seed-000002.png").read_bytes()
    assert Path("1/seed-000002.png").read_bytes() != Path("1/seed-000001.png").read_bytes()
    truncated = ["--truncation-psi", "0.7"]
    assert sample(["run", "--plugin", "networks.py", "--seeds", "0", "--out", "no", *truncated]) == 2
    assert "Plain has no styles to truncate" in capsys.readouterr().err and not Path("no").exists()
    assert evaluate(["run", "--plugin", "networks.py", "--out", "again.jsonl"]) == 0
    assert run([*arguments, "--dry-run"]) == 0


def test_hooks_see_the_networks_themselves(tiny, tmp_path):
    Path("norms.py").write_text(
        "from registry import hookimpl\nseen = {}\n\n@hookimpl\ndef step_ended(run, step, scalars):\n"
        "    seen[step] = {name: sum(float(p.square().sum()) for p in net.parameters())\n"
        "                  for name, net in run.networks.items()}\n"
    )
    assert run([*tiny, "--plugin", "norms.py", "--run-dir", "run"]) == 0
    import norms

    assert list(norms.seen) == [1, 2, 3, 4]
    assert all(set(seen) == {"generator", "discriminator", "ema"} for seen in norms.seen.values())
    for name, total in norms.seen[4].items():
        stored = checkpoint.weights(Path("run/checkpoints/step-000000004"), name)
        buffers = ("axis", "vector")
        weights = sum(float(v.square().sum()) for k, v in stored.items() if not k.endswith(buffers))
        assert total == pytest.approx(weights, rel=1e-5)
