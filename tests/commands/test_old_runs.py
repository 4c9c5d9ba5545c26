"""A run that the first version began, with its selectors and checkpoint format 2, goes on to the same bits."""

import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stylenat.commands.run import main

STORED = Path(__file__).parent / "data" / "format2.tar.xz"
"""Written by version 0.1.0: an experiment of eight iterations that was stopped after three, and what it ended with."""


@pytest.fixture
def begun(tmp_path, monkeypatch):
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return Path("runs/experiment-029b4420")


def test_it_goes_on_in_its_own_folder_to_the_weights_it_would_have_had(begun, capsys):
    assert main(["--gin", "experiment.gin"]) == 0
    said = capsys.readouterr()
    assert f"continuing from {begun}/checkpoints/step-000000003" in said.out and "changed" not in said.out
    assert "train.betas is an old name" in said.err
    assert [path.name for path in Path("runs").iterdir()] == [begun.name]
    for name in ("generator", "discriminator", "ema"):
        ours, theirs = (
            load_file(begun / f"checkpoints/step-000000008/{name}.safetensors"),
            load_file(f"expected/{name}.safetensors"),
        )
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():  # To the bit on the machine that wrote it; elsewhere products round otherwise.
            torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)


def test_the_present_spelling_finds_the_folder_too(begun, capsys):
    text = Path("experiment.gin").read_text()
    for old, new in {
        "train.betas =": "train.generator_optimizer = @optimizer.adam()\n"
        "train.discriminator_optimizer = @optimizer.adam()\noptimizer.adam.betas =",
        "train.decay_start =": "train.learning_rate_schedule = @schedule.linear_decay()\nschedule.linear_decay.start =",
        "train.ema_half_life =": "train.average = @average.exponential()\naverage.exponential.half_life =",
        "train.ema_rampup =": "average.exponential.rampup =",
        "train.share_fakes =": "train.recipe = @recipe.alternating()\nrecipe.alternating.share_fakes =",
    }.items():
        assert old in text
        text = text.replace(old, new)
    Path("experiment.gin").write_text(text)
    assert main(["--gin", "experiment.gin"]) == 0
    said = capsys.readouterr()
    assert f"{begun} holds this experiment" in said.out and "old name" not in said.err
    assert (begun / "checkpoints/step-000000008").is_dir()
