import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plugins.trackers import curves
from registry import hookimpl
from stylenat.commands.run import main
from stylenat.training import loop


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step-{step:09d}"
    return {
        f"{name}.{key}": value
        for name in ("generator", "discriminator", "ema")
        for key, value in load_file(folder / f"{name}.safetensors").items()
    }


def test_a_run_leaves_its_folder_as_promised(tiny, tmp_path):
    assert main(tiny) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("quickstart-")
    assert (run / "config.gin").exists() and (run / "samples" / "step-000000004.png").exists()
    assert json.loads((run / "environment.json").read_text())["seed"] == 0
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 4
    assert (run / "checkpoints" / "step-000000004" / "manifest.json").exists()


def test_a_finished_run_started_again_changes_nothing(tiny, capsys):
    assert main([*tiny, "--run-dir", "run"]) == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()}
    assert main([*tiny, "--run-dir", "run"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*") if path.is_file()} == before
    assert "is finished at iteration 4; nothing to do; to train on, bind train.iterations" in capsys.readouterr().out


def test_a_finished_run_takes_no_changes_unless_it_trains_on(tiny, capsys):
    assert main([*tiny, "--run-dir", "run"]) == 0
    config = Path("run/config.gin").read_text()
    changed = [*tiny, "--run-dir", "run", "--resume-with-changes", "--bind", "train.max_skipped = 9"]
    assert main(changed) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "is finished at iteration 4" in line and "bind train.iterations above it" in line
    assert Path("run/config.gin").read_text() == config
    assert main([*changed, "--bind", "train.iterations = 5"]) == 0
    assert (Path("run") / "checkpoints" / "step-000000005").is_dir()


def test_a_longer_run_says_how_to_train_on_in_the_shorter_ones_folder(tiny, tmp_path, capsys):
    assert main(tiny) == 0
    (first,) = (tmp_path / "runs").iterdir()
    assert main([*tiny, "--bind", "train.max_skipped = 9", "--bind", "train.iterations = 5"]) == 0
    assert "differs only" not in capsys.readouterr().out
    longer = [*tiny, "--bind", "train.iterations = 5"]
    assert main(longer) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "differs only" in line]
    assert "train.iterations, 4 there" in line
    assert line.endswith(f"add --run-dir runs/{first.name} --resume-with-changes")
    assert main(longer) == 0
    assert "differs only" not in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stop_at", [0, 1, 2])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(tiny, monkeypatch, stop_at, number):
    bind = ["--bind", "augmentation.ada.initial_p = 0.5"]
    assert main([*tiny, *bind, "--run-dir", "whole"]) == 0

    iteration = loop.iteration

    def stopping(state, images):
        if state.step == stop_at:
            os.kill(os.getpid(), number)
        return iteration(state, images)

    monkeypatch.setattr(loop, "iteration", stopping)
    assert main([*tiny, *bind, "--run-dir", "parts"]) == 75
    monkeypatch.setattr(loop, "iteration", iteration)
    assert main([*tiny, *bind, "--run-dir", "parts"]) == 0
    whole, parts = weights(Path("whole"), 4), weights(Path("parts"), 4)
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
    assert len(Path("parts/metrics.jsonl").read_text().splitlines()) == 1


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tiny, capsys):
    assert main([*tiny, "--run-dir", "run"]) == 0
    reference = weights(Path("run"), 4)
    state = Path("run/checkpoints/step-000000004/state.pt")
    state.write_bytes(state.read_bytes()[:100])
    assert main([*tiny, "--run-dir", "run"]) == 0
    out = capsys.readouterr().out
    assert "damaged" in out and "step-000000002" in out
    again = weights(Path("run"), 4)
    assert all(torch.equal(reference[key], again[key]) for key in reference)


