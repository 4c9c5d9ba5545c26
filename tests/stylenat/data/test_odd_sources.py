"""Sources that are not a plain folder of common images: what is read of them, and what is said of the rest."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from functools import partial
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from PIL import AvifImagePlugin, Image, ImageFile

from plugins.datasets.folder import Folder
from plugins.datasets.lmdb_dataset import LmdbDataset
from plugins.datasets.zip_dataset import Zip
from registry import UserError
from stylenat.commands.prepare import main
from stylenat.data import formats
from stylenat.data.contents import content_of
from stylenat.data.formats import Unusable
from stylenat.data.ignored import REASONS, Ignored
from stylenat.data.images import decode, read_image
from stylenat.data.prepare import prepare

# The same bytes in every process: they are part of the tests' names.
gz = partial(gzip.compress, mtime=0)


def encoded(image, format="png", **options):
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def shade(level, size=(8, 8)):
    return Image.new("RGB", size, (level, level, level))


def levels(path, resolution=8):
    data = LmdbDataset(str(path), resolution)
    return [int(data[i].float().mean().round()) for i in range(len(data))]


@pytest.fixture
def mixed(tmp_path):
    """A folder of one image and of files that are ignored for several reasons."""
    folder = tmp_path / "mixed"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "c.png").write_bytes(encoded(shade(3)))
    (tmp_path / "elsewhere").mkdir()
    (folder / "away").symlink_to(tmp_path / "elsewhere")
    (folder / "broken.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    (folder / "a.png").write_bytes(encoded(shade(1)))
    for name in ("a.TXT", "b.txt", "labels.csv", "LICENSE", ".hidden.png"):
        (folder / name).write_text("text")
    return folder


WHY = {".txt": 2, ".csv": 1, "without a suffix": 1, "hidden": 2, "links to folders": 1, "links": 1,
       "pipes or devices": 1}  # fmt: skip


def test_ignored_files_are_counted_by_reason_and_suffix(mixed, tmp_path, capsys):
    assert main([str(mixed), str(tmp_path / "o.lmdb"), "--resolution", "8", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "ignored files: 2 .txt, 2 hidden, 1 .csv, " in text and "--follow-links" in text
    manifest = LmdbDataset(str(tmp_path / "o.lmdb"), 8).layout.manifest
    assert manifest["ignored_by"] == WHY and manifest["ignored"] == sum(WHY.values())
    with pytest.warns(UserWarning, match="mixed: ignored files: 2 .txt, 2 hidden, 1 .csv"):
        assert len(Folder(str(mixed), 8)) == 1


def test_ignored_members_of_archives_are_counted_too(tmp_path):
    data = encoded(shade(1))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.png", "b.npy", "c.npy", "__MACOSX/a.png"):
            archive.writestr(name, data)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("a.png", b"0"), ("b.npy", b"0"), ("l.png", tarfile.SYMTYPE), ("p", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data) if kind == b"0" else 0
            archive.addfile(member, io.BytesIO(data))
    of_zip = prepare(tmp_path / "a.zip", tmp_path / "zip.lmdb", 8, workers=1).manifest["ignored_by"]
    of_tar = prepare(tmp_path / "a.tar", tmp_path / "tar.lmdb", 8, workers=1).manifest["ignored_by"]
    assert of_zip == {".npy": 2, "hidden": 1}
    assert of_tar == {".npy": 1, "links": 1, "pipes or devices": 1}
    with pytest.warns(UserWarning, match="a.zip: ignored files: 2 .npy, 1 hidden"):
        Zip(str(tmp_path / "a.zip"), 8).prepare()


def test_names_made_up_by_others_fill_neither_memory_nor_the_screen():
    ignored = Ignored()
    for i in range(10 * REASONS):
        ignored.add_file(f"a.{i}")
    ignored.add_file("a." + "x" * 1000)
    assert len(ignored) <= REASONS + 1 and ignored.total() == 10 * REASONS + 1
    assert len(str(ignored)) < 200 and str(ignored).endswith(" others")


def test_a_source_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.npy").write_bytes(b"")
    for use in (lambda: prepare(tmp_path / "in", tmp_path / "o.lmdb", 8), Folder(str(tmp_path / "in"), 8).prepare):
        with pytest.raises(UserError, match="no images below .*in; images are files such as .*; ignored: 1 .npy"):
            use()


def test_skipped_images_are_counted_by_reason(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name, data in {"a": encoded(shade(1)), "b": b"", "c": b"<!DOCTYPE html>", "d": b"<html>"}.items():
        (tmp_path / "in" / f"{name}.png").write_bytes(data)
    assert main([str(tmp_path / "in"), str(tmp_path / "o.lmdb"), "--resolution", "8", "--workers", "1"]) == 0
    text = capsys.readouterr().out
    assert "skipped 3: 2 does not decode (the file is an HTML page), 1 empty file" in text


def test_linked_folders_are_entered_once_each_when_asked(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    (inside / "m").mkdir(parents=True)
    (outside / "sub").mkdir(parents=True)
    for level, path in ((10, inside / "m"), (20, outside), (30, outside / "sub")):
        (path / "a.png").write_bytes(encoded(shade(level)))
    (inside / "a").symlink_to(outside)
    (inside / "z").symlink_to(outside / "sub")
    (outside / "back").symlink_to(inside)
    (outside / "self").symlink_to("self")
    direct = prepare(inside, tmp_path / "direct.lmdb", 8, workers=1)
    assert levels(tmp_path / "direct.lmdb") == [10] and direct.manifest["ignored_by"] == {"links to folders": 2}
    followed = prepare(inside, tmp_path / "followed.lmdb", 8, workers=1, follow_links=True, labels=True)
    assert levels(tmp_path / "followed.lmdb") == [20, 30, 10]
    assert followed.manifest["classes"] == ["a", "sub", "m"]
    assert followed.manifest["ignored_by"] == {"links to folders": 2, "links": 1}
    with pytest.warns(UserWarning, match="ignored"):
        assert len(Folder(str(inside), 8, follow_links=True)) == 3
    with pytest.raises(UserError, match="follow_links True, not False"):
        prepare(inside, tmp_path / "followed.lmdb", 8, workers=1, labels=True)


def lsun(path, records):
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)


def test_lsuns_lmdb_of_hashed_keys_is_a_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stylenat.data.lmdb_unnumbered.AT_ONCE", 3)
    keys = [hashlib.sha1(bytes([i])).hexdigest().encode() for i in range(8)]
    formats = ["webp", "jpeg"]
    records = {key: encoded(shade(20 * i, (12, 8)), formats[i % 2]) for i, key in enumerate(keys)}
    records[b"\xff" * 511] = encoded(shade(200))  # Any bytes, up to LMDB's limit.
    lsun(tmp_path / "church", records)
    for source in (tmp_path / "church", tmp_path / "church" / "data.mdb"):
        out = tmp_path / f"{source.name}.lmdb"
        assert main([str(source), str(out), "--resolution", "8", "--workers", "2"]) == 0
        assert levels(out) == [20 * i for i in sorted(range(8), key=lambda i: keys[i])] + [200]
        assert LmdbDataset(str(out), 8).layout.manifest["source_kind"] == "unnumbered lmdb"
    assert main([str(tmp_path / "church"), str(tmp_path / "l.lmdb"), "--resolution", "8", "--labels"]) == 2
    assert "leave out --labels" in capsys.readouterr().err
    with pytest.raises(UserError, match="no `length`.*LSUN.*tools/prepare.py"):
        LmdbDataset(str(tmp_path / "church"), 8).prepare()


def test_an_lmdb_of_other_things_is_no_source(tmp_path):
    lsun(tmp_path / "datum", {b"00000000": pickle.dumps([1, 2, 3]), b"1": encoded(shade(1))})
    lsun(tmp_path / "empty", {})
    for name in ("datum", "empty"):
        with pytest.raises(UserError, match="no `length` or no images"):
            prepare(tmp_path / name, tmp_path / "o.lmdb", 8, workers=1)


IDX = struct.pack(">HBBIII", 0, 8, 3, 60000, 28, 28) + bytes(1000)
NUMPY = io.BytesIO()
np.save(NUMPY, np.zeros(3))


@pytest.mark.parametrize(
    "name, data, said",
    [
        ("train-images-idx3-ubyte.gz", gz(IDX), "an IDX array of 60000x28x28 .MNIST.*write its images"),
        ("train-images-idx3-ubyte", IDX, "an IDX array of 60000x28x28"),
        ("data_batch_1", pickle.dumps({b"data": 1}), "a Python pickle; write its images"),
        ("a.npy", NUMPY.getvalue(), "a NumPy array; write its images"),
        ("a.parquet", b"PAR1" + bytes(9), "a Parquet table; write its images"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(9), "an HDF5 file"),
        ("a.png", encoded(shade(1)), "a PNG image; give the folder"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(9), "a 7z archive; unpack it"),
        ("a.gz", gz(bytes(9)), "gzip-compressed data; unpack it"),
        ("paths.csv", b"a.png\nb.png\n", "text; rename a list of paths to NAME.txt"),
        ("faces.zip", b"<!DOCTYPE html><html>", "is empty, damaged or incomplete"),
        ("faces.zip", b"PK\3\4" + bytes(9), "is empty, damaged or incomplete"),
        ("faces.tar.gz", gz(bytes(9)), "is empty, damaged or incomplete"),
        ("faces.gz", b"", "is empty, damaged or incomplete"),
        ("faces.bin", bytes(9), "an unsupported source; expected a folder"),
    ],
)
def test_a_file_that_is_no_source_is_called_what_it_is(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} .*{said}"):
        prepare(tmp_path / name, tmp_path / "o.lmdb", 8, workers=1)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "jpeg2000", "avif"])
def test_what_pillow_writes_is_recognized_by_its_first_bytes(format):
    content = content_of(encoded(shade(1), format)[:512])
    assert content.is_image and format.replace("2000", "") in content.name.lower()


def test_first_bytes_of_any_kind_are_looked_at_without_an_error():
    rng = np.random.default_rng(0)
    starts = [
        b"\x1f\x8b",
        b"\0\0\x08\x03",
        b"<",
        b"\xff\xfe",
        gz(b"")[:12],
        gz(gz(IDX)),
    ]
    for i in range(600):
        head = starts[i % len(starts)] + rng.bytes(i % 40)
        assert content_of(head[:512]) is None or content_of(head[:512]).name


def test_an_image_that_this_pillow_cannot_decode_is_named_with_the_remedy(monkeypatch):
    avif, jp2, webp = (encoded(shade(1), format) for format in ("avif", "jpeg2000", "webp"))
    decode(jp2)
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    monkeypatch.setattr("PIL.WebPImagePlugin.SUPPORTED", False)
    for way in ("encoder", "decoder"):
        monkeypatch.delattr(Image.core, f"jpeg2k_{way}")
    monkeypatch.setattr("PIL.features.check_module", lambda name: False)
    for data, name in ((avif, "AVIF"), (jp2, "JPEG 2000"), (webp, "WebP")):
        with pytest.raises(Unusable, match=f"{name}, for which the installed Pillow has no decoder; .*pip install"):
            decode(data)


class Heif(ImageFile.ImageFile):
    """As the plugin's, of files that a test makes: a header of HEIC, then one grey level."""

    format = "HEIF"

    def _open(self):
        self._size, self._mode = (8, 8), "L"
        self.fp.seek(12)
        self._level = self.fp.read(1)[0]
        self.tile = []

    def load(self):
        self.im = Image.new("L", self.size, self._level).im


