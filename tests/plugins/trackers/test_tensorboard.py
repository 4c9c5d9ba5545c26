import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plugins.trackers.tensorboard import TensorBoard
from stylenat.testing.tracker import DETAILS

pytest.importorskip("tensorboard", reason="pip install '.[tensorboard]'")
EventAccumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator


def stored(run):
    """The run as TensorBoard reads it."""
    return EventAccumulator(str(run.directory / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def series(run):
    """Every scalar series as [(step, value)]."""
    found = stored(run)
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def tracked(tracker, run, scalars, steps):
    tracker.run_started(run)
    for step in steps:
        run.step = step
        tracker.step_ended(run, step, scalars)


def test_scalars_metrics_and_the_config_keep_their_names(make_run):
    tracker, run = TensorBoard(every=2), make_run()
    tracked(tracker, run, {"loss/generator": torch.tensor(0.5), "augmentation/p": 0.25}, [1, 2])
    tracker.metrics_evaluated(run, 2, {"fid": 12.5}, DETAILS)
    tracker.run_ended(run, "finished")
    found = {tag: [(step, round(value, 6)) for step, value in points] for tag, points in series(run).items()}
    assert found == {
        "loss/generator": [(2, 0.5)],
        "augmentation/p": [(2, 0.25)],
        "fid": [(2, 12.5)],
        "fid/spread": [(2, 0.1)],
    }
    (text,) = stored(run).Tensors("config.gin/text_summary")
    assert b"train.iterations = 100" in text.tensor_proto.string_val[0]
    assert tracker.where() == {"tensorboard": f"tensorboard --logdir {run.directory}"}


def test_a_sample_grid_is_stored_pixel_for_pixel_and_only_if_asked(make_run, tmp_path):
    grid = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    Image.fromarray(grid).save(tmp_path / "grid.png")
    for name, log_images in (("with", True), ("without", False)):
        tracker, run = TensorBoard(log_images=log_images), make_run(directory=tmp_path / name)
        tracker.run_started(run)
        tracker.images_sampled(run, 5, tmp_path / "grid.png")
        tracker.run_ended(run, "finished")
        images = stored(run).Tags()["images"]
        assert images == (["samples"] if log_images else [])
    (image,) = stored(make_run(directory=tmp_path / "with")).Images("samples")
    (tmp_path / "stored.png").write_bytes(image.encoded_image_string)
    assert image.step == 5 and np.array_equal(np.asarray(Image.open(tmp_path / "stored.png")), grid)


def test_a_roll_back_takes_back_what_came_after_its_checkpoint(make_run):
    tracker, run = TensorBoard(every=1), make_run()
    tracked(tracker, run, {"loss/generator": 1.0}, [1, 2, 3])
    tracker.metrics_evaluated(run, 3, {"fid": 9.0}, DETAILS)
    run.step = 2
    tracker.run_rolled_back(run, 2)
    for step in (3, 4):
        tracker.step_ended(run, step, {"loss/generator": 2.0})
    tracker.metrics_evaluated(run, 3, {"fid": 8.0}, DETAILS)
    tracker.run_ended(run, "finished")
    assert series(run)["loss/generator"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert series(run)["fid"] == [(3, 8.0)]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from plugins.trackers.tensorboard import TensorBoard
from stylenat.testing.tracker import DETAILS
from stylenat.training.run import Run
run = Run("faces", "quickstart", Path(sys.argv[1]), 100, 4, "train.seed = 0", {}, {})
tracker = TensorBoard(every=1)
tracker.run_started(run)
for step in (1, 2):
    tracker.step_ended(run, step, {"loss/generator": 1.0})
tracker.state_dict()
tracker.metrics_evaluated(run, 2, {"fid": 5.0}, DETAILS)
tracker.step_ended(run, 3, {"loss/generator": 1.0})
tracker._writer.flush()
time.sleep(1.1)  # TensorBoard sorts event files by the second in which they begin.
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_resume_after_kill_9_continues_without_doubled_points(make_run):
    """The evaluation of iteration 2 came after its checkpoint, so it comes again."""
    run = make_run(step=2, resumed=True)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run.directory)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    tracker = TensorBoard(every=1)
    tracker.run_started(run)
    tracker.metrics_evaluated(run, 2, {"fid": 5.0}, DETAILS)
    for step in (3, 4):
        tracker.step_ended(run, step, {"loss/generator": 2.0})
    tracker.run_ended(run, "finished")
    assert series(run)["loss/generator"] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]
    assert series(run)["fid"] == [(2, 5.0)]
    assert len(stored(run).Tensors("config.gin/text_summary")) == 2


def test_failures_are_one_line_each_and_training_goes_on(make_run, tmp_path, capsys):
    tracker, run = TensorBoard(every=1), make_run()
    tracked(tracker, run, {"none": None, "loss/generator": 1.0}, [1, 2])
    tracker.images_sampled(run, 2, tmp_path / "missing.png")
    tracker.run_ended(run, "finished")
    assert series(run) == {"loss/generator": [(1, 1.0), (2, 1.0)]}
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("(")[0] for line in lines] == [
        "tensorboard: cannot track none ",
        "tensorboard: cannot store sample grids ",
    ]


def test_nothing_is_written_through_a_link(make_run, tmp_path, capsys):
    run = make_run()
    (tmp_path / "elsewhere").mkdir()
    (run.directory / "tensorboard").symlink_to(tmp_path / "elsewhere")
    tracker = TensorBoard(every=1)
    tracked(tracker, run, {"loss/generator": 1.0}, [1])
    tracker.run_ended(run, "finished")
    assert "is a link" in capsys.readouterr().err and not list((tmp_path / "elsewhere").iterdir())
