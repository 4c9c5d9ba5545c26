"""A resume on other images than the run began with is refused, or recorded; an evaluation that fails costs nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.metrics.frechet import FrechetRandomFeatures
from stylenat import checkpoint
from stylenat.commands.run import main


def images(folder, first):
    Path(folder).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(np.full((16, 16, 3), first + i, np.uint8)).save(Path(folder) / f"{i}.png")


@pytest.fixture
def arguments(tiny):
    binds = [
        "train.dataset = @dataset.folder()",
        "dataset.folder.path = 'photos'",
        "dataset.folder.resolution = %SIDE",
        "train.threads = 1",
        "train.iterations = 2",
        "train.evaluate_every = 2",
        "generator.style.channels = [16, 16, 16]",
    ]
    return [*tiny, *(part for bind in binds for part in ("--bind", bind)), "--run-dir", "run"]


MORE = ["--bind", "train.iterations = 4", "--resume-with-changes"]


def test_images_replaced_under_the_same_path_are_refused_or_recorded(arguments, capsys):
    images("photos", 10)
    assert main(arguments) == 0
    (saved,) = checkpoint.found(Path("run/checkpoints"))
    assert checkpoint.verify(saved)["dataset"] == checkpoint.state(saved)["dataset"]
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}

    shutil.rmtree("photos")
    images("photos", 100)
    onward = [*arguments, "--bind", "train.iterations = 2", "--resume", str(saved), "--run-dir", "new"]
    assert main([*onward, "--bind", "train.iterations = 4"]) == 2
    assert "was trained on other images than folder photos" in capsys.readouterr().err
    assert not Path("new").exists()

    # In its own folder: everything bound as before, one iteration more to do.
    state = checkpoint.state(saved)
    state["pending"] = ["samples"]
    networks = {name: checkpoint.weights(saved, name) for name in ("generator", "discriminator", "ema")}
    checkpoint.save(Path("run/checkpoints"), 2, networks, state)
    assert main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "bytes" in line and "--resume-with-changes" in line
    assert before.keys() == {path for path in Path("run").rglob("*") if path.is_file()}

    assert main([*arguments, "--resume-with-changes"]) == 0
    (change,) = map(json.loads, Path("run/changes.jsonl").read_text().splitlines())
    assert change["step"] == 2 and any("data set: bytes" in line for line in change["changes"])
    assert not list(Path("run").glob("config-to-step-*"))  # The config is the same.
    assert main(arguments) == 0  # Recorded: these are the run's images now.


def test_the_same_relative_path_in_another_working_folder_is_noticed(arguments, monkeypatch, capsys):
    images("photos", 10)
    assert main(arguments) == 0
    images("elsewhere/photos", 50)
    monkeypatch.chdir("elsewhere")
    there = [str(Path("../run").resolve()) if part == "run" else part for part in arguments]
    assert main([*there, *MORE[:2], "--resume-with-changes"]) == 0
    changes = json.loads(Path("../run/changes.jsonl").read_text())["changes"]
    assert any(line.startswith("data set: bytes") for line in changes)


def test_a_checkpoint_that_knows_no_images_takes_those_that_are_there(arguments, capsys):
    images("photos", 10)
    assert main(arguments) == 0
    (saved,) = checkpoint.found(Path("run/checkpoints"))
    state = checkpoint.state(saved)
    del state["dataset"]
    networks = {name: checkpoint.weights(saved, name) for name in ("generator", "discriminator", "ema")}
    checkpoint.save(Path("run/checkpoints"), 2, networks, state)
    capsys.readouterr()
    assert main([*arguments, *MORE]) == 0
    assert "does not say which images it was trained on" in capsys.readouterr().out
    assert checkpoint.state(checkpoint.found(Path("run/checkpoints"))[-1])["dataset"]["images"] == 6


class Faulty(Exception):
    pass


def test_a_checkpoint_that_is_due_is_written_before_the_evaluation_that_is(tiny, monkeypatch):
    def failing(self, *arguments):
        raise Faulty

    monkeypatch.setattr("stylenat.evaluation.evaluate.Evaluator.evaluate", failing)
    with pytest.raises(Faulty):
        main([*tiny, "--run-dir", "run"])
    newest = checkpoint.found(Path("run/checkpoints"))[-1]
    assert newest.name == "step-000000004"
    checkpoint.verify(newest)
    assert checkpoint.state(newest)["pending"] == ["samples", "evaluation"]
    monkeypatch.undo()


def test_a_failing_metric_is_null_and_training_goes_on(tiny, monkeypatch, capsys):
    def failing(self, real, fake):
        raise torch.linalg.LinAlgError("the matrix is singular")

    monkeypatch.setattr(FrechetRandomFeatures, "compare", failing)
    metrics = "train.metrics = [@metric.frechet_random_features(), @metric.swd()]"
    binds = [metrics, "train.evaluate_every = 2", "train.keep_best = 'frechet_random_features'"]
    assert main([*tiny, *(part for bind in binds for part in ("--bind", bind)), "--run-dir", "run"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["metrics"]["frechet_random_features"] for line in lines] == [None, None]
    assert all(line["metrics"]["swd"] > 0 for line in lines)
    assert capsys.readouterr().err.count("the matrix is singular") >= 2
