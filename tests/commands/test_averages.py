"""Averages of several widths, or none: what a run's checkpoints hold, and which of it is sampled."""

from pathlib import Path

import torch

from stylenat import checkpoint
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample

STEP = Path("run/checkpoints/step-000000004")


def test_each_width_of_a_power_average_is_kept_and_can_be_sampled(tiny, capsys):
    binds = ["--bind", "train.average = @average.power()", "--bind", "average.power.widths = [0.05, 0.2]"]
    assert run([*tiny, *binds, "--run-dir", "run"]) == 0
    narrow, wide = (checkpoint.weights(STEP, name) for name in ("ema", "ema-0.200"))
    assert any(not torch.equal(narrow[key], wide[key]) for key in narrow)
    for name in (None, "ema-0.200", "generator"):
        chosen = [] if name is None else ["--average", name]
        assert sample(["run", "--seeds", "0", "--out", f"of {name}", *chosen]) == 0
    pictures = [Path(f"of {name}/seed-000000.png").read_bytes() for name in (None, "ema-0.200", "generator")]
    assert len(set(pictures)) == 3
    assert sample(["run", "--seeds", "0", "--out", "no", "--average", "ema-0.300"]) == 2
    assert "it has ema, ema-0.200, generator" in capsys.readouterr().err


def test_without_an_average_the_generator_itself_is_sampled_and_resumed(tiny, capsys):
    binds = ["--bind", "train.average = @average.none()"]
    assert run([*tiny, *binds, "--run-dir", "run"]) == 0
    assert sorted(path.stem for path in STEP.glob("*.safetensors")) == ["discriminator", "generator"]
    assert sample(["run", "--seeds", "0", "--out", "images"]) == 0
    assert sample(["run", "--seeds", "0", "--out", "no", "--average", "ema"]) == 2
    assert "has no average 'ema'; it has generator" in capsys.readouterr().err
    assert run([*tiny, *binds, "--bind", "train.iterations = 5", "--run-dir", "run", "--resume-with-changes"]) == 0


def test_a_schedule_that_turns_negative_is_refused_before_the_run_folder_is_made(tiny, capsys):
    binds = ["--bind", "train.learning_rate_schedule = @schedule.cosine()", "--bind", "schedule.cosine.start = 1.0",
             "--bind", "schedule.cosine.end = -1.0", "--bind", "schedule.cosine.images = 16"]  # fmt: skip
    assert run([*tiny, *binds, "--run-dir", "run"]) == 2
    assert ": train.learning_rate_schedule is -" in capsys.readouterr().err and not Path("run").exists()
    binds = ["--bind", "regularizer.r1.gamma = @schedule.constant()", "--bind", "schedule.constant.value = -2.0"]
    assert run([*tiny, *binds, "--run-dir", "run"]) == 2
    assert "regularizer 'r1': gamma is -2.0 in iteration 0" in capsys.readouterr().err
