"""``tools/ablate.py --ray`` with real trainings, of which two are killed."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]


def of(run):
    """The training process of a run, with its parent; None while there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if words[-2:-1] == [os.fsencode(run)] and b"stylenat" in words:
            return int(folder.name), parent
    return None


def until(there, process):
    deadline = time.monotonic() + 240
    while not (found := there()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_of_killed_runs_one_is_started_again_one_reported_and_the_command_goes_on(ablation_file, tmp_path):
    variants = "'near': ['partition.uniform.kernel_size = 3'], 'mid': ['partition.uniform.kernel_size = 5'], 'far': []"
    binds = [
        f"ablation.variants = {{{variants}}}",
        "block.hydra.partition = @partition.uniform()",
        "partition.uniform.kernel_size = 7",
        "ablation.seeds = [0]",
        "train.iterations = 120",
        "train.checkpoint_every = 2",
        "train.evaluate_every = 120",
        "train.trackers = [@tracker.progress(), @tracker.jsonl()]",
    ]
    out = tmp_path / "runs"
    command = [sys.executable, "-m", "stylenat", "ablate", "--gin", str(ablation_file), "--out", str(out), "--ray"]
    command += [part for bind in binds for part in ("--bind", bind)]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": paths}, "text": True}

    with subprocess.Popen(command, stderr=subprocess.PIPE, **options) as ablation:
        for run, of_the_worker in (("near-seed0", True), ("mid-seed0", False)):
            until(lambda run=run: list(out.glob(f"{run}/checkpoints/step-*")), ablation)
            training, worker = until(lambda run=run: of(str(out / run)), ablation)
            os.kill(worker if of_the_worker else training, signal.SIGKILL)
        errors = ablation.communicate(timeout=600)[1]
    assert ablation.returncode == 1
    assert "mid-seed0 failed with -9: killed by SIGKILL" in errors

    def starts(run):
        return (out / "logs" / f"{run}.log").read_text().count("--- 2")

    def finished(run):
        return (out / run / "checkpoints/step-000000120").is_dir()

    assert {run: (starts(run), finished(run)) for run in ("near-seed0", "mid-seed0", "far-seed0")} == {
        "near-seed0": (2, True), "mid-seed0": (1, False), "far-seed0": (1, True),
    }  # fmt: skip
    assert "continuing from" in (out / "logs/near-seed0.log").read_text()

    subprocess.run(command, check=True, timeout=600, **options)
    assert finished("mid-seed0") and starts("mid-seed0") == 2 and starts("near-seed0") == 2 and starts("far-seed0") == 1
    assert "continuing from" in (out / "logs/mid-seed0.log").read_text()
    again = subprocess.run(command, check=True, timeout=600, stdout=subprocess.PIPE, **options)
    assert "nothing to do" in again.stdout
