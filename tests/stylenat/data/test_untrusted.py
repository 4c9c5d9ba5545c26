"""Files from elsewhere: bounded memory and time, nothing written through a link, no control characters, one line."""

import bz2
import io
import os
import shutil
import signal
import socket
import struct
import tarfile
import zipfile
from concurrent.futures import Future

import lmdb
import pytest
from PIL import Image

from plugins.datasets.folder import Folder
from plugins.datasets.lmdb_dataset import LmdbDataset
from plugins.datasets.zip_dataset import Zip
from registry import UserError
from stylenat.commands.inspect_data import main as inspect_data
from stylenat.commands.prepare import main as prepare_command
from stylenat.data import decoders
from stylenat.data import prepare as preparation
from stylenat.data.archives import MAX_HEADER_BYTES
from stylenat.data.formats import Unusable
from stylenat.data.images import decode
from stylenat.data.inspection import Inspection
from stylenat.data.items import Item
from stylenat.data.prepare import Recipe, prepare


def encoded(side=8, format="png", colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, format)
    return file.getvalue()


@pytest.fixture
def ends():
    """What waits for ever is interrupted."""

    def interrupt(*_):
        pytest.fail("it waits")  # Not an OSError, which code may handle.

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "red").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "in" / "red" / f"{name}.png").write_bytes(encoded())
    return tmp_path / "in"


@pytest.fixture
def changed(folder, tmp_path):
    """``changed(name=value)``: an LMDB of two images of 8x8 with some records replaced."""
    prepare(folder, tmp_path / "good.lmdb", 8, labels=True, workers=1)

    def changed(records):
        path = tmp_path / "changed.lmdb"
        shutil.copytree(tmp_path / "good.lmdb", path)
        with lmdb.open(str(path), map_size=2**26, lock=False) as environment, environment.begin(write=True) as put:
            for name, value in records.items():
                put.put(name, value)
        return path

    return changed


