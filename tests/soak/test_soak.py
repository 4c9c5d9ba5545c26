"""Ended at random moments, in every way, again and again: nothing is lost.

A short form runs with the suite. The long one: ``STYLENAT_SOAK_KILLS=30 pytest -m soak``.
"""

import random
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylenat.commands.inspect_data import main as inspect_data
from stylenat.data.lmdb_layout import open_layout

pytestmark = pytest.mark.soak
FULL = "full disk"
WAYS = [signal.SIGKILL, signal.SIGTERM, FULL, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1]
"""One after another, so that also the short form has the first three."""


def attempt(forge, disk, survived, way, longest, command, arguments, chance):
    """Starts the command and ends it in that way after a while. Returns whether it came to its end."""
    if way == FULL:
        told = len(forge.said())
        code = forge(command, arguments, **disk.fill())["code"]
        disk.relieve()
        if code != 0:
            assert code == 2, forge.said()
            assert "space left" in forge.said()[told:].splitlines()[-1]
    else:
        code = forge(command, arguments, signal=way, after=chance.uniform(0, longest))["code"]
        assert code in (0, 75 if way != signal.SIGKILL else -way), forge.said()
    if code != 0:
        survived[way if way == FULL else way.name] += 1
    return code == 0


def ended_again_and_again(forge, disk, survived, kills, longest, command, arguments):
    """Until it was ended ``kills`` times or is done; then it is left alone."""
    chance, done = random.Random(), False
    for number in range(kills):
        done = attempt(forge, disk, survived, WAYS[number % len(WAYS)], longest, command, arguments, chance)
        if done:
            break
    if not done:
        assert forge(command, arguments)["code"] == 0, forge.said()


def test_training_loses_nothing(forge, disk, survived, kills, everything, monkeypatch):
    monkeypatch.chdir(disk.folder)
    binds = ["generator.style.channels = [16, 16, 16]", "discriminator.wavelet.channels = [8, 8]", "train.threads = 1",
             "train.iterations = 36", "train.batch_size = 4", "train.sample_every = 7", "train.evaluate_every = 12",
             "train.checkpoint_every = 2", "train.keep_best = 'frechet_random_features'",
             "train.evaluation_samples = 32", "train.sample_count = 4", "train.trackers = [@tracker.jsonl()]",
             "train.metrics = [@metric.frechet_random_features()]", "augmentation.ada.initial_p = 0.5"]  # fmt: skip
    arguments = ["--gin", "quickstart.gin", *(part for bind in binds for part in ("--bind", bind))]
    whole = forge("run", [*arguments, "--run-dir", "whole"])
    assert whole["code"] == 0, forge.said()
    reference, longest = everything(Path("whole")), 0.6 * whole["seconds"]
    # What is finished before it was ended often enough is begun anew, and ended sooner: statistics are kept by now.
    for number in range(4 * kills):
        if survived.total() >= kills:
            break
        run = ["--run-dir", f"parts-{number}"]
        left = kills - survived.total()
        ended_again_and_again(forge, disk, survived, left, longest * 0.7**number, "run", [*arguments, *run])
        assert everything(Path(run[1])) == reference
        assert not list(Path(run[1]).rglob(".partial*")) and not Path(run[1], "PREEMPTED").exists()
    assert survived.total() >= kills


def test_preparing_data_loses_nothing(forge, disk, survived, kills, tmp_path, monkeypatch):
    monkeypatch.chdir(disk.folder)
    photos, noise = tmp_path / "photos", np.random.default_rng(1)
    photos.mkdir()
    for i in range(600):
        Image.fromarray(noise.integers(0, 256, (48, 40, 3), dtype=np.uint8)).save(photos / f"{i:04d}.png")
    (photos / "0300.png").write_bytes(b"no picture")

    def prepare(out):
        return [str(photos), out, "--resolution", "32", "--workers", "1"]

    whole = forge("prepare", prepare("whole.lmdb"))
    assert whole["code"] == 0, forge.said()

    def content(out):
        assert inspect_data([out, "--verify"]) == 0
        manifest = open_layout(Path(out))[1].manifest
        return {name: manifest[name] for name in ("count", "skipped", "content_sha256")}

    reference, longest = content("whole.lmdb"), 0.6 * whole["seconds"]
    for number in range(4 * kills):
        if survived.total() >= kills:
            break
        out, left = f"parts-{number}.lmdb", kills - survived.total()
        ended_again_and_again(forge, disk, survived, left, longest * 0.7**number, "prepare", prepare(out))
        assert content(out) == reference
        assert not list(Path(".").glob(f".{out}*"))
        for file in Path(out).iterdir():  # Room for the next.
            file.unlink()
    assert survived.total() >= kills
