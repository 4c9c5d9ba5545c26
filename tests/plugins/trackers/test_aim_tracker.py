import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.trackers.aim_tracker import AimTracker
from registry import AttentionSite, HeadGroup
from stylenat.testing.tracker import DETAILS

aim = pytest.importorskip("aim")
Context = pytest.importorskip("aim.storage.context").Context
RepoIndexManager = pytest.importorskip("aim.sdk.index_manager").RepoIndexManager


@pytest.fixture(scope="module")
def repo(tmp_path_factory):
    """One for all tests: making one costs Aim a second."""
    return str(tmp_path_factory.mktemp("aim"))


def stored(repo, tracker):
    """The run as another process would find it: nothing before it is indexed, and repositories keep a view."""
    identity = tracker.state_dict()["hash"]
    RepoIndexManager(aim.Repo(repo)).index(identity)
    return aim.Run(run_hash=identity, repo=aim.Repo(repo), read_only=True)


def values(sequence):
    """A tracked sequence as {step: value}."""
    steps, (found, *_) = sequence.data.items_list()
    return dict(zip(steps, found, strict=True))


def series(repo, tracker):
    """Every scalar series: (name, context's net) to {step: value}."""
    return {(m.name, m.context.to_dict().get("net")): values(m) for m in stored(repo, tracker).metrics()}


def tracked(tracker, run, scalars, steps):
    tracker.run_started(run)
    for step in steps:
        run.step = step
        tracker.step_ended(run, step, scalars)


def test_a_scalar_named_after_a_network_becomes_a_series_with_context_net(make_run, repo):
    tracker = AimTracker(repo, every=1)
    scalars = {"loss/generator": torch.tensor(0.5), "loss/discriminator": 2.0, "augmentation/p": 0.25}
    tracked(tracker, make_run(), scalars, [1, 2])
    tracker.run_ended(make_run(), "finished")
    assert series(repo, tracker) == {
        ("loss", "generator"): {1: 0.5, 2: 0.5},
        ("loss", "discriminator"): {1: 2.0, 2: 2.0},
        ("augmentation/p", None): {1: 0.25, 2: 0.25},
    }


@pytest.mark.parametrize(("status", "steps"), [("finished", [10, 20, 25]), ("stopped", [10, 20])])
def test_scalars_are_read_every_so_many_iterations_and_when_training_is_finished(make_run, repo, status, steps):
    tracker, run = AimTracker(repo, every=10), make_run()
    tracked(tracker, run, {"loss/generator": 1.0}, range(1, 26))
    tracker.run_ended(run, status)
    assert list(series(repo, tracker)["loss", "generator"]) == steps


def test_a_lazy_regularizer_that_never_meets_a_tracked_iteration_is_tracked_at_its_own(make_run, repo):
    tracker, run = AimTracker(repo, every=50), make_run(iterations=500)
    tracker.run_started(run)
    for step in range(1, 101):
        lazy = {"regularizer/r1": float(step)} if step % 8 == 1 else {}
        tracker.step_ended(run, step, {"loss/generator": 1.0} | lazy)
    tracker.run_ended(run, "finished")
    assert series(repo, tracker)["regularizer/r1", None] == {49: 49.0, 97: 97.0}


def test_metrics_keep_their_names_and_are_of_the_averages_weights(make_run, repo):
    tracker, run = AimTracker(repo), make_run()
    tracker.run_started(run)
    tracker.metrics_evaluated(run, 100, {"fid": 12.5}, DETAILS)
    tracker.run_ended(run, "finished")
    assert series(repo, tracker) == {("fid", "ema"): {100: 12.5}, ("fid/spread", "ema"): {100: 0.1}}
    assert stored(repo, tracker)["protocol"]["generated"] == {"count": 10}


def test_a_sample_grid_is_stored_pixel_for_pixel(make_run, repo, tmp_path):
    grid = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(grid).save(tmp_path / "grid.png")
    tracker, run = AimTracker(repo), make_run()
    tracker.run_started(run)
    tracker.images_sampled(run, 5, tmp_path / "grid.png")
    tracker.run_ended(run, "finished")
    found = values(stored(repo, tracker).get_image_sequence("samples", Context({"net": "ema"})))
    assert np.array_equal(np.asarray(found[5].to_pil_image()), grid)


