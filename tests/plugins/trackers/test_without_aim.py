"""The tracker ``aim`` where Aim is missing or too old. These tests need no Aim."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from plugins.trackers import aim_storage
from plugins.trackers.aim_tracker import AimTracker
from registry import UserError
from stylenat.commands.run import main
from stylenat.testing.tracker import DETAILS


def tracked(tracker, run, scalars, steps):
    tracker.run_started(run)
    for step in steps:
        run.step = step
        tracker.step_ended(run, step, scalars)


def test_without_aim_it_is_said_once_what_is_missing_and_training_goes_on(make_run, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "aim", None)
    tracker, run = AimTracker(str(tmp_path), every=1), make_run()
    tracked(tracker, run, {"loss/generator": 1.0}, [1, 2])
    tracker.metrics_evaluated(run, 2, {"fid": 1.0}, DETAILS)
    tracker.images_sampled(run, 2, tmp_path / "grid.png")
    tracker.run_ended(run, "finished")
    (line,) = capsys.readouterr().err.splitlines()
    assert "Aim is not installed" in line and "pip install" in line
    assert tracker.state_dict() == {}


def test_importing_the_tracker_does_not_import_aim():
    code = "import sys, plugins.trackers.aim_tracker as t; t.AimTracker(); assert 'aim' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=True)


@pytest.mark.parametrize(
    ("version", "system", "machine", "has_wheels"),
    [
        ((3, 12), "linux", "x86_64", True),
        ((3, 12), "darwin", "arm64", True),
        ((3, 12), "linux", "aarch64", False),
        ((3, 13), "linux", "x86_64", False),
    ],
)
def test_aim_is_recommended_only_where_it_has_wheels(version, system, machine, has_wheels):
    remedy = aim_storage.remedy(version, system, machine)
    assert ("pip install" in remedy) == has_wheels and ("wheels for Python 3.11 and 3.12" in remedy) != has_wheels


def test_an_aim_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", ModuleType("aim"))
    monkeypatch.delitem(sys.modules, "aim.sdk", raising=False)
    with pytest.raises(UserError, match="older than 3.29"):
        aim_storage.load()


def test_a_run_whose_only_tracker_is_aim_goes_on_without_it(tiny, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "aim", None)
    assert main([*tiny, "--bind", "train.trackers = [@tracker.aim()]"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "aim" in line.lower()]
    assert line.startswith("aim: cannot open a run (Aim is not installed: ")