def huge_jpeg():
    data = bytearray(encoded(format="jpeg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    return bytes(data)


def test_the_sides_in_a_records_header_are_compared_before_it_is_decoded(changed, monkeypatch):
    def decoded(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(decoders.simplejpeg, "decode_jpeg", decoded)
    monkeypatch.setattr(decoders.kornia_rs.io, "decode_image_png_u8", decoded)
    monkeypatch.setattr(decoders, "load_image", decoded)
    path = changed({b"8-00000": huge_jpeg(), b"8-00001": encoded(9), b"length": b"2"})
    data = LmdbDataset(str(path), 8)
    with pytest.raises(UserError, match="image 0 is 65500x65500, not 8x8"):
        data[0]
    with pytest.raises(UserError, match="image 1 is 9x9, not 8x8"):
        data[1]
    for format in ("webp", "bmp"):
        with pytest.raises(decoders.WrongSize):
            decoders.decode_pixels(encoded(9, format), 8)
    with pytest.raises(Unusable, match="too large"):
        decode(huge_jpeg())


@pytest.mark.parametrize("length", [b"1000000000000", b"100000000000000000000", b"-1", b"9" * 5000, b"17"])
def test_a_length_beyond_what_is_stored_is_refused(changed, length, capsys):
    path = changed({b"length": length})
    with pytest.raises(UserError, match="not a readable LMDB"):
        LmdbDataset(str(path), 8).prepare()
    with pytest.raises(UserError, match="not a readable LMDB"):
        prepare(path, path.with_name("o.lmdb"), 8, workers=1)
    assert inspect_data([str(path)]) == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_an_lmdb_of_very_many_resolutions_is_refused(changed):
    with pytest.raises(UserError, match="more than 64 resolutions"):
        LmdbDataset(str(changed({b"%d-00000" % side: b"x" for side in range(100, 200)})), 8).prepare()


def tar_of(path, *members, mode="w", format=tarfile.GNU_FORMAT, **options):
    with tarfile.open(path, mode, format=format, **options) as archive:
        for member in members:
            data = encoded()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_tar_with_an_endless_name_is_refused_before_the_name_is_read(tmp_path, format, mode, before):
    names = ["good.png"] * before + ["x" * MAX_HEADER_BYTES + ".png"]
    path = tar_of(tmp_path / "a.tar", *map(tarfile.TarInfo, names), mode=mode, format=format)
    with pytest.raises(UserError, match=r"a.tar has a header of \d+ bytes"):
        prepare(path, tmp_path / "o.lmdb", 8, workers=1)
    assert not list(tmp_path.glob("*o.lmdb*"))
    long = tar_of(tmp_path / "b.tar", tarfile.TarInfo("y" * 4000 + "/a.png"), mode=mode, format=format)
    assert prepare(long, tmp_path / "o.lmdb", 8, workers=1).count == 1


def test_a_tar_that_leads_back_nests_or_collects_headers_ends(tmp_path, ends):
    back = tarfile.TarInfo("a.txt")
    back.pax_headers = {"size": "-1536"}
    path = tar_of(tmp_path / "a.tar", back, tarfile.TarInfo("b.png"), format=tarfile.PAX_FORMAT)
    with pytest.raises(UserError, match=r"damaged or incomplete \(negative size\)"):
        prepare(path, tmp_path / "o.lmdb", 8, workers=1)
    one = tarfile.TarInfo("././@LongLink")
    one.type, one.size = tarfile.GNUTYPE_LONGNAME, 2
    (tmp_path / "b.tar").write_bytes((one.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")) * 2000)
    with pytest.raises(UserError, match="damaged or incomplete"):
        prepare(tmp_path / "b.tar", tmp_path / "o.lmdb", 8, workers=1)
    with tarfile.open(tmp_path / "c.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.pax_headers = {f"comment{i}": "x" for i in range(200)}
        archive.fileobj.write(archive.tarinfo.create_pax_global_header(archive.pax_headers))
        archive.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(UserError, match="more than 100 global headers"):
        prepare(tmp_path / "c.tar", tmp_path / "o.lmdb", 8, workers=1)


@pytest.mark.parametrize("how", ["old", "1.0"])
def test_a_sparse_member_is_refused_with_the_remedy(tmp_path, how):
    member = tarfile.TarInfo("a.png")
    if how == "old":
        member.type = tarfile.GNUTYPE_SPARSE
    else:
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
    path = tar_of(tmp_path / "a.tar", tarfile.TarInfo("b.png"), member, format=tarfile.PAX_FORMAT)
    with pytest.raises(UserError, match="sparse member.*--sparse"):
        prepare(path, tmp_path / "o.lmdb", 8, workers=1)


def recipe(*resolutions):
    return Recipe(resolutions, "center", "lanczos", "raw", 95, False)


@pytest.mark.parametrize(
    "size, sides, most", [(60_000, (8,), 3), (500_000, (8,), 1), (10, (8,), 48), (10, (64, 128), 3)]
)
def test_what_is_held_for_the_workers_has_a_budget_in_bytes(monkeypatch, size, sides, most):
    monkeypatch.setattr(preparation, "BYTES_AHEAD", 100_000)
    submitted, yielded, held = 0, 0, []

    class Pool:
        def submit(self, function, chunk, recipe):
            nonlocal submitted
            submitted += len(chunk)
            future = Future()
            future.set_result(["skipped"] * len(chunk))
            return future

    items = [Item(str(i), ("bytes", bytes(size)), i) for i in range(100)]
    for _ in preparation._made(iter(items), recipe(*sides), Pool(), workers=2):
        held.append(submitted - yielded)
        yielded += 1
    assert yielded == 100 and max(held) == most


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_is_refused_before_it_is_opened(folder, tmp_path, monkeypatch, ends, kind):
    monkeypatch.chdir(tmp_path)  # The path of a socket must be short.

    def make(name):
        if kind == "pipe":
            os.mkfifo(name)
        elif kind == "device":
            os.symlink("/dev/zero", name)
        else:
            with socket.socket(socket.AF_UNIX) as opened:
                opened.bind(str(name))

    make("special")
    for name in ("special.txt", "special.tar", "special.lmdb"):
        os.symlink("special", name)
    for name in ("special", "special.txt", "special.tar"):
        assert prepare_command([name, "o.lmdb", "--resolution", "8"]) == 2
    assert prepare_command(["in", "special.lmdb", "--resolution", "8"]) == 2
    assert inspect_data(["special.lmdb"]) == 2
    os.mkdir("made.lmdb")
    os.symlink("../special", "made.lmdb/data.mdb")
    for data in (LmdbDataset("special.lmdb", 8), LmdbDataset("made.lmdb", 8), Zip("special", 8), Folder("special", 8)):
        with pytest.raises(UserError):
            data.prepare()
    os.symlink("../special", "in/dataset.json")
    os.symlink("../../special", "in/red/c.png")
    assert len(Folder("in", 8)) == 2
    with pytest.raises(UserError, match="dataset.json is not a file"):
        prepare(folder, tmp_path / "o.lmdb", 8, workers=1, labels=True)
    os.unlink("in/dataset.json")
    assert prepare(folder, tmp_path / "o.lmdb", 8, workers=1, labels=True).count == 2
    os.mkdir(".p.lmdb.partial")
    os.symlink("../special", ".p.lmdb.partial/lock")
    with pytest.raises(UserError, match="lock is not a regular file"):
        prepare(folder, tmp_path / "p.lmdb", 8, workers=1)
    data = Folder("in", 8)
    data.prepare()
    os.unlink("in/red/a.png")
    os.symlink("../../special", "in/red/a.png")
    with pytest.raises(UserError, match="not a regular file"):
        data[0]


@pytest.mark.parametrize("name", ["lock", "data.mdb"])
def test_a_beginning_that_holds_links_overwrites_nothing(folder, tmp_path, name):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".o.lmdb.partial").mkdir()
    (tmp_path / ".o.lmdb.partial" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=f"{name} is not a regular file; remove "):
        prepare(folder, tmp_path / "o.lmdb", 8, workers=1)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_list_without_line_ends_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 100_000)
    with pytest.raises(UserError, match="not a text file of paths"):
        prepare(tmp_path / "a.txt", tmp_path / "o.lmdb", 8, workers=1)


def test_damage_that_zipfile_reports_in_other_ways_is_one_line_or_one_skipped_image(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.png", encoded())
        archive.writestr("b\u00e9.png", encoded(colour="blue"))
    data = (tmp_path / "a.zip").read_bytes()
    broken = bz2.compress(b"")[4:10]  # The end of a stream, where a block should begin.
    (tmp_path / "b.zip").write_bytes(data.replace(b"BZh91AY&SY", b"BZh9" + broken, 1))
    result = prepare(tmp_path / "b.zip", tmp_path / "b.lmdb", 8, workers=1)
    assert result.count == 1 and result.skipped == {"a.png": "damaged in the zip"}
    (tmp_path / "c.zip").write_bytes(data.replace("b\u00e9".encode(), b"b\xff\xff"))
    with pytest.raises(UserError, match="is a damaged zip"):
        prepare(tmp_path / "c.zip", tmp_path / "c.lmdb", 8, workers=1)


HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e.png"


def test_names_and_manifests_are_shown_without_control_characters(folder, tmp_path, capsys, changed):
    (folder / "red" / HOSTILE).write_bytes(b"no image")
    assert prepare_command([str(folder), str(tmp_path / "\x1b.lmdb"), "--resolution", "8", "--workers", "1"]) == 0
    assert inspect_data([str(tmp_path / "\x1b.lmdb"), "--sheet", str(tmp_path / "\x1b.png")]) == 0
    path = changed({b"manifest": b'{"format_version": 1, "skipped": {}, "\\u001b[2J": "\\u001b]0;\\u0007"}'})
    assert inspect_data([str(path)]) == 0
    text = capsys.readouterr().out
    assert "\\x1b[2J\\x1b]0;owned\\x07\\u202e.png: does not decode" in text and "\\x1b[2J  \\x1b]0;\\x07" in text
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", ["..", "a/b", "a\\u0000b", "\\ud800"])
def test_a_class_that_names_no_folder_is_not_exported(changed, tmp_path, name):
    manifest = b'{"format_version": 1, "skipped": {}, "classes": ["%s"]}' % name.encode()
    assert inspect_data([str(changed({b"manifest": manifest})), "--export", str(tmp_path / "files" / "deep")]) == 2
    assert not list(tmp_path.rglob("0000*"))


def test_a_raw_record_of_another_length_is_one_line_in_an_export(folder, tmp_path):
    prepare(folder, tmp_path / "raw.lmdb", 8, storage="raw", workers=1)
    with lmdb.open(str(tmp_path / "raw.lmdb"), map_size=2**26, lock=False) as environment:
        with environment.begin(write=True) as put:
            put.put(b"8-00001", b"short")
    with pytest.raises(UserError, match="image 1 has 5 bytes"):
        list(Inspection(tmp_path / "raw.lmdb").export(tmp_path / "files"))