HEIC = b"\0\0\0\x18ftypheic" + bytes([77])


@pytest.fixture
def heic(monkeypatch):
    """Sets whether ``pillow_heif`` can be imported."""

    def install(module):
        monkeypatch.setitem(sys.modules, "pillow_heif", module)
        formats._formats.cache_clear()

    Image.init()
    monkeypatch.setattr(Image, "OPEN", {name: how for name, how in Image.OPEN.items() if name != "HEIF"})
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    yield install
    formats._formats.cache_clear()


def test_heic_is_read_with_its_plugin_and_names_it_otherwise(heic, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.heic").write_bytes(HEIC)
    heic(None)
    with pytest.raises(UserError, match="a.heic: HEIC, which Pillow reads with a plugin only: pip install pillow-heif"):
        Folder(str(tmp_path / "in"), 8).prepare()
    register = lambda: Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")  # noqa: E731
    heic(SimpleNamespace(register_heif_opener=register))
    assert (Folder(str(tmp_path / "in"), 8)[0] == 77).all()


def test_a_heic_of_the_real_plugin_is_read():
    plugin = pytest.importorskip("pillow_heif")
    plugin.register_heif_opener()
    assert abs(np.asarray(decode(encoded(shade(100, (64, 64)), "heif", quality=90))).astype(int) - 100).max() < 5


@pytest.mark.parametrize("format", ["gif", "png", "webp", "tiff", "avif"])
def test_of_several_frames_the_first_is_taken_and_they_are_counted(tmp_path, capsys, format):
    frames = [shade(40), shade(200)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert read_image(data).notes == ("several_frames",)
    assert read_image(encoded(frames[0], format)).notes == ()
    assert abs(np.asarray(decode(data)).astype(int) - 40).max() <= 2
    if format != "gif":
        return
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.gif").write_bytes(data)
    (tmp_path / "in" / "b.gif").write_bytes(data[:-30])  # Damage behind the first frame is no damage of it.
    assert main([str(tmp_path / "in"), str(tmp_path / "o.lmdb"), "--resolution", "8", "--workers", "1"]) == 0
    assert "2 images are animated or have several pages; the first was taken" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="some images are animated"):
        Folder(str(tmp_path / "in"), 8)[0]


def test_a_telephones_jpeg_with_a_second_picture_is_not_called_animated():
    data = encoded(shade(40), "mpo", save_all=True, append_images=[shade(200)])
    assert read_image(data).notes == ()


@pytest.fixture
def wide():
    """Red, green and blue from left to right, 24x8."""
    pixels = np.zeros((8, 24, 3), np.uint8)
    for channel in range(3):
        pixels[:, 8 * channel : 8 * channel + 8, channel] = 255
    return Image.fromarray(pixels)


def test_what_is_not_square_is_cropped_padded_or_stretched(tmp_path, wide):
    (tmp_path / "in").mkdir()
    wide.save(tmp_path / "in" / "a.png")
    wide.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "in" / "b.png")
    made = {}
    for fit in ("crop", "pad", "stretch"):
        arguments = [str(tmp_path / "in"), str(tmp_path / f"{fit}.lmdb"), "--resolution", "24", "--workers", "1"]
        assert main([*arguments, "--fit", fit, "--filter", "nearest"]) == 0
        images, direct = LmdbDataset(str(tmp_path / f"{fit}.lmdb"), 24), Folder(str(tmp_path / "in"), 24, fit=fit)
        assert direct[0].shape == (3, 24, 24)
        assert (images[0].transpose(1, 2) == images[1]).all()
        made[fit] = images[0].permute(1, 2, 0).numpy()
        enlarged = images.layout.manifest["enlarged"]
        assert enlarged == (0 if fit == "pad" else 2)
    assert (made["crop"] == [0, 255, 0]).all()
    assert (made["stretch"] == np.repeat(np.asarray(wide), 3, axis=0)).all()
    assert (made["pad"][8:16] == np.asarray(wide)).all()
    assert not made["pad"][:8].any() and not made["pad"][16:].any()


def test_an_image_of_one_line_is_padded_too(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (4000, 1), "white").save(tmp_path / "in" / "a.png")
    assert Folder(str(tmp_path / "in"), 8, fit="pad")[0].sum() == 3 * 8 * 255


def test_fits_that_contradict_each_other_or_what_is_there_are_refused(tmp_path, wide, capsys):
    (tmp_path / "in").mkdir()
    wide.save(tmp_path / "in" / "a.png")
    arguments = [str(tmp_path / "in"), str(tmp_path / "o.lmdb"), "--resolution", "8", "--workers", "1"]
    assert main([*arguments, "--crop", "none", "--fit", "pad"]) == 2
    assert "leave out one of the two" in capsys.readouterr().err
    for kind in (Folder, Zip):
        with pytest.raises(UserError, match="leave out one of the two"):
            kind(str(tmp_path), 8, crop="none", fit="stretch")
    assert main(arguments) == 0
    assert main([*arguments, "--fit", "pad"]) == 2
    assert "made with fit crop, not pad" in capsys.readouterr().err