def test_trackers_are_told_how_a_run_that_fails_ended(tiny, monkeypatch, tmp_path):
    (tmp_path / "watcher.py").write_text(
        "from registry import hookimpl\nseen = []\n@hookimpl\ndef run_ended(run, status): seen.append(status)\n"
    )

    def broken(state, images):
        raise FloatingPointError("boom")

    monkeypatch.setattr(loop, "iteration", broken)
    with pytest.raises(FloatingPointError):
        main([*tiny, "--plugin", "watcher.py"])
    import watcher

    assert watcher.seen == ["failed"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--gin", "nowhere.gin"], "nowhere.gin"),
        (["--bind", "train.iterationz = 4"], "iterations"),
        (["--bind", "train.iterations = 'many'"], "int"),
        (["--bind", "train.iterations = 0"], "at least 1"),
        (["--bind", "train.loss = @loss.hinged()"], "hinge"),
        (["--bind", "train.loss = None"], "takes Loss, not None"),
        (["--bind", "train.regularizers = [None]"], "takes Sequence[Regularizer]"),
        (["--bind", "train.generator_learning_rate = -1.0"], "float (at least 0)"),
        (["--bind", "train.generator_learning_rate = 1e999"], "float (at least 0)"),
        (["--bind", "optimizer.adam.betas = (0.0, 1.0)"], "0 to"),
        (["--bind", "train.threads = 0"], "at least 1"),
        (["--bind", "train.evaluation_samples = 1"], "at least 2"),
        (["--bind", "regularizer.r1.interval = 0"], "at least 1"),
        (["--bind", "generator.style.channels = [0, 16, 16]"], "1 to 65536"),
        (["--bind", "train.metrics = [@metric.swd(), @metric.swd()]"], "two of one name"),
        (["--bind", "train.batch_size = 6"], "does not divide"),
        (["--bind", "train.device = 'cuda'"], "sees no GPU"),
        (["--bind", "train.device = 'mps'", "--bind", "train.precision = 'bf16'"], "takes 'float32' only"),
        (["--bind", "block.hydra.partition = @partition.uniform()", "--bind", "partition.uniform.dilation = 2"],
         "exceeds the resolution"),
        (["--bind", "discriminator.wavelet.resolution = 32"], "resolutions differ"),
        (["--bind", "train.dataset = @dataset.lmdb()", "--bind", "dataset.lmdb.path = 'x.lmdb'",
          "--bind", "dataset.lmdb.resolution = 16"], "tools/prepare.py"),
        (["--bind", "train.metrics = [@metric.fid()]"], "Inception"),
        (["--resume", "nowhere"], "nowhere"),
        (["--plugin", "nowhere.py"], "nowhere.py"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line_and_exit_code_2(tiny, arguments, message, capsys):
    assert main([*tiny, *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and message in error[0]
    assert not list(Path(".").rglob("checkpoints/*"))


def test_a_run_that_diverges_says_so_and_keeps_the_checkpoints_before(tiny, capsys):
    bind = ["--bind", "train.generator_learning_rate = 1e30", "--bind", "train.max_skipped = 2"]
    assert main([*tiny, *bind, "--run-dir", "run"]) == 2
    assert "diverged at iteration" in capsys.readouterr().err
    assert not list(Path("run/checkpoints").iterdir())


def test_training_goes_on_under_new_settings_from_a_checkpoint(tiny, capsys):
    assert main([*tiny, "--run-dir", "run"]) == 0
    longer = [*tiny, "--bind", "train.iterations = 6"]
    assert main([*longer, "--run-dir", "run"]) == 2
    assert "--resume CHECKPOINT" in capsys.readouterr().err
    checkpoint = "run/checkpoints/step-000000004"
    assert main([*tiny, "--run-dir", "more", "--resume", checkpoint]) == 2
    assert not Path("more").exists()
    assert main([*longer, "--run-dir", "more", "--resume", checkpoint]) == 0
    assert Path("more/checkpoints/step-000000006").exists() and Path("more/environment.json").exists()


def test_a_folder_of_another_experiment_is_refused_with_the_difference(tiny, capsys):
    assert main([*tiny, "--run-dir", "run"]) == 0
    assert main([*tiny, "--run-dir", "run", "--bind", "train.seed = 5"]) == 2
    assert "train.seed: 5 here, 0 there" in capsys.readouterr().err
    Path("other").mkdir()
    Path("other/thesis.tex").write_text("x")
    assert main([*tiny, "--run-dir", "other"]) == 2
    assert [path.name for path in Path("other").iterdir()] == ["thesis.tex"]


def test_hooks_of_a_plugin_hear_a_whole_run(tiny, monkeypatch):
    heard = []

    class Listener:
        @hookimpl
        def run_started(self, run):
            heard.append("started")

        @hookimpl
        def step_ended(self, run, step, scalars):
            assert "loss/generator" in scalars
            heard.append(step)

    from registry import plugins as registry_plugins

    load = registry_plugins.load_plugins

    def with_listener(*args, **kwargs):
        registry = load(*args, **kwargs)
        registry.manager.register(Listener())
        return registry

    monkeypatch.setattr("stylenat.commands._plugins.load_plugins", with_listener)
    assert main([*tiny, "--run-dir", "run"]) == 0
    assert heard == ["started", 1, 2, 3, 4]


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
        {"WORLD_SIZE": "8"},
        {
            "RANK": "x",
            "WORLD_SIZE": "y",
            "LOCAL_RANK": "",
            "LOCAL_WORLD_SIZE": "",
            "MASTER_ADDR": "",
            "MASTER_PORT": "",
        },
    ],
)
@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_half_of_a_launchers_environment_is_one_line_that_names_torchrun(
    tiny, environment, command, monkeypatch, capsys
):
    from stylenat.commands.evaluate import main as evaluate

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (main(tiny) if command == "run" else evaluate(["runs/any"])) == 2
    assert "torchrun --nproc-per-node" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_one_process_of_one_needs_no_launcher(tiny, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main([*tiny, "--dry-run"]) == 0


def test_a_run_folders_name_is_no_markup(tiny, capsys):
    arguments = [*tiny, "--run-dir", "runs/z[/b]-[lr=1e-3]", "--bind", "train.trackers = [@tracker.progress()]"]
    assert main([*arguments, "--bind", "train.iterations = 2"]) == 0
    assert main([*arguments, "--resume-with-changes"]) == 0
    assert "continuing from runs/z[/b]-[lr=1e-3]/checkpoints" in capsys.readouterr().out


IMPOSSIBLE = {
    "metric.swd.smallest = 4": "metric.swd.smallest takes int (at least 7), not 4 (int)",
    "metric.precision_recall.k = 100": "k = 100 needs more than 100 images of each set; there are 100 real ones",
    "metric.precision_recall.k = 16": "there are 16 generated ones",
    "partition.split.kernel_size = 4": "--bind 'partition.split.kernel_size = 4': partition.split.kernel_size: ",
    "generator.style.channels = [1000000000000, 8, 8]": "takes list[int (1 to 65536)] | None",
}


@pytest.mark.parametrize("how", [["--dry-run"], ["--run-dir", "impossible"]])
@pytest.mark.parametrize("binding", IMPOSSIBLE)
def test_what_cannot_be_built_or_measured_is_refused_before_the_run_starts(binding, how, tiny, capsys):
    features = "metric.precision_recall.features = @features.random_convolution()"
    metrics = "train.metrics = [@metric.swd(), @metric.precision_recall()]"
    bind = ["--bind", metrics, "--bind", features, "--bind", "train.evaluation_samples = 16", "--bind", binding]
    if "k = 100" in binding:
        bind += ["--bind", "train.evaluation_samples = 1000"]
    assert main([*tiny, *bind, *how]) == 2
    error = capsys.readouterr().err.strip()
    assert IMPOSSIBLE[binding] in error and "\n" not in error and not Path("impossible").exists()


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("block.hydra.backend = 'triton'", "its kernels are for CUDA, and the tensors are on cpu; 'compiled' can"),
        ("block.hydra.backend = 'tritn'", "there is no attention backend 'tritn'; did you mean 'triton'?"),
        ("generator.style.head_dim = 5", "which do not divide its 16 channels; bind another head_dim"),
    ],
)
def test_a_backend_or_head_width_that_cannot_be_used_is_refused_before_the_run_folder_is_made(tiny, bind, said, capsys):
    assert main([*tiny, "--bind", bind, "--run-dir", "run"]) == 2
    assert said in capsys.readouterr().err and not Path("run").exists()


@pytest.mark.parametrize("backend", ["tiled", "triton", "natten"])
def test_a_dry_run_needs_no_backend(tiny, backend, capsys):
    assert main([*tiny, "--bind", f"block.hydra.backend = '{backend}'", "--dry-run"]) == 0


def test_a_run_says_which_backends_its_attention_takes(tiny, capsys):
    assert main([*tiny, "--bind", "block.hydra.backend = 'tiled'"]) == 0
    assert "attention on cpu: tiled" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_whose_package_is_missing_is_refused_before_anything_is_written(
    tiny, name, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(curves, "find_spec", lambda package: None)
    assert main([*tiny, "--bind", f"train.trackers = [@tracker.{name}()]"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"tracker.{name} needs the package {name}" in line and f"pip install {name}" in line
    assert not (tmp_path / "runs").exists()