def test_labels_contexts_and_what_the_heads_see_are_stored(make_run, repo):
    neighborhoods = [(AttentionSite(16, 4, 64), [HeadGroup(2, 3, 1), HeadGroup(2, 3, 5)])]
    tracker = AimTracker(repo, every=1, labels={"variant": "split", "seed": 3})
    run = make_run(neighborhoods=neighborhoods)
    tracked(tracker, run, {"loss/generator": 1.0}, [1])
    tracker.run_ended(run, "finished")
    found = stored(repo, tracker)
    assert found["labels"] == {"variant": "split", "seed": 3}
    assert [m.context.to_dict() for m in found.metrics()] == [{"net": "generator", "split": "train"}]
    picture = values(found.get_image_sequence("receptive field", Context({})))[0].to_pil_image()
    assert min(picture.size) > 100 and len(picture.convert("RGB").getcolors(1 << 20)) > 4


def test_the_repository_can_be_made_before_runs_that_start_together(tmp_path):
    AimTracker(str(tmp_path)).prepare()
    assert (tmp_path / ".aim").is_dir()
    (tmp_path / "file").write_text("in the way")
    AimTracker(str(tmp_path / "file")).prepare()


def test_without_log_images_no_grid_is_stored(make_run, repo, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png")
    tracker, run = AimTracker(repo, log_images=False), make_run()
    tracker.run_started(run)
    tracker.images_sampled(run, 5, tmp_path / "grid.png")
    tracker.run_ended(run, "finished")
    assert stored(repo, tracker).get_image_sequence("samples", Context({"net": "ema"})) is None


def test_the_run_is_described_whole_even_by_values_that_aim_does_not_take(make_run, repo):
    hparams = {"train": {"betas": (0.0, 0.99), "folder": Path("data"), "rate": np.float32(0.5), "seed": None}}
    tracker, run = AimTracker(repo, tags=["ablation"]), make_run(hparams=hparams)
    tracker.run_started(run)
    tracker.run_ended(run, "finished")
    found = stored(repo, tracker)
    assert (found.name, found.experiment, found.tags) == ("faces", "quickstart", ["ablation"])
    assert found["hparams", "train"] == {"betas": [0.0, 0.99], "folder": "data", "rate": "0.5", "seed": None}
    assert found["environment"] == {"seed": 7, "git": None}
    assert found["status"] == "finished" and found.end_time is not None
    assert values(found.get_text_sequence("config.gin", Context({})))[0].data == run.config_text


def test_no_environment_variable_is_stored_and_stdout_is_left_alone(make_run, repo, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2hunter2")
    stdout, threads = sys.stdout, threading.active_count()
    tracker, run = AimTracker(repo), make_run()
    tracker.run_started(run)
    assert sys.stdout is stdout and threading.active_count() <= threads + 2
    tracker.run_ended(run, "finished")
    assert set(stored(repo, tracker)[...]) == {"hparams", "environment", "status"}
    files = [path for path in Path(repo).rglob("*") if path.is_file()]
    assert files and not any(b"hunter2hunter2" in path.read_bytes() for path in files)


def test_a_resume_goes_on_in_the_same_aim_run_and_keeps_a_name_given_there(make_run, repo):
    first = AimTracker(repo, every=1)
    tracked(first, make_run(), {"loss/generator": 1.0}, [1, 2, 3])
    first._run.name = "my favourite"
    first.run_ended(make_run(), "stopped")

    second = AimTracker(repo, every=1, tags=["again"])
    second.load_state_dict(first.state_dict())
    tracked(second, make_run(step=2, resumed=True), {"loss/generator": 2.0}, [3, 4])
    second.run_ended(make_run(), "finished")
    assert second.state_dict() == first.state_dict()
    assert series(repo, second)["loss", "generator"] == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}
    assert stored(repo, second).name == "my favourite" and stored(repo, second)["status"] == "finished"


def test_a_checkpoint_that_starts_another_run_leaves_the_first_ones_curves_alone(make_run, repo):
    first, second = AimTracker(repo, every=1), AimTracker(repo, every=1)
    tracked(first, make_run(), {"loss/generator": 1.0}, [1, 2])
    first.run_ended(make_run(), "finished")
    second.load_state_dict(first.state_dict())
    tracked(second, make_run(name="another", step=1, resumed=True), {"loss/generator": 9.0}, [2])
    second.run_ended(make_run(), "finished")
    assert series(repo, first)["loss", "generator"] == {1: 1.0, 2: 1.0}
    assert series(repo, second)["loss", "generator"] == {2: 9.0}


KILLED = """
import os, signal, sys
from pathlib import Path
from plugins.trackers.aim_tracker import AimTracker
from stylenat.training.run import Run
run = Run("faces", "quickstart", Path("."), 100, 4, "", {}, {})
tracker = AimTracker(sys.argv[1], every=1)
tracker.run_started(run)
for step in (1, 2, 3):
    tracker.step_ended(run, step, {"loss/generator": 1.0})
print(tracker.state_dict()["hash"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_resume_after_kill_9_goes_on_in_the_same_aim_run(make_run, repo):
    root = Path(__file__).parents[3]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, repo],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    tracker = AimTracker(repo, every=1)
    tracker.load_state_dict({"hash": killed.stdout.strip(), "run": "faces"})
    tracked(tracker, make_run(step=2, resumed=True), {"loss/generator": 2.0}, [3, 4])
    tracker.run_ended(make_run(), "finished")
    assert tracker.state_dict()["hash"] == killed.stdout.strip()
    assert series(repo, tracker)["loss", "generator"] == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}


def test_an_aim_run_that_is_gone_is_said_and_a_new_one_begun(make_run, repo, capsys):
    tracker, run = AimTracker(repo, every=1), make_run(resumed=True)
    tracker.load_state_dict({"hash": "0" * 24, "run": "faces"})
    tracked(tracker, run, {"loss/generator": 1.0}, [1])
    tracker.run_ended(run, "finished")
    assert tracker.state_dict()["hash"] != "0" * 24
    assert series(repo, tracker) == {("loss", "generator"): {1: 1.0}}
    (line,) = capsys.readouterr().err.splitlines()
    assert "Cannot find Run 0000" in line and "a new one is started" in line


def test_each_cause_is_said_once_and_what_can_be_tracked_still_is(make_run, repo, capsys):
    tracker, run = AimTracker(repo, every=1), make_run()
    bad = {"none": None, "array": torch.zeros(3), "text": "x", "loss/generator": 1.0}
    tracked(tracker, run, bad, [1, 2, 3])
    tracker.run_ended(run, "finished")
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split("(")[0] for line in lines) == [
        f"aim: cannot track {n} " for n in ("array", "none", "text")
    ]
    assert all(line.endswith("training continues") for line in lines)
    assert series(repo, tracker) == {("loss", "generator"): {1: 1.0, 2: 1.0, 3: 1.0}}


def test_a_repository_that_cannot_be_opened_is_said_once_and_training_goes_on(make_run, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    tracker, run = AimTracker(str(tmp_path / "file"), every=1), make_run()
    tracked(tracker, run, {"loss/generator": 1.0}, [1, 2])
    tracker.run_ended(run, "finished")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aim: cannot open a run (")


def test_an_image_that_is_missing_is_said_and_training_goes_on(make_run, repo, tmp_path, capsys):
    tracker, run = AimTracker(repo), make_run()
    tracker.run_started(run)
    tracker.images_sampled(run, 1, tmp_path / "missing.png")
    tracker.run_ended(run, "finished")
    assert capsys.readouterr().err.startswith("aim: cannot store sample grids (ValueError: Invalid image")


def test_the_users_ctrl_c_is_not_taken_for_a_failure_of_aims(make_run, repo):
    class Interrupted:
        def __float__(self):
            raise KeyboardInterrupt

    tracker, run = AimTracker(repo, every=1), make_run()
    tracker.run_started(run)
    with pytest.raises(KeyboardInterrupt):
        tracker.step_ended(run, 1, {"loss/generator": Interrupted()})
    tracker._newest.forget()
    tracker.run_ended(run, "failed")


def test_an_evaluation_after_training_joins_its_run_under_its_protocol(make_run, repo):
    tracker, run = AimTracker(repo), make_run()
    tracker.run_started(run)
    tracker.metrics_evaluated(run, 100, {"fid": 12.5}, DETAILS)
    state = tracker.state_dict()
    tracker.run_ended(run, "finished")
    time.sleep(0.6)  # A process remembers for half a second which runs there are; evaluations come from another one.
    later = AimTracker(repo)
    later.record_evaluation(100, {"fid": 1.0}, DETAILS)  # Of a run that was never tracked: nothing to join.
    later.load_state_dict(state)
    for value in (11.0, 11.5):
        later.record_evaluation(100, {"fid": value}, DETAILS)
    found = {tuple(sorted(m.context.to_dict())): values(m) for m in stored(repo, tracker).metrics() if m.name == "fid"}
    assert found == {("net", "split"): {100: 12.5}, ("net", "protocol"): {100: 11.5}}
    ((key, protocol),) = stored(repo, tracker)["protocols"].items()
    assert len(key) == 8 and protocol["generated"] == {"count": 10}
    assert stored(repo, tracker)["status"] == "finished"
