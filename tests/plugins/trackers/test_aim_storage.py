"""The tracker ``aim`` where its storage is created by several processes, is incomplete, or fails."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from plugins.trackers import aim_storage
from plugins.trackers.aim_tracker import AimTracker
from registry import UserError
from stylenat.testing.tracker import DETAILS

aim = pytest.importorskip("aim")
RocksIOError = pytest.importorskip("aimrocks.errors").RocksIOError
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """One where nothing is wrong with it: making one costs Aim a second."""
    return tmp_path_factory.mktemp("aim")


def process(code, *arguments, timeout=100):
    """A process with ``code``, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def track(repo, run, status="finished"):
    """The hash of an Aim run with one value."""
    tracker = AimTracker(str(repo), every=1)
    tracker.run_started(run)
    tracker.step_ended(run, 1, {"loss/generator": 1.0})
    tracker.run_ended(run, status)
    return tracker.state_dict().get("hash")


def runs(repo):
    """Aim's own list has only those that it has indexed."""
    return {path.name for path in (repo / ".aim" / "meta" / "chunks").iterdir()}


THREE = """
import multiprocessing, sys
from pathlib import Path
import aim
from plugins.trackers.aim_tracker import AimTracker
from stylenat.training.run import Run
fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(3)
def train(repo, found):
    run, tracker = Run("faces", "quickstart", Path("."), 100, 4, "", {}, {}), AimTracker(repo)
    barrier.wait()
    tracker.run_started(run)
    tracker.run_ended(run, "finished")
    found.put(tracker.state_dict().get("hash"))
found = fork.SimpleQueue()
processes = [fork.Process(target=train, args=(sys.argv[1], found)) for _ in range(3)]
for process in processes: process.start()
for process in processes: process.join()
print(*[found.get() for _ in processes])
"""


