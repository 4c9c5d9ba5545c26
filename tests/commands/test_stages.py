"""``tools/stages.py``: several experiments in their order, by one command."""

import shlex
from pathlib import Path

import pytest

from stylenat.commands.run import main as run
from stylenat.commands.stages import main


def write(name, *lines):
    Path(name).write_text("\n".join(["include 'quickstart.gin'", *lines, ""]))
    return ["--gin", name]


@pytest.fixture
def binds(tiny):
    return tiny[2:]


def test_stages_run_in_their_order_and_finished_ones_are_skipped(binds, capsys):
    two = [*write("a.gin"), *write("b.gin", "train.seed = 1"), *binds]
    assert main(two) == 0
    assert Path("runs/a/checkpoints/step-000000004").is_dir() and Path("runs/b/checkpoints/step-000000004").is_dir()
    before = Path("runs/a/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert main(two) == 0
    said = capsys.readouterr().out
    assert said.count("nothing to do") == 2 and "stage 2 of 2: b.gin in runs/b" in said
    assert Path("runs/a/metrics.jsonl").read_bytes() == before


def test_a_mistake_in_the_last_file_is_found_before_the_first_begins(binds, capsys):
    assert main([*write("a.gin"), *write("b.gin", "train.los = @loss.hinge()"), *binds]) == 2
    assert "b.gin" in capsys.readouterr().err and not Path("runs").exists()


def test_two_stages_of_one_name_are_refused(binds, capsys):
    Path("other").mkdir()
    assert main([*write("a.gin"), *write("other/a.gin"), *binds]) == 2
    assert "two stages are called a" in capsys.readouterr().err


def test_hours_hold_for_all_stages_together(binds, capsys):
    assert main([*write("a.gin"), *write("b.gin"), *binds, "--max-hours", "1e-5"]) == 75
    assert Path("runs/a").is_dir() and not Path("runs/b").exists()
    assert main([*write("a.gin"), *binds, "--max-hours", "-1"]) == 2


def test_a_changed_stage_is_refused_before_the_first_begins_with_advice_that_can_be_followed(binds, capsys):
    a, b = write("a.gin"), write("b.gin", "train.seed = 1")
    assert main([*b, *binds]) == 0
    longer = [word.replace("iterations = 4", "iterations = 5") for word in (*a, *b, *binds)]
    assert main(longer) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "runs/b holds another experiment" in line and "rename that folder to train b.gin anew" in line
    assert not Path("runs/a").exists()
    advised = shlex.split(line.partition("`")[2].partition("`")[0])
    assert advised[:2] == ["python", "tools/run.py"] and run(advised[2:]) == 0
    assert main([*longer[2:]]) == 0  # The stage is finished.


def test_a_stage_that_is_refused_says_how_it_is_run_by_itself(binds, capsys):
    lines = ["train.dataset = @dataset.lmdb()", "dataset.lmdb.path = 'nowhere.lmdb'", "dataset.lmdb.resolution = 16"]
    assert main([*write("a.gin", *lines), *binds]) == 2
    said = capsys.readouterr().err
    assert (
        "stage 1 by itself, with all options of tools/run.py: python tools/run.py --gin a.gin --run-dir runs/a" in said
    )
