"""However a run is stopped, the same command continues and ends with the same bits as a run that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stylenat import checkpoint
from stylenat.commands.run import main
from stylenat.data import loader
from stylenat.evaluation import evaluate, unfinished
from stylenat.training import loop
from stylenat.training.run import only_process

LAST = 8


@pytest.fixture
def arguments(tiny):
    """Eight iterations; something is due after every second one. One thread: forked processes have no others."""
    binds = ["train.iterations = 8", "train.checkpoint_every = 2", "train.keep_checkpoints = 2", "train.threads = 1",
             "augmentation.ada.initial_p = 0.5", "regularizer.r1.interval = 2"]  # fmt: skip
    for bind in binds:
        tiny += ["--bind", bind]
    return tiny


@pytest.fixture
def decoding(monkeypatch):
    """As a data set that is too large for memory: images are decoded by workers, where there are any."""
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)


class Exploding(Exception):
    pass


def stop_in(monkeypatch, step, how):
    """Makes ``how`` happen within iteration ``step`` (from 0)."""
    iteration = loop.iteration

    def stopping(state, images):
        if state.step == step:
            how()
        return iteration(state, images)

    monkeypatch.setattr(loop, "iteration", stopping)
    return lambda: monkeypatch.setattr(loop, "iteration", iteration)


def in_a_fork(arguments):
    """Runs the command in a process of its own that may be killed; returns how that ended."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = main(arguments)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def itself(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_in_every_iteration_the_bits_are_the_same(arguments, decoding, monkeypatch, workers, everything):
    arguments += ["--bind", f"train.workers = {workers}"]
    assert main([*arguments, "--run-dir", "whole"]) == 0
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    for step in range(LAST):
        restore = stop_in(monkeypatch, step, itself(numbers[step % 3]))
        assert main([*arguments, "--run-dir", "parts"]) == 75
        assert Path("parts/PREEMPTED").exists()
        restore()
    # In the last iteration, too: what is due after it is still to be done.
    assert not Path("parts/samples/step-000000008.png").exists()
    assert main([*arguments, "--run-dir", "parts"]) == 0
    assert everything(Path("whole")) == everything(Path("parts"))
    assert not Path("parts/PREEMPTED").exists()


@pytest.mark.parametrize("workers, step", [(0, 5), (2, 3)])
def test_killed_or_failing_the_bits_are_the_same(arguments, decoding, monkeypatch, workers, step, everything):
    arguments += ["--bind", f"train.workers = {workers}"]
    assert main([*arguments, "--run-dir", "whole"]) == 0

    restore = stop_in(monkeypatch, step, itself(signal.SIGKILL))
    assert in_a_fork([*arguments, "--run-dir", "parts"]) == -signal.SIGKILL
    restore()

    def explode():
        raise Exploding

    restore = stop_in(monkeypatch, step + 1, explode)
    with pytest.raises(Exploding):
        main([*arguments, "--run-dir", "parts"])
    restore()
    assert main([*arguments, "--run-dir", "parts"]) == 0
    assert everything(Path("whole")) == everything(Path("parts"))


