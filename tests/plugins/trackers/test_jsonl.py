import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from plugins.trackers import jsonl
from plugins.trackers.jsonl import JsonLines
from registry import UserError
from stylenat.evaluation.protocol import read_results
from stylenat.testing.tracker import DETAILS


def written(run):
    return [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]


def evaluated(run, *steps):
    for step in steps:
        run.images = 4 * step
        JsonLines().metrics_evaluated(run, step, {"fid": step / 2}, DETAILS)


def test_an_evaluation_is_one_object_on_a_line(make_run):
    run = make_run()
    evaluated(run, 10, 20)
    first, second = written(run)
    assert first.keys() == {"step", "images", "time", "metrics", "spread", "intervals", "protocol", "training"}
    assert (second["step"], second["images"], second["metrics"]) == (20, 80, {"fid": 10.0})
    assert datetime.now(UTC) - datetime.fromisoformat(first["time"]) < timedelta(minutes=1)


def test_a_metric_that_is_not_finite_becomes_null_so_that_every_json_reader_takes_the_file(make_run):
    run = make_run()
    JsonLines().metrics_evaluated(run, 1, {"fid": float("nan"), "swd": float("inf")}, DETAILS)
    assert written(run)[0]["metrics"] == {"fid": None, "swd": None}


def test_the_time_of_training_is_that_of_iterations_alone(make_run, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(jsonl.time, "monotonic", lambda: now[0])
    tracker, run = JsonLines(), make_run()
    tracker.run_started(run)

    def passed(seconds, hook, *arguments):
        now[0] += seconds
        getattr(tracker, hook)(run, *arguments)

    passed(2.0, "step_ended", {})
    passed(2.0, "step_ended", {})
    passed(50.0, "images_sampled")
    passed(100.0, "metrics_evaluated", 2, {"fid": 1.0}, DETAILS)
    passed(1.0, "step_ended", {})
    passed(100.0, "metrics_evaluated", 3, {"fid": 1.0}, DETAILS)
    assert [line["training"] for line in written(run)] == [
        {"seconds": 4.0, "iterations": 2},
        {"seconds": 1.0, "iterations": 1},
    ]
    assert tracker.state_dict() == {}  # Checkpoints of equal runs have equal bits.


def test_a_resume_drops_what_lies_beyond_its_step_and_keeps_its_own(make_run):
    evaluated(make_run(), 10, 20, 30)
    resumed = make_run(step=20, resumed=True)
    JsonLines().run_started(resumed)
    assert [line["step"] for line in written(resumed)] == [10, 20]


def test_a_last_line_torn_by_a_crash_is_dropped_and_the_next_one_is_whole(make_run):
    run = make_run(step=20)
    evaluated(run, 10, 20)
    path = run.directory / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 15, "ima\xc3')
    JsonLines().run_started(run)
    evaluated(run, 30)
    assert [line["step"] for line in written(run)] == [10, 20, 30]


def test_a_last_line_that_lacks_only_its_newline_is_kept(make_run):
    run = make_run(step=20)
    evaluated(run, 10, 20)
    path = run.directory / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    JsonLines().run_started(run)
    evaluated(run, 30)
    assert [line["step"] for line in written(run)] == [10, 20, 30]


@pytest.mark.parametrize("line", ["not json", "[]", '{"step": null}', "{}"])
def test_a_damaged_line_before_the_last_is_the_users_to_mend(make_run, line):
    run = make_run(step=20)
    path = run.directory / "metrics.jsonl"
    path.write_text(f'{line}\n{{"step": 10}}\n')
    with pytest.raises(UserError, match="metrics.jsonl line 1"):
        JsonLines().run_started(run)
    assert path.read_text().startswith(line)


def test_the_old_file_is_whole_when_the_rewrite_is_interrupted(make_run, monkeypatch):
    run = make_run(step=10)
    evaluated(run, 10, 20)
    before = (run.directory / "metrics.jsonl").read_text()

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        JsonLines().run_started(run)
    assert (run.directory / "metrics.jsonl").read_text() == before


def test_a_file_that_needs_no_cut_is_not_touched(make_run):
    run = make_run(step=20)
    evaluated(run, 10, 20)
    before = (run.directory / "metrics.jsonl").stat()
    JsonLines().run_started(run)
    after = (run.directory / "metrics.jsonl").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_skipped_steps_are_counted_over_the_run_and_read_back(make_run):
    tracker, run = JsonLines(), make_run()
    tracker.run_started(run)
    tracker.step_ended(run, {"skipped/generator": 2.0, "skipped/r1": 1.0, "skipped/discriminator": 0.0})
    tracker.step_ended(run, {"skipped/generator": 3.0})
    tracker.metrics_evaluated(run, 2, {"fid": 1.0}, DETAILS)
    assert written(run)[0]["training"]["skipped"] == {"generator": 3, "r1": 1}
    assert read_results(run.directory / "metrics.jsonl")[0].skipped == {"generator": 3, "r1": 1}
