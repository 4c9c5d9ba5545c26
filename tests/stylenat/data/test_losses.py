"""Ways to lose images without a word, each of them refused."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from registry import UserError
from stylenat.commands.inspect_data import main as inspect_data
from stylenat.commands.prepare import main as prepare_command
from stylenat.data import lmdb_writer
from stylenat.data.lmdb_writer import Writer
from stylenat.data.prepare import prepare


def png(value):
    noise, file = np.random.default_rng(value).integers(0, 256, (40, 40, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02d}.png").write_bytes(png(i))
    return folder


@pytest.fixture
def tar(folder, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return tmp_path / "images.tar"


def offset_of(tar, number):
    with tarfile.open(tar) as archive:
        return archive.getmembers()[number].offset


def stop_after(count):
    def stop(images, position, size):
        if images == count:
            raise KeyboardInterrupt

    return stop


def interrupted(source, out, count, **how):
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, 16, workers=1, progress=stop_after(count), **how)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".bz2"])
@pytest.mark.parametrize("damage", ["a byte of a header", "cut between images", "cut in an image", "a compressed byte"])
def test_a_damaged_tar_is_no_short_one(tar, tmp_path, damage, suffix):
    packed = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}[suffix]
    data, ninth = bytearray(tar.read_bytes()), offset_of(tar, 9)
    if damage == "a byte of a header":
        data[ninth + 3] ^= 1
    elif damage != "a compressed byte":
        del data[ninth if damage == "cut between images" else ninth + 600 :]
    packed_data = bytearray(packed(bytes(data)))
    if damage == "a compressed byte":
        packed_data[len(packed_data) // 2] ^= 0xFF
    broken, out = tmp_path / f"broken.tar{suffix}", tmp_path / "out.lmdb"
    broken.write_bytes(packed_data)
    if damage == "a compressed byte" and not suffix:
        assert prepare(broken, out, 16, workers=1).skipped  # An image's own byte.
        return
    with pytest.raises(UserError, match="damaged(,| or) incomplete.*download or create it again"):
        prepare(broken, out, 16, workers=1)
    assert not out.exists()
    broken.write_bytes(packed(tar.read_bytes()))  # Fetched again, nothing is missing.
    assert prepare(broken, out, 16, workers=1).count == 20
    whole = prepare(tar, tmp_path / "whole.lmdb", 16, workers=1)
    assert whole.manifest["content_sha256"] == prepare(broken, out, 16, workers=1).manifest["content_sha256"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_a_source_that_goes_away_ends_the_preparation_and_comes_back(folder, tar, tmp_path, monkeypatch, kind, workers):
    zipped = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", folder))
    source, out = {"folder": folder, "tar": tar, "zip": zipped}[kind], tmp_path / "out.lmdb"
    gone = tmp_path / "gone"

    def take_away(images, position, size):
        if images == 1:
            source.rename(gone)

    monkeypatch.setattr("stylenat.data.prepare.AHEAD", 1)  # Few enough in flight that some are still to be read.
    monkeypatch.setattr("stylenat.data.prepare.CHUNK", 2)
    with pytest.raises(UserError, match="put it back and run the same command"):
        prepare(source, out, 16, workers=workers, progress=take_away)
    assert not out.exists()
    gone.rename(source)
    result = prepare(source, out, 16, workers=workers)
    assert result.count == 20 and not result.skipped and result.continued > 0


def test_a_source_that_changed_before_where_it_was_read_is_refused(folder, tmp_path):
    out = tmp_path / "out.lmdb"
    interrupted(folder, out, 10)
    (folder / "03.png").rename(folder / "03b.png")
    with pytest.raises(UserError, match="has changed since"):
        prepare(folder, out, 16, workers=1)


def test_what_was_killed_between_its_last_commit_and_its_name_is_whole(folder, tmp_path):
    out, partial = tmp_path / "out.lmdb", tmp_path / ".out.lmdb.partial"
    whole = prepare(folder, out, 16, workers=1)
    out.rename(partial)
    with pytest.raises(UserError, match=r"was started with resolutions \[16\], not \[32\]"):
        prepare(folder, out, 32, workers=1)
    assert prepare(folder, out, 16, workers=1).manifest == whole.manifest
    assert inspect_data([str(out), "--verify"]) == 0 and not partial.exists()


def test_damage_to_a_beginning_shows_when_it_is_whole(folder, tmp_path):
    out, partial = tmp_path / "out.lmdb", tmp_path / ".out.lmdb.partial"
    interrupted(folder, out, 10, storage="raw")
    with lmdb.open(str(partial), map_size=2**26) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"16-00004", bytes(16 * 16 * 3))
    (partial / "lock.mdb").unlink()
    assert prepare(folder, out, 16, storage="raw", workers=1).count == 20
    assert inspect_data([str(out), "--verify"]) == 2


def test_a_beginning_of_an_earlier_version_goes_on(folder, tmp_path):
    """Without the digests of its last block and without a hash of the names."""
    out, partial = tmp_path / "out.lmdb", tmp_path / ".out.lmdb.partial"
    interrupted(folder, out, 10)
    with lmdb.open(str(partial), map_size=2**26) as environment, environment.begin(write=True) as transaction:
        progress = json.loads(transaction.get(lmdb_writer.PROGRESS))
        del progress["names"]
        transaction.put(lmdb_writer.PROGRESS, json.dumps(progress).encode())
        assert transaction.delete(b"sha256-16-000000")
    (partial / "lock.mdb").unlink()
    whole = prepare(folder, tmp_path / "whole.lmdb", 16, workers=1)
    assert prepare(folder, out, 16, workers=1).manifest["content_sha256"] == whole.manifest["content_sha256"]


@pytest.mark.parametrize("account", [b"{", b"[]", b'{"settings": {}, "later": 1}'])
def test_an_account_that_cannot_be_read_is_one_line(folder, tmp_path, account):
    out, partial = tmp_path / "out.lmdb", tmp_path / ".out.lmdb.partial"
    interrupted(folder, out, 10)
    with lmdb.open(str(partial), map_size=2**26, lock=False) as environment, environment.begin(write=True) as put:
        put.put(lmdb_writer.PROGRESS, account)
    with pytest.raises(UserError, match="is damaged, or of a later version; remove it to start again"):
        prepare(folder, out, 16, workers=1)


def test_a_cut_beginning_is_one_line(folder, tmp_path):
    out, data = tmp_path / "out.lmdb", tmp_path / ".out.lmdb.partial" / "data.mdb"
    for i in range(20, 200):
        (folder / f"{i}.png").write_bytes(png(i))
    interrupted(folder, out, 190, storage="raw")
    os.truncate(data, data.stat().st_size // 3)
    with pytest.raises(UserError, match="is damaged .*cut to .* remove it to start again"):
        prepare(folder, out, 16, storage="raw", workers=1)


def test_a_damaged_label_is_found(folder, tmp_path, capsys):
    for name in ("a", "b"):
        shutil.copytree(folder, tmp_path / "classes" / name)
    out = tmp_path / "out.lmdb"
    prepare(tmp_path / "classes", out, 16, labels=True, workers=1)
    assert inspect_data([str(out), "--verify"]) == 0
    with lmdb.open(str(out), map_size=2**26) as environment, environment.begin(write=True) as transaction:
        labels = bytearray(transaction.get(b"labels-000000"))
        labels[4] ^= 1
        transaction.put(b"labels-000000", bytes(labels))
    assert inspect_data([str(out), "--verify"]) == 2
    assert "its labels are damaged" in capsys.readouterr().out


def test_odd_entries_hide_no_others(folder, tmp_path, capsys):
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "png").write_bytes(png(1))
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "in.png").write_bytes(png(2))
    assert prepare(folder, tmp_path / "out.lmdb", 16, workers=1).count == 20
    os.mkfifo(folder / "pipe.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfimages/00.png\nimages/pipe.png\nnone.png\nnone.png\nimages\n")
    result = prepare(listed, tmp_path / "listed.lmdb", 16, workers=1)
    assert result.count == 1 and list(result.skipped) == ["images/pipe.png", "none.png", "none.png (2)", "images"]
    listed.write_text("images/00.png\n", "utf-16")
    with pytest.raises(UserError, match="not a text file of paths: it must be UTF-8"):
        prepare(listed, tmp_path / "utf16.lmdb", 16, workers=1)


def test_links_in_a_tar_are_counted(tar, tmp_path):
    with tarfile.open(tar, "a") as archive:
        link = tarfile.TarInfo("again.png")
        link.type, link.linkname = tarfile.LNKTYPE, "00.png"
        archive.addfile(link)
    result = prepare(tar, tmp_path / "out.lmdb", 16, workers=1)
    assert result.count == 20 and result.manifest["ignored"] == 1


def test_an_absurd_resolution_and_too_little_address_space_are_one_line(folder, tmp_path, capsys, monkeypatch):
    assert prepare_command([str(folder), str(tmp_path / "out.lmdb"), "--resolution", "100000"]) == 2
    assert capsys.readouterr().err == "error: --resolution must be at most 8192; got 100000\n"

    def refuse(*arguments, **options):
        raise lmdb.MemoryError("mdb_env_open: Cannot allocate memory")

    monkeypatch.setattr(lmdb_writer.lmdb, "open", refuse)
    with pytest.raises(UserError, match="ulimit -v unlimited"), Writer(tmp_path / "out.lmdb", [16], {}):
        pass


def test_a_name_that_is_no_text_is_printed(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(png(0))
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png"))).write_bytes(b"no image")
    done = subprocess.run(
        [sys.executable, "tools/prepare.py", str(folder), str(tmp_path / "out.lmdb"), "--resolution", "16"],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "\\udcff.png: does not decode" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "entry",
    [{"count": -1}, {"count": 2.0}, {"count": "10"}, {"consumed": None}, {"names": 5}, {"last": []}, {"skipped": True},
     {"classes": [1]}, {"classes": "a"}, {"settings": []}],
)  # fmt: skip
def test_an_account_of_other_types_is_one_line(folder, tmp_path, entry):
    out = tmp_path / "out.lmdb"
    change_account(folder, out, entry)
    with pytest.raises(UserError, match="is damaged, or of a later version; remove it to start again"):
        prepare(folder, out, 16, workers=1)


@pytest.mark.parametrize(
    "entry, missing", [({"skipped": 3}, ".skipped-00000000"), ({"count": 5000}, "16-"), ({"count": 15}, "16-")]
)
def test_an_account_of_more_than_there_is_is_one_line(folder, tmp_path, entry, missing):
    out = tmp_path / "out.lmdb"
    change_account(folder, out, entry)
    with pytest.raises(UserError, match=f"is damaged .*{missing}.* is missing.*; remove it to start again"):
        prepare(folder, out, 16, workers=1)


def change_account(folder, out, entry):
    interrupted(folder, out, 10)
    partial = out.with_name(f".{out.name}.partial")
    with lmdb.open(str(partial), map_size=2**26, lock=False) as environment, environment.begin(write=True) as put:
        account = json.loads(put.get(lmdb_writer.PROGRESS))
        put.put(lmdb_writer.PROGRESS, json.dumps(account | entry).encode())