def test_three_processes_that_create_the_repository_at_once_are_all_tracked(tmp_path):
    done = process(THREE, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert runs(tmp_path) == set(done.stdout.split()) and len(runs(tmp_path)) == 3


@pytest.mark.parametrize("left", ["an empty VERSION", "no VERSION", "some of its tables"])
def test_a_repository_left_incomplete_by_a_killed_process_is_completed(left, tmp_path, make_run, capsys):
    storage = tmp_path / ".aim"
    match left:
        case "an empty VERSION":
            storage.mkdir()
            (storage / "VERSION").touch()
        case "no VERSION":
            track(tmp_path, make_run())
            aim.Repo._pool.clear()
            (storage / "VERSION").unlink()
        case "some of its tables":
            storage.mkdir()
            with closing(sqlite3.connect(storage / "run_metadata.sqlite")) as database:
                database.execute("CREATE TABLE experiment (id INTEGER)")
    assert track(tmp_path, make_run()) in runs(tmp_path)
    assert capsys.readouterr().err == "" and (tmp_path / ".aim" / "VERSION").read_text()


@pytest.mark.parametrize(
    "module, said",
    [
        ("raise SystemExit(1)", "SystemExit: 1"),
        ("raise SystemExit", "SystemExit"),
        ("raise OSError('libz.so.1 is missing\\nsee above')", "OSError: libz.so.1 is missing see above"),
        ("import no_such_module", "no_such_module is not installed; install it: pip install aim"),
    ],
)
def test_an_aim_that_cannot_be_imported_is_one_line_and_training_goes_on(
    module, said, make_run, tmp_path, monkeypatch, capsys
):
    (tmp_path / "aim.py").write_text(module)
    monkeypatch.delitem(sys.modules, "aim")
    monkeypatch.syspath_prepend(tmp_path)
    assert track(tmp_path, make_run()) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and line.endswith("training continues") and not (tmp_path / ".aim").exists()


def test_an_error_without_a_message_is_said_by_its_type(make_run, tmp_path, monkeypatch, capsys):
    def failing(*arguments, **options):
        raise RuntimeError

    monkeypatch.setattr(aim_storage, "open_run", failing)
    track(tmp_path, make_run())
    assert capsys.readouterr().err == "aim: cannot open a run (RuntimeError without a message); training continues\n"


def test_storage_that_another_process_has_locked_is_tried_again(repo, make_run, monkeypatch, capsys):
    opened, failures = aim.Run, [RocksIOError("locked"), RocksIOError("locked")]

    def locked(*arguments, **options):
        if failures:
            raise failures.pop()
        return opened(*arguments, **options)

    monkeypatch.setattr(aim, "Run", locked)
    assert track(repo, make_run()) is not None
    assert failures == [] and capsys.readouterr().err == ""


STORAGE_GONE = """
import shutil, sys
from pathlib import Path
from plugins.trackers import aim_storage
from plugins.trackers.aim_tracker import AimTracker
from stylenat.training.run import Run
aim_storage.CLOSE_SECONDS = 0.5
run = Run("faces", "quickstart", Path("."), 100, 4, "", {}, {})
storage, tracker = Path(sys.argv[1], ".aim"), AimTracker(sys.argv[1], every=1)
tracker.run_started(run)
tracker.step_ended(run, 1, {"loss/generator": 1.0})
shutil.rmtree(storage)
if sys.argv[2] == "replaced":
    storage.write_text("in the way of Aim's threads")
tracker.run_ended(run, "finished")
print("ended")
"""


@pytest.mark.parametrize(
    "storage, said", [("removed", "RocksIOError"), ("replaced", "TimeoutError: Aim did not close")]
)
def test_a_process_ends_although_its_storage_failed_and_says_so_in_one_line(storage, said, tmp_path):
    done = process(STORAGE_GONE, tmp_path, storage, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ended\n")
    lines = done.stderr.splitlines()
    assert all(line.startswith("aim: ") for line in lines)  # No traceback, neither of Aim's threads nor at exit.
    (line,) = [line for line in lines if "cannot close the run" in line]
    assert said in line


@pytest.mark.parametrize("repo", ["elsewhere", "."])
def test_an_evaluation_creates_and_completes_no_repository(repo, tmp_path, capsys):
    (tmp_path / ".aim").mkdir()
    tracker = AimTracker(str(tmp_path / repo))
    tracker.load_state_dict({"hash": "0" * 24, "run": "faces"})
    tracker.record_evaluation(100, {"fid": 1.0}, DETAILS)
    assert "there is no Aim repository in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == [".aim"]


def test_names_with_control_characters_markup_or_undecodable_bytes_are_stored_and_printed_as_escapes(
    repo, make_run, capsys
):
    odd = "a\x1b[31m[/b]\u202e\udcff$_"
    shown = r"a\x1b[31m[/b]\u202e\udcff$_"
    tracker = AimTracker(str(repo), experiment=odd, every=1, tags=[odd], labels={"variant": odd})
    run = make_run(hparams={"train": {odd: "b\udcff"}}, config_text="path = 'b\udcff'\n")
    run.name = odd
    tracker.run_started(run)
    tracker.step_ended(run, 1, {odd: 1.0, f"{odd}.": "not a number"})
    tracker.metrics_evaluated(run, 1, {odd: 2.0}, DETAILS)
    found = tracker._run
    assert (found.name, found.experiment, found.tags) == (shown, shown, [shown])
    assert {metric.name for metric in found.metrics()} == {shown, "fid/spread"}
    assert list(found["hparams", "train"].values()) == [r"b\udcff"]
    tracker.run_ended(run, "finished")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"aim: cannot track {shown}. (ValueError") and line.isprintable()


def test_the_command_that_shows_the_curves_can_be_pasted():
    tracker = AimTracker("my runs; ls")
    tracker.load_state_dict({"hash": "0" * 24, "run": "faces"})
    assert tracker.where() == {"curves": "aim up --repo 'my runs; ls'"}


@pytest.mark.parametrize("path", ["aim://127.0.0.1:9", "ssh://127.0.0.1/aim"])
def test_an_evaluation_connects_to_no_other_machine(path):
    with pytest.raises(UserError, match="is on another machine, which an evaluation does not connect to"):
        aim_storage.open_run(path, create=False, run_hash="0" * 24)
