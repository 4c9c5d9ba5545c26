import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from plugins.trackers.wandb import WeightsAndBiases
from stylenat.testing.tracker import DETAILS

pytest.importorskip("wandb", reason="pip install '.[wandb]'")
Record = pytest.importorskip("wandb.proto.wandb_internal_pb2").Record
BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4


def records(path):
    """The records of a file of wandb's, which has the format of LevelDB's logs."""
    data, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def files(run):
    """Once the last of them is complete: wandb's own process writes the end after ``finish`` has returned."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = sorted((run.directory / "wandb").glob("offline-run-*/*.wandb"))
        if found and any(record.WhichOneof("record_type") == "exit" for record in records(found[-1])):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"wandb left no complete file in {run.directory}")


def series(run):
    """Every series over all files as [(step, value)]; without wandb's own."""
    found = {}
    for path in files(run):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                for name in row:
                    if not name.startswith("_"):
                        found.setdefault(name, []).append((row["_step"], row[name]))
    return found


def described(run):
    """(id, project, name, config) of each file."""
    runs = [r.run for path in files(run) for r in records(path) if r.WhichOneof("record_type") == "run"]
    return [
        (r.run_id, r.project, r.display_name, {u.key: json.loads(u.value_json) for u in r.config.update}) for r in runs
    ]


def sampled(run, name):
    (run.directory / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(run.directory / "samples" / name)
    return run.directory / "samples" / name


def tracked(tracker, run, scalars, steps):
    tracker.run_started(run)
    for step in steps:
        run.step = step
        tracker.step_ended(run, step, scalars)


def test_what_is_tracked_is_stored_offline_under_its_name(make_run):
    tracker, run = WeightsAndBiases(every=2), make_run()
    tracked(tracker, run, {"loss/generator": torch.tensor(0.5)}, [1])
    run.step = 2
    tracker.step_ended(run, 2, {"augmentation/p": 0.25})
    tracker.images_sampled(run, 2, sampled(run, "step-2.png"))
    tracker.metrics_evaluated(run, 2, {"fid": 12.5}, DETAILS)
    tracker.run_ended(run, "finished")
    found = series(run)
    size = [found.pop(f"samples/{key}") for key in ("height", "width")]
    assert size == [[(2, 4)], [(2, 4)]]
    found = {name: points for name, points in found.items() if not name.startswith("samples")}
    assert found == {
        "loss/generator": [(2, 0.5)],
        "augmentation/p": [(2, 0.25)],
        "fid": [(2, 12.5)],
        "fid/spread": [(2, 0.1)],
    }
    ((_, project, name, config),) = described(run)
    assert (project, name) == ("quickstart", "faces")
    assert config["train"] == run.hparams["train"] and config["environment"] == run.environment
    assert tracker.where()["wandb"].startswith(f"wandb sync {run.directory}/wandb/")


def test_no_host_no_user_and_no_environment_variable_is_stored(make_run, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2hunter2")
    monkeypatch.setattr("socket.gethostname", lambda: "my-own-host")
    stdout = sys.stdout
    tracker, run = WeightsAndBiases(every=1), make_run()
    tracked(tracker, run, {"loss/generator": 1.0}, [1])
    assert sys.stdout is stdout
    tracker.run_ended(run, "finished")
    for path in (run.directory / "wandb").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"hunter2hunter2" not in data and b"my-own-host" not in data, path


def test_a_roll_back_logs_only_what_came_after_it(make_run):
    tracker, run = WeightsAndBiases(every=1), make_run()
    tracked(tracker, run, {"loss/generator": 1.0}, [1, 2])
    tracker.state_dict()
    tracker.step_ended(run, 3, {"loss/generator": 9.0})
    tracker.run_rolled_back(run, 2)
    for step in (3, 4):
        tracker.step_ended(run, step, {"loss/generator": 2.0})
    run.step = 4
    tracker.run_ended(run, "finished")
    assert series(run)["loss/generator"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from plugins.trackers.wandb import WeightsAndBiases
from stylenat.testing.tracker import DETAILS
from stylenat.training.run import Run
run = Run("faces", "quickstart", Path(sys.argv[1]), 100, 4, "", {}, {})
tracker = WeightsAndBiases(every=1)
tracker.run_started(run)
for step in (1, 2, 3):
    tracker.step_ended(run, step, {"loss/generator": 1.0})
    if step == 2:
        print(json.dumps(tracker.state_dict()), flush=True)
        tracker.metrics_evaluated(run, 2, {"fid": 5.0}, DETAILS)
time.sleep(1.1)  # wandb names folders by the second and the id.
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_resume_after_kill_9_keeps_the_id_and_doubles_no_point(make_run):
    """The evaluation of iteration 2 came after its checkpoint, so it comes again."""
    run = make_run(step=2, resumed=True)
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}  # Not this process's.
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.directory)],
        env=own | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    tracker = WeightsAndBiases(every=1)
    tracker.load_state_dict(json.loads(killed.stdout))
    tracker.run_started(run)
    tracker.metrics_evaluated(run, 2, {"fid": 5.0}, DETAILS)
    for run.step in (3, 4):
        tracker.step_ended(run, run.step, {"loss/generator": 2.0})
    tracker.run_ended(run, "finished")
    assert len(files(run)) == 2 and len({identity for identity, *_ in described(run)}) == 1
    found = series(run)
    assert found["loss/generator"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert found["fid"] == [(2, 5.0)]


def test_what_was_logged_is_not_logged_again_from_an_earlier_checkpoint(make_run):
    first, run = WeightsAndBiases(every=1), make_run()
    tracked(first, run, {"loss/generator": 1.0}, [1, 2, 3])
    first.state_dict()
    first.run_ended(run, "failed")
    files(run)
    time.sleep(1.1)
    second, run = WeightsAndBiases(every=1), make_run(step=1, resumed=True)
    tracked(second, run, {"loss/generator": 2.0}, [2, 3, 4])
    second.run_ended(run, "finished")
    assert series(run)["loss/generator"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]


def test_another_run_gets_another_id(make_run):
    first, second = WeightsAndBiases(), WeightsAndBiases()
    run = make_run()
    first.run_started(run)
    first.run_ended(run, "finished")
    files(run)
    other = make_run(name="another")  # A copied folder.
    second.run_started(other)
    second.run_ended(other, "finished")
    (one, *_), (two, *_) = described(run)
    assert one != two


def test_failures_are_one_line_each_and_training_goes_on(make_run, tmp_path, capfd):
    tracker, run = WeightsAndBiases(every=1), make_run()
    tracked(tracker, run, {"none": None, "loss/generator": 1.0}, [1, 2])
    tracker.images_sampled(run, 2, tmp_path / "missing.png")
    tracker.run_ended(run, "finished")
    assert series(run) == {"loss/generator": [(1, 1.0), (2, 1.0)]}
    lines = capfd.readouterr().err.splitlines()
    assert [line.split("(")[0] for line in lines] == ["wandb: cannot track none ", "wandb: cannot store sample grids "]
