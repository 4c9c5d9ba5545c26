"""Run folders that change while they are trained in, and disks that are full."""

import errno
import os
from pathlib import Path

import pytest

from registry import UserError
from stylenat.checkpoint import tidy
from stylenat.commands.run import main as run
from stylenat.evaluation.records import append_evaluation
from stylenat.training.launch import _storage_faults
from stylenat.training.run import write_text

PLUGIN = """
import shutil
from registry import hookimpl

class Meddler:
    def __init__(self, action: str, folder: str = ""):
        self.action, self.folder = action, folder

    @hookimpl
    def step_ended(self, run, step):
        if step == 3:
            folder = run.directory / self.folder
            if self.action == "rename":
                folder.rename("renamed")
            while folder.exists():  # A checkpoint may still be written there.
                shutil.rmtree(folder, ignore_errors=True)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

@hookimpl
def stylenat_register(register):
    register("tracker", "meddler", Meddler)
"""


def meddled(tiny, **bindings):
    Path("meddler.py").write_text(PLUGIN)
    binds = {"train.trackers": "[@tracker.jsonl(), @tracker.meddler()]"}
    binds |= {f"tracker.meddler.{name}": repr(value) for name, value in bindings.items()}
    words = [word for name, value in binds.items() for word in ("--bind", f"{name} = {value}")]
    return run([*tiny, *words, "--plugin", "meddler.py", "--run-dir", "trained"])


@pytest.mark.parametrize("action", ["remove", "rename"])
def test_a_run_folder_that_is_gone_is_one_line_and_is_not_made_again(tiny, action, capsys):
    assert meddled(tiny, action=action) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("error: the run folder trained was removed or renamed during the training")
    assert not any("Traceback" in line for line in lines)
    assert not Path("trained").exists()
    if action == "rename":
        tidy(Path("renamed/checkpoints"))  # As a continuation does: it may have been in the middle of writing.
        assert {path.name for path in Path("renamed/checkpoints").iterdir()} == {"step-000000002"}


@pytest.mark.parametrize("folder", ["checkpoints", "samples"])
def test_a_folder_within_it_is_made_again(tiny, folder):
    assert meddled(tiny, action="remove", folder=folder) == 0
    assert any("000000004" in path.name for path in Path("trained", folder).iterdir())


@pytest.mark.parametrize("folder", ["checkpoints", "samples"])
def test_a_file_instead_of_a_folder_is_named(tiny, folder, capsys):
    assert run([*tiny, "--run-dir", "trained"]) == 0
    Path("trained", folder).rename("before")
    Path("trained", folder).touch()
    binds = ["--bind", "train.iterations = 6", "--resume-with-changes"]
    assert run([*tiny, *binds, "--run-dir", "trained"]) == 2
    assert f"trained/{folder} is not a folder; move it away" in capsys.readouterr().err


def full(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "text"),
        lambda path: append_evaluation(path, 1, 1, {}, {}),
    ],
)
def test_a_full_disk_is_said_of_the_file_that_did_not_fit(tmp_path, monkeypatch, write):
    monkeypatch.setattr(os, "fsync", full)
    other = tmp_path / "other-disk" / "file"
    other.parent.mkdir()
    with pytest.raises(UserError, match=f"no disk space left for {other} ") as caught, _storage_faults(tmp_path / "r"):
        write(other)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_not_taken_for_the_run_folders(tmp_path):
    with pytest.raises(UserError, match="no disk space left for a file of the run"), _storage_faults(tmp_path):
        full()


def test_another_error_is_no_full_disk_however_little_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"total": 2**30, "free": 0}))
    with pytest.raises(PermissionError), _storage_faults(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
