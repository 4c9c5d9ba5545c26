"""A preparation that is killed, stopped or out of space goes on to the very same data set."""

import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
import skimage.data
from PIL import Image

from registry import UserError
from stylenat.data import lmdb_writer, prepare
from stylenat.data.lmdb_writer import Writer

ROOT = Path(__file__).parents[3]
COMMIT_OFTEN = """
import sys
from stylenat.data import lmdb_writer
lmdb_writer.COMMIT_BYTES = 2**14
from stylenat.commands.prepare import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """400 crops of a photograph; every fortieth file is damaged."""
    folder = tmp_path_factory.mktemp("crops")
    cat, random = skimage.data.chelsea(), np.random.default_rng(0)
    for i in range(400):
        top, left = random.integers(0, 200, 2)
        path = folder / f"{i:03d}.png"
        Image.fromarray(cat[top : top + 90, left : left + 90]).save(path)
        if i % 40 == 7:
            path.write_bytes(path.read_bytes()[:3000])
    return folder


def contents(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {bytes(key): bytes(value) for key, value in transaction.cursor()}


def begun(partial):
    """Records that are committed; nobody may be writing."""
    try:
        return sum(key[:3] == b"32-" for key in contents(partial))
    except lmdb.Error:
        return 0


def file_size(partial):
    data = partial / "data.mdb"
    return data.stat().st_size if data.exists() else 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_preparation_killed_again_and_again_ends_in_the_same_keys_and_values(crops, tmp_path, workers):
    prepare.prepare(crops, tmp_path / "whole.lmdb", (32, 64), storage="raw", workers=1)
    script, out = tmp_path / "often.py", tmp_path / "out.lmdb"
    script.write_text(COMMIT_OFTEN)
    command = [sys.executable, str(script), str(crops), str(out), "--resolution", "32", "--resolution", "64"]
    command += ["--storage", "raw", "--workers", str(workers)]
    partial, kept = tmp_path / ".out.lmdb.partial", []
    for _ in range(3):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": "."})
        before = file_size(partial)
        while process.poll() is None and file_size(partial) <= before + 30 * 3 * (32**2 + 64**2):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            break
        kept.append(begun(partial))
    assert kept and kept[0] > 0  # It was killed in the middle at least once, and what it had was kept.
    assert subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, capture_output=True).returncode == 0
    whole, resumed = contents(tmp_path / "whole.lmdb"), contents(out)
    assert resumed == whole and len(whole) == 2 * 390 + 2 + 2
    assert not partial.exists()


def test_an_interrupt_keeps_all_that_was_done(crops, tmp_path):
    whole = prepare.prepare(crops, tmp_path / "whole.lmdb", 32, workers=1)

    def stop(images, position, size):
        if images == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(crops, tmp_path / "out.lmdb", 32, workers=1, progress=stop)
    result = prepare.prepare(crops, tmp_path / "out.lmdb", 32, workers=1)
    assert result.continued == 150 and result.skipped == whole.skipped and len(whole.skipped) == 10
    assert contents(tmp_path / "out.lmdb") == contents(tmp_path / "whole.lmdb")


def test_blocks_of_digests_and_labels_survive_a_resume_at_any_index(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, "BLOCK", 4)

    def fill(path, stops):
        done = 0
        for stop in [*stops, 11]:
            with Writer(path, [8], {}) as writer:
                assert writer.progress.consumed == done
                for i in range(done, stop):
                    if i == 5:
                        writer.skip("5", "odd")
                    else:
                        writer.add(str(i), [bytes([i]) * 9], label="ab"[i % 2])
                done = stop
                if stop == 11:
                    writer.finish({})
                else:
                    writer.commit()

    fill(tmp_path / "whole", [])
    for stop in range(1, 11):
        fill(tmp_path / f"at{stop}", [stop])
        assert contents(tmp_path / f"at{stop}") == contents(tmp_path / "whole")


def test_other_settings_another_source_and_another_process_are_refused(crops, tmp_path):
    def stop(images, position, size):
        raise KeyboardInterrupt

    out = tmp_path / "out.lmdb"
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(crops, out, 32, workers=1, progress=stop)
    with pytest.raises(UserError, match="started with filter lanczos, not box;"):
        prepare.prepare(crops, out, 32, workers=1, filter="box")
    with Writer(tmp_path / "busy.lmdb", [8], {}):
        with pytest.raises(UserError, match="another process is preparing"):
            with Writer(tmp_path / "busy.lmdb", [8], {}):
                pass


@pytest.mark.parametrize(("room", "records"), [(0, 0), (mmap.PAGESIZE, 0), (2**19, 21)])
def test_a_full_disk_is_one_line_and_loses_nothing(crops, tmp_path, room, records):
    """A limit on the file's size stands for the disk's end: the same call fails, be it LMDB's very first."""
    script, out = tmp_path / "often.py", tmp_path / "out.lmdb"
    script.write_text(COMMIT_OFTEN)
    command = [sys.executable, str(script), str(crops), str(out), "--resolution", "32", "--storage", "raw"]
    command += ["--workers", "1"]

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    environment = os.environ | {"PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"}
    full = subprocess.run(command, cwd=ROOT, preexec_fn=limit, env=environment, capture_output=True, text=True)
    assert full.returncode == 2, full.stderr
    # A write that the limit cuts short LMDB calls an input/output error, hence the second text.
    assert full.stderr.startswith(("error: no disk space left", "error: cannot write")), full.stderr
    assert "run the same command again to continue" in full.stderr and full.stderr.count("\n") == 1
    assert begun(tmp_path / ".out.lmdb.partial") >= records and not out.exists()
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode == 0
    prepare.prepare(crops, tmp_path / "whole.lmdb", 32, storage="raw", workers=1)
    assert contents(out) == contents(tmp_path / "whole.lmdb")


def test_a_write_cut_short_by_a_limit_is_one_line_and_loses_nothing(crops, tmp_path, monkeypatch):
    """LMDB calls it an input/output error, though the disk has room."""
    out, commits = tmp_path / "out.lmdb", []

    def commit(self):
        commits.append(self.progress.count)
        if len(commits) == 3:
            with self._faults():
                raise lmdb.Error("mdb_txn_commit: Input/output error")
        original(self)

    original = Writer.commit
    monkeypatch.setattr(lmdb_writer, "COMMIT_BYTES", 2**14)
    monkeypatch.setattr(Writer, "commit", commit)
    with pytest.raises(UserError, match="limit to a file's size.*run the same command"):
        prepare.prepare(crops, out, 32, storage="raw", workers=1)
    assert 0 < begun(tmp_path / ".out.lmdb.partial") < commits[2] and not out.exists()
    prepare.prepare(crops, out, 32, storage="raw", workers=1)
    prepare.prepare(crops, tmp_path / "whole.lmdb", 32, storage="raw", workers=1)
    assert contents(out) == contents(tmp_path / "whole.lmdb")
