"""All runs of an ablation by one protocol, each once."""

import json
import shutil
from pathlib import Path

import pytest

from stylenat.commands.evaluate import main

ASK = ["--ablation", "heads", "--samples", "24", "--no-cache"]


@pytest.fixture
def runs(ablated, tmp_path, monkeypatch):
    """The ablation without its seed 1, below the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ablated, "runs/heads")
    manifest = json.loads(Path("runs/heads/ablation.json").read_text())
    manifest["runs"] = {name: run for name, run in manifest["runs"].items() if run["seed"] == 0}
    Path("runs/heads/ablation.json").write_text(json.dumps(manifest))
    return Path("runs/heads")


def last(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def count(run):
    return len((run / "metrics.jsonl").read_text().splitlines())


def test_each_run_is_evaluated_once_by_one_protocol_with_intervals(runs, capsys):
    before = count(runs / "near-seed0")
    assert main(ASK) == 0
    one, other = (last(runs / f"{variant}-seed0") for variant in ("near", "far"))
    for line in (one, other):
        assert line["step"] == 8 and line["protocol"]["generated"]["count"] == 24
        low, high = line["intervals"]["frechet_random_features"]
        assert low < line["metrics"]["frechet_random_features"] < high
    assert one["protocol"]["metrics"] == other["protocol"]["metrics"]
    capsys.readouterr()
    assert main(ASK) == 0  # As after a stop: what is done is not repeated.
    assert capsys.readouterr().err.count("evaluated already") == 2 and count(runs / "near-seed0") == before + 1
    assert main([*ASK, "--at", "4"]) == 0
    assert last(runs / "far-seed0")["step"] == 4


def test_a_run_that_is_not_finished_or_cannot_be_evaluated_is_named_and_the_others_go_on(runs, capsys):
    shutil.rmtree(runs / "near-seed0" / "checkpoints" / "step-000000008")
    assert main([*ASK, "--bootstrap", "0"]) == 0
    assert "near-seed0 is not finished and is left out" in capsys.readouterr().err
    assert last(runs / "far-seed0")["intervals"] == {}
    (runs / "near-seed0" / "checkpoints" / "step-000000004" / "ema.safetensors").write_bytes(b"")
    assert main([*ASK, "--at", "4"]) == 2
    err = capsys.readouterr().err
    assert "error: near-seed0: " in err and "1 of 2 runs could not be evaluated" in err
    assert last(runs / "far-seed0")["step"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name RUN or --ablation NAME"),
        (["run", "--ablation", "heads"], "and not both"),
        (["--ablation", "nowhere"], "there is no ablation 'nowhere'"),
        (["run", "--at", "4"], "--at is for --ablation"),
        (["--ablation", "heads", "--out", "x.jsonl"], "--out is for one RUN"),
        (["run", "--bootstrap", "1"], "--bootstrap must be 0, or from 2"),
    ],
)
def test_bad_command_lines_get_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
