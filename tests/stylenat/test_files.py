"""Files are written completely or not at all, through no link, and read without waiting."""

import os
from pathlib import Path

import pytest

from registry import UserError
from stylenat.files import cache_folder, open_in_folder, partial, read_bounded, whole_file, whole_folder


def test_reading_is_bounded_and_takes_regular_files_only(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_bounded(file, 4)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file"):
            read_bounded(path, 5)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 5)


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path):
    other, file = tmp_path / "other", tmp_path / "file"
    other.write_text("mine")
    partial(file).symlink_to(other)
    with whole_file(file) as opened:
        opened.write(b"new")
    assert other.read_text() == "mine" and file.read_text() == "new" and not file.is_symlink()


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "fifo", "folder"])
def test_nothing_but_a_files_own_name_is_opened_to_write(tmp_path, kind):
    other, file = tmp_path / "other", tmp_path / "file"
    other.write_text("mine")
    {
        "link": lambda: file.symlink_to(other),
        "dangling": lambda: file.symlink_to(tmp_path / "new"),
        "hard link": lambda: os.link(other, file),
        "fifo": lambda: os.mkfifo(file),
        "folder": lambda: file.mkdir(),
    }[kind]()
    with pytest.raises(UserError, match="is a link or not a regular file"):
        open_in_folder(file, os.O_WRONLY | os.O_APPEND)
    assert other.read_text() == "mine" and not (tmp_path / "new").exists()
    descriptor = open_in_folder(tmp_path / "fresh", os.O_WRONLY | os.O_APPEND)
    os.close(descriptor)
    assert (tmp_path / "fresh").read_bytes() == b""


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_a_file_may_have_the_longest_name(tmp_path, name):
    with whole_file(tmp_path / name) as file:
        file.write(b"content")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a link to one", "the current folder"])
def test_the_files_of_a_folder_appear_together_or_not_at_all(tmp_path, monkeypatch, there):
    folder, other = tmp_path / "run" / "out", tmp_path / "other"
    if there != "nothing":
        folder.parent.mkdir()
        other.mkdir()
        folder.symlink_to(other) if there == "a link to one" else folder.mkdir()
    if there == "the current folder":
        monkeypatch.chdir(folder)
        folder = Path()
    before = sorted(tmp_path.rglob("*"))
    for error in (KeyboardInterrupt, UserError):
        with pytest.raises(error), whole_folder(folder) as unfinished:
            (unfinished / "one").write_text("1")
            raise error
        assert sorted(tmp_path.rglob("*")) == before
    with whole_folder(folder) as unfinished:
        (unfinished / "one").write_text("1")
        assert not (folder / "one").exists()
    assert [path.name for path in folder.iterdir()] == ["one"]
    assert (other / "one").exists() is (there == "a link to one")
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    with pytest.raises(OSError, match="not empty"), whole_folder(folder):
        pass


def test_a_user_without_a_home_has_a_cache_of_the_processs_own(tmp_path, monkeypatch):
    for variable in ("STYLENAT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    folder = cache_folder()
    assert cache_folder() == folder and folder.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_uid == os.getuid() and not any(folder.iterdir())
