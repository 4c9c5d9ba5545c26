"""A kept library is loaded only if nobody else can have written it; otherwise it is built anew."""

import os
import shutil
import subprocess

import pytest

from stylenat.native import build

SOURCE = """
extern "C" {
long tasks(const void*) { return %d; }
long scratch_floats(const void*, long) { return 0; }
void write_floats() {}
void write_bytes() {}
void moments() {}
void modulate() {}
void gradient_sums() {}
void gradient() {}
}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where libraries are kept, for kernels that compile in no time and answer 1."""
    try:
        build._compiler()
    except RuntimeError as error:
        pytest.skip(str(error))
    (tmp_path / "kernels.cpp").write_text(SOURCE % 1)
    monkeypatch.setattr(build, "SOURCES", [tmp_path / "kernels.cpp"])
    monkeypatch.setenv("STYLENAT_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "native"
    build.library.cache_clear()


@pytest.fixture
def planted(folder, tmp_path):
    """The path of a kept library, replaced by one that answers 666 under the name that its own digest gives it."""
    load()
    (good,) = folder.iterdir()
    (tmp_path / "evil.cpp").write_text(SOURCE % 666)
    evil = tmp_path / "evil.so"
    subprocess.run([build._compiler(), "-shared", "-fPIC", "-o", evil, tmp_path / "evil.cpp"], check=True)
    evil.chmod(0o700)
    name = good.stem.rpartition("-")[0]
    good.unlink()
    build.kept.keep(evil, folder, name)
    return next(folder.iterdir())


def load():
    build.library.cache_clear()
    return build.library().tasks(None)


def test_a_library_is_kept_for_this_user_alone_whatever_the_umask_and_found_again(folder, capsys):
    before = os.umask(0o002)
    try:
        assert load() == 1
    finally:
        os.umask(before)
    (library,) = folder.iterdir()
    assert (folder.stat().st_mode & 0o777, library.stat().st_mode & 0o777) == (0o700, 0o700)
    assert load() == 1 and capsys.readouterr().err.count("compiled the CPU kernels") == 1


def test_a_library_of_this_user_is_what_is_loaded(planted):
    assert load() == 666  # Without which the tests below would show nothing.


@pytest.mark.parametrize("spoilt", ["writable by others", "a link", "a hard link", "a pipe", "changed", "cut"])
def test_a_library_that_others_can_have_written_or_that_is_damaged_is_built_anew(spoilt, planted, tmp_path, capsys):
    match spoilt:
        case "writable by others":
            planted.chmod(0o720)
        case "a link":
            planted.symlink_to(shutil.move(planted, tmp_path / "elsewhere"))
        case "a hard link":
            os.link(planted, tmp_path / "elsewhere")
        case "a pipe":
            planted.unlink()
            os.mkfifo(planted)
        case "changed":
            planted.write_bytes(planted.read_bytes() + b"\0")
        case "cut":
            planted.write_bytes(planted.read_bytes()[:1000])
    capsys.readouterr()
    assert load() == 1
    assert "compiled the CPU kernels" in capsys.readouterr().err
    assert [path.is_file() and path != planted for path in planted.parent.iterdir()] == [True]


def test_a_folder_that_others_can_write_to_is_made_this_users(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert load() == 1 and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where, reason", [("another's", "belongs to another user"), ("a link", "is not a folder")])
def test_nothing_is_loaded_from_or_kept_in_a_folder_that_is_not_this_users(
    where, reason, planted, tmp_path, monkeypatch, capsys
):
    folder, real = planted.parent, os.geteuid()
    if where == "another's":
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    else:
        shutil.move(folder, tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    capsys.readouterr()
    assert load() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "for this process only" in line and reason in line
    assert [path.name for path in folder.iterdir()] == [planted.name]


def test_a_cache_that_cannot_be_written_costs_a_line_and_no_kernels(folder, capsys):
    folder.parent.write_text("a file")
    assert load() == 1
    assert "cannot be used (" in capsys.readouterr().err
