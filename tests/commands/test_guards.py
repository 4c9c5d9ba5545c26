"""What is not finite is skipped; a run that does not recover goes back, and one that never does says why it ends."""

import json
from pathlib import Path

import pytest
import torch

from stylenat import checkpoint
from stylenat.commands.run import main
from stylenat.training import loop


@pytest.fixture
def arguments(tiny):
    for bind in ("train.iterations = 8", "train.max_skipped = 2", "train.max_roll_backs = 2", "train.threads = 1"):
        tiny += ["--bind", bind]
    return [*tiny, "--run-dir", "run"]


@pytest.fixture
def poisoned(monkeypatch):
    """``poisoned(when)``: the real images of iterations (from 0) where ``when(state)`` holds are not finite."""
    iteration = loop.iteration

    def poison(when):
        def poisoning(state, images):
            factor = float("nan") if when(state) else 1.0
            return iteration(state, ((real * factor, labels) for real, labels in images))

        monkeypatch.setattr(loop, "iteration", poisoning)

    return poison


def finite(step):
    folder = Path("run/checkpoints") / f"step-{step:09d}"
    checkpoint.verify(folder)
    tensors = [t for name in ("generator", "discriminator", "ema") for t in checkpoint.weights(folder, name).values()]
    return all(tensor.isfinite().all() for tensor in tensors)


def test_a_step_that_is_not_finite_is_skipped_and_counted(arguments, poisoned, capsys):
    poisoned(lambda state: state.step in (2, 5))
    assert main(arguments) == 0
    assert "not finite: discriminator 2" in capsys.readouterr().out
    guard = checkpoint.state(Path("run/checkpoints/step-000000008"))["guard"]
    assert finite(8) and guard == {"skipped": {"discriminator": 2}, "in_a_row": 0, "roll_backs": 0}


def test_after_too_many_in_a_row_the_run_goes_back_and_draws_other_noise(arguments, poisoned, capsys):
    poisoned(lambda state: state.step >= 5 and state.guard.roll_backs == 0)
    assert main(arguments) == 0
    assert "going back to run/checkpoints/step-000000004" in capsys.readouterr().err
    state = checkpoint.state(Path("run/checkpoints/step-000000008"))
    assert finite(8) and state["guard"] == {"skipped": {"discriminator": 2}, "in_a_row": 0, "roll_backs": 1}
    assert [json.loads(line)["step"] for line in Path("run/metrics.jsonl").read_text().splitlines()] == [4, 8]
    poisoned(lambda state: False)
    assert main([*arguments[:-1], "straight"]) == 0
    straight = checkpoint.state(Path("straight/checkpoints/step-000000008"))
    assert not torch.equal(state["streams"]["latents"], straight["streams"]["latents"])


def test_a_run_that_went_back_resumes_to_the_same_bits(arguments, poisoned):
    def stops(state):
        if state.guard.roll_backs == 1 and state.step == 5 and not Path("stopped").exists():
            Path("stopped").touch()
            raise KeyboardInterrupt
        return state.step >= 5 and state.guard.roll_backs == 0

    poisoned(stops)
    Path("stopped").touch()
    assert main(arguments) == 0
    whole = checkpoint.state(Path("run/checkpoints/step-000000008"))
    Path("run").rename("whole")
    Path("stopped").unlink()
    assert main(arguments) == 75
    assert main(arguments) == 0
    parts = checkpoint.state(Path("run/checkpoints/step-000000008"))
    assert torch.equal(whole["streams"]["latents"], parts["streams"]["latents"])
    weights = [checkpoint.weights(Path(run) / "checkpoints/step-000000008", "ema") for run in ("whole", "run")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_never_recovers_says_what_was_seen(arguments, poisoned, capsys):
    poisoned(lambda state: state.step >= 5)
    assert main(arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: training diverged at iteration 7: 2 iterations in a row")
    for said in (
        "loss/discriminator nan",
        "gradient_norm/generator",
        "augmentation/p",
        "learning rates",
        "2 roll-backs",
    ):
        assert said in line
    assert [path.name for path in checkpoint.found(Path("run/checkpoints"))][-1] == "step-000000004" and finite(4)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(arguments, poisoned, capsys):
    poisoned(lambda state: True)
    assert main(arguments) == 2
    assert "no earlier checkpoint" in capsys.readouterr().err


def test_the_best_and_every_so_many_checkpoints_are_kept(arguments, monkeypatch):
    values = iter([5.0, 2.0, 3.0, float("nan"), 4.0, 2.5, 9.0, 8.0])
    compared = loop.Evaluator.evaluate

    def known(self, *rest):
        found = compared(self, *rest)
        found.metrics["frechet_random_features"] = next(values)
        return found

    monkeypatch.setattr(loop.Evaluator, "evaluate", known)
    binds = ["evaluate_every = 1", "checkpoint_every = 2", "keep_checkpoints = 1", "keep_every = 6"]
    for bind in [*binds, "keep_best = 'frechet_random_features'"]:
        arguments += ["--bind", f"train.{bind}"]
    assert main(arguments) == 0
    assert [checkpoint.step_of(path) for path in checkpoint.found(Path("run/checkpoints"))] == [2, 6, 8]
    state = checkpoint.state(Path("run/checkpoints/step-000000008"))
    assert state["best"] == {"frechet_random_features": 2.0} and state["best_steps"] == {"frechet_random_features": 2}


def test_a_metric_to_keep_by_that_is_not_measured_is_named(arguments, capsys):
    assert main([*arguments, "--bind", "train.keep_best = 'fid'"]) == 2
    assert "frechet_random_features" in capsys.readouterr().err