def test_after_a_power_cut_that_tore_the_newest_files_the_bits_are_the_same(arguments, monkeypatch, capsys, everything):
    assert main([*arguments, "--run-dir", "whole"]) == 0
    restore = stop_in(monkeypatch, 5, itself(signal.SIGKILL))
    assert in_a_fork([*arguments, "--run-dir", "parts"]) == -signal.SIGKILL
    restore()
    newest = Path("parts/checkpoints/step-000000004")
    for i, path in enumerate(sorted(newest.iterdir())):
        os.truncate(path, path.stat().st_size * i // 5)
    partial = Path("parts/checkpoints/.partial-step-000000006")
    partial.mkdir()
    (partial / "state.pt").write_bytes(b"half")
    with open("parts/metrics.jsonl", "a") as file:
        file.write('{"step": 6, "im')
    assert main([*arguments, "--run-dir", "parts"]) == 0
    assert "passing it over" in capsys.readouterr().out
    assert everything(Path("whole")) == everything(Path("parts"))
    assert not partial.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_a_signal_during_an_evaluation_stops_it_and_the_next_process_completes_it(
    arguments, monkeypatch, everything, kept
):
    monkeypatch.setattr(unfinished, "EVERY", 0.0 if kept else 60.0)
    collect, drawn = evaluate.collect_generated, []

    def stopping(metrics, generate, *rest):
        def stopped(start, count):
            if start:
                itself(signal.SIGTERM)()
                pytest.fail("the evaluation went on")
            return generate(start, count)

        return collect(metrics, stopped, *rest)

    def noting(metrics, generate, *rest):
        return collect(metrics, lambda start, count: (drawn.append(start), generate(start, count))[1], *rest)

    arguments += ["--bind", "train.evaluation_samples = 40"]
    assert main([*arguments, "--run-dir", "whole"]) == 0
    monkeypatch.setattr(evaluate, "collect_generated", stopping)
    assert main([*arguments, "--run-dir", "parts"]) == 75
    monkeypatch.setattr(evaluate, "collect_generated", noting)
    assert not Path("parts/metrics.jsonl").exists()
    assert checkpoint.found(Path("parts/checkpoints"))[-1].name == "step-000000004"
    assert main([*arguments, "--run-dir", "parts"]) == 0
    assert drawn[:2] == ([16, 32] if kept else [0, 16])
    assert everything(Path("whole")) == everything(Path("parts"))


def test_an_evaluation_that_was_killed_before_its_checkpoint_leaves_one_line(arguments, monkeypatch, everything):
    assert main([*arguments, "--run-dir", "whole"]) == 0
    save = checkpoint.save

    def killed(directory, step, networks, state):
        if step == 4 and not state["pending"]:
            itself(signal.SIGKILL)()
        return save(directory, step, networks, state)

    monkeypatch.setattr(checkpoint, "save", killed)
    assert in_a_fork([*arguments, "--run-dir", "parts"]) == -signal.SIGKILL
    monkeypatch.setattr(checkpoint, "save", save)
    assert len(Path("parts/metrics.jsonl").read_text().splitlines()) == 1
    assert main([*arguments, "--run-dir", "parts"]) == 0
    assert everything(Path("whole")) == everything(Path("parts"))


def test_the_wall_clock_stops_a_run_as_a_signal_does(arguments, monkeypatch):
    assert main([*arguments, "--max-hours", "1e-9", "--run-dir", "run"]) == 75
    assert Path("run/PREEMPTED").exists()
    assert main([*arguments, "--run-dir", "run"]) == 0
    assert main([*arguments, "--max-hours", "-1", "--run-dir", "run"]) == 2


def test_under_torchrun_a_stopped_run_leaves_its_marker_and_ends_with_0(arguments, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    restore = stop_in(monkeypatch, 2, itself(signal.SIGUSR1))
    assert main([*arguments, "--run-dir", "run"]) == 0
    assert "iteration 3" in Path("run/PREEMPTED").read_text()
    restore()


def test_draws_that_a_plugin_takes_from_the_shared_generators_are_the_same_too(
    arguments, monkeypatch, tmp_path, everything
):
    (tmp_path / "careless.py").write_text(
        "import random\nimport numpy, torch\n"
        "from plugins.losses.adversarial import NonSaturating\nfrom registry import hookimpl\n\n\n"
        "class Careless(NonSaturating):\n"
        "    def generator(self, fake_logits):\n"
        "        noise = torch.rand(()) + random.random() + numpy.random.rand()\n"
        "        return super().generator(fake_logits) * noise\n\n\n"
        "@hookimpl\ndef stylenat_register(register):\n    register('loss', 'careless', Careless)\n"
    )
    arguments += ["--plugin", "careless.py", "--bind", "train.loss = @loss.careless()"]
    assert main([*arguments, "--run-dir", "whole"]) == 0
    torch.rand(7)
    restore = stop_in(monkeypatch, 4, itself(signal.SIGTERM))
    assert main([*arguments, "--run-dir", "parts"]) == 75
    restore()
    assert main([*arguments, "--run-dir", "parts"]) == 0
    assert everything(Path("whole")) == everything(Path("parts"))


def test_a_changed_experiment_is_refused_and_with_leave_it_goes_on_and_is_recorded(arguments, capsys):
    assert main([*arguments, "--run-dir", "run"]) == 0
    changed = [*arguments, "--bind", "train.iterations = 10", "--bind", "train.discriminator_learning_rate = 1e-4"]
    assert main([*changed, "--run-dir", "run"]) == 2
    message = capsys.readouterr().err
    assert "train.iterations: 10 here, 8 there" in message and "--resume-with-changes" in message
    assert main([*changed, "--resume-with-changes"]) == 2
    assert main([*changed, "--run-dir", "run", "--resume-with-changes"]) == 0
    (record,) = map(json.loads, Path("run/changes.jsonl").read_text().splitlines())
    assert record["step"] == 8 and "train.iterations: 10 here, 8 there" in record["changes"]
    assert "train.iterations = 8\n" in Path("run/config-to-step-000000008.gin").read_text()
    assert "train.iterations = 10\n" in Path("run/config.gin").read_text()
    assert checkpoint.found(Path("run/checkpoints"))[-1].name == "step-000000010"
    # From here on the changed experiment is the folder's own.
    assert main([*changed, "--run-dir", "run"]) == 0
    assert main([*arguments, "--run-dir", "run"]) == 2


def test_images_seen_are_counted_through_a_change_of_the_batch_size(arguments):
    assert main([*arguments, "--run-dir", "run"]) == 0
    before = json.loads(Path("run/metrics.jsonl").read_text().splitlines()[-1])["images"]
    changed = [*arguments, "--bind", "train.iterations = 10", "--bind", "train.batch_size = 8"]
    assert main([*changed, "--run-dir", "run", "--resume-with-changes"]) == 0
    after = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert after[-1]["step"] == 10 and after[-1]["images"] == before + 2 * 8
    manifest = json.loads(Path("run/checkpoints/step-000000010/manifest.json").read_text())
    assert manifest["images"] == before + 16


def test_settings_of_the_optimiser_follow_the_change(arguments):
    assert main([*arguments, "--run-dir", "run"]) == 0
    changed = [*arguments, "--bind", "train.iterations = 10", "--bind", "train.betas = (0.5, 0.9)"]
    assert main([*changed, "--run-dir", "run", "--resume-with-changes"]) == 0
    state = checkpoint.state(Path("run/checkpoints/step-000000010"))
    assert state["generator_optimizer"]["param_groups"][0]["betas"] == (0.5, 0.9)


def test_a_change_that_does_not_fit_the_checkpoint_changes_nothing(arguments, capsys):
    assert main([*arguments, "--run-dir", "run"]) == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    other = ["--bind", "generator.style.channels = [32, 16, 16]", "--resume-with-changes", "--run-dir", "run"]
    assert main([*arguments, *other]) == 2
    assert "does not fit this experiment's generator" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before


def test_a_folder_that_another_process_trains_in_is_refused(arguments, capfd):
    assert main([*arguments, "--run-dir", "run", "--max-hours", "1e-9"]) == 75
    with only_process(Path("run")):
        assert in_a_fork([*arguments, "--run-dir", "run"]) == 2
    assert "another process is training in run" in capfd.readouterr().err
    assert not checkpoint.found(Path("run/checkpoints"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_at_once_and_leaves_nothing(arguments, tmp_path, number):
    # A plugin that is still being imported stands for any module.
    (tmp_path / "slow.py").write_text("import os, sys, time\nos.write(1, b'here')\ntime.sleep(60)\n")
    code = f"import sys; from stylenat.commands.run import main; sys.exit(main({[*arguments, '--plugin', 'slow.py']}))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(4) == b"here"
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == 75 and error.decode().count("\n") == 1
    assert not Path("runs").exists()
