"""``check_gpu``: what it refuses, how it ends, and that it keeps what is done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stylenat.commands.check_gpu import main
from stylenat.gpu_checks import CHECKS, Row, schedule
from stylenat.gpu_checks.schedule import Outcome, budgets, outcomes

CPU = ["--device", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path="check_gpu.json"):
    return json.loads(Path(path).read_text(), parse_constant=pytest.fail)["checks"]


def test_the_list_has_every_check_and_needs_no_torch():
    code = (
        "import sys; from stylenat.commands.check_gpu import main; assert main(['--list']) == 0\n"
        "assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(CHECKS)


def test_all_checks_fit_into_ten_minutes():
    assert sum(check.seconds for check in CHECKS.values()) <= 540


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "machine,sampeling"], "no check 'sampeling'; did you mean 'sampling'"),
        (["--only", " ,"], "--only names no check"),
        (["--seconds", "0"], "--seconds must be positive"),
        (["--seconds", "nan"], "--seconds must be positive"),
        (["--out", "nowhere/results.json"], "cannot write nowhere/results.json"),
        (["--out", "."], "cannot write ."),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(arguments, message, folder, capsys):
    assert main([*CPU, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("visible", "built_for", "advice"),
    [
        (None, "13.0", "nvidia-smi must list one, with a driver for CUDA 13.0"),
        ("", "13.0", "CUDA_VISIBLE_DEVICES = ''; unset it"),
        (None, None, "is a CPU build; install a CUDA build"),
    ],
)
def test_without_a_gpu_it_says_why_and_what_to_do(visible, built_for, advice, folder, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert main([]) == 2
    error = capsys.readouterr().err
    assert advice in error and "--device cpu" in error
    assert not list(folder.iterdir())


def test_a_check_runs_in_a_process_of_its_own_and_ends_in_a_table_and_a_file(capsys):
    assert main([*CPU, "--only", "machine", "--out", "results.json"]) == 0
    out, progress = capsys.readouterr()
    assert "[1/1] machine" in progress and "matrix product, bf16" in progress
    assert out.splitlines()[0].split() == ["check", "case", "result"] and "torch " in out
    outcome = written("results.json")["machine"]
    assert out.splitlines()[-1] == "on CPU; results in results.json" and outcome["device"] == "CPU"
    assert outcome["status"] == "done" and outcome["rows"][0]["values"]["torch"] == torch.__version__


def test_a_check_that_takes_longer_than_its_time_is_ended_and_the_next_does_not_start(capsys):
    assert main([*CPU, "--only", "machine,sampling", "--seconds", "0.3"]) == 0
    assert {name: outcome["status"] for name, outcome in written().items()} == {
        "machine": "out of time",
        "sampling": "not started",
    }


def test_a_check_whose_process_fails_shows_why():
    (name, outcome), *_ = outcomes(["machine"], "no-device", 60, lambda line: None)
    assert (name, outcome.status) == ("machine", "failed") and "RuntimeError" in outcome.log


def test_ctrl_c_keeps_what_is_done_and_ends_the_process(monkeypatch, capsys):
    processes = []

    class Noted(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            processes.append(self)

    def press(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule.subprocess, "Popen", Noted)
    monkeypatch.setattr(schedule.time, "sleep", press)
    assert main([*CPU, "--only", "machine,sampling"]) == 75
    assert {name: outcome["status"] for name, outcome in written().items()} == {"machine": "interrupted"}
    assert "interrupted" in capsys.readouterr().out
    assert len(processes) == 1 and processes[0].returncode == -9


@pytest.mark.parametrize(("exact", "code"), [(False, 1), (True, 0), (None, 0)])
def test_the_exit_code_tells_inexact_backends_alone(exact, code, monkeypatch, capsys):
    def made_up(names, device, seconds, say):
        yield "exactness", Outcome("done", [Row("flex, bf16", {"output": 0.5}, exact)])
        yield (
            "sampling",
            Outcome("failed", [Row("batch 1", note="failed: RuntimeError")], "Traceback\nMemoryError: no\n"),
        )

    monkeypatch.setattr(schedule, "outcomes", made_up)
    assert main(CPU) == code
    assert ("INEXACT" in (out := capsys.readouterr().out)) == (exact is False)
    assert "MemoryError: no" in out


def test_more_time_stretches_every_budget():
    plain = budgets(["machine", "sampling"], 1)
    assert plain == {name: CHECKS[name].seconds for name in plain}
    assert budgets(["machine", "sampling"], 2 * sum(plain.values())) == {name: 2 * s for name, s in plain.items()}


def test_a_row_that_is_not_complete_yet_is_read_later(tmp_path):
    file, outcome, said = tmp_path / "rows", Outcome(), []
    for text in ('"H1', '"H100"\n{"case": "a", "val', '"H100"\n{"case": "a", "values": {"ms": 1}}\n'):
        file.write_text(text)
        schedule._read(file, outcome, said.append)
    assert (outcome.device, outcome.rows, said) == ("H100", [Row("a", {"ms": 1})], ["    a: ms 1"])
