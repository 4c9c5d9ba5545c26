"""Every source and every odd image, on real photographs of scikit-image."""

import io
import struct
import tarfile
import zipfile
import zlib

import lmdb
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from plugins.datasets.folder import Folder
from plugins.datasets.lmdb_dataset import LmdbDataset
from plugins.datasets.zip_dataset import Zip
from registry import UserError
from stylenat.data.images import Unusable, decode
from stylenat.data.lmdb_layout import open_layout
from stylenat.data.prepare import prepare


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for kind, names in {"animal": ["chelsea"], "thing": ["coffee", "rocket", "astronaut"]}.items():
        (folder / kind).mkdir()
        for name in names:
            Image.fromarray(getattr(skimage.data, name)()).reduce(3).save(folder / kind / f"{name}.png")
    (folder / "thing" / "notes.doc").write_text("no image")
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def as_zip(photos, out):
    with zipfile.ZipFile(out, "w") as archive:
        for path in files(photos):
            archive.write(path, path.relative_to(photos))


def as_tar(photos, out, mode="w"):
    with tarfile.open(out, mode) as archive:
        for path in files(photos):
            archive.add(path, path.relative_to(photos))


def as_list(photos, out):
    out.write_text("\n".join(str(path) for path in files(photos) if path.suffix == ".png") + "\n\n")


def images_of(path, resolution=24):
    data = LmdbDataset(str(path), resolution)
    return [data[i] for i in range(len(data))]


@pytest.mark.parametrize(
    "name, make",
    [("a.zip", as_zip), ("a.tar", as_tar), ("a.tgz", lambda p, o: as_tar(p, o, "w:gz")), ("a.txt", as_list)],
)
def test_every_source_gives_the_folders_images_in_its_order(photos, tmp_path, name, make):
    make(photos, tmp_path / name)
    direct = prepare(photos, tmp_path / "direct.lmdb", 24, workers=1, labels=True)
    other = prepare(tmp_path / name, tmp_path / "other.lmdb", 24, workers=1, labels=True)
    assert direct.count == other.count == 4
    assert direct.manifest["content_sha256"] == other.manifest["content_sha256"]
    assert direct.manifest["classes"] == other.manifest["classes"] == ["animal", "thing"]
    assert direct.manifest["ignored"] == 1 and not direct.skipped
    assert LmdbDataset(str(tmp_path / "other.lmdb"), 24).labels().tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("storage", ["png", "webp", "raw"])
def test_lossless_storage_keeps_every_pixel_through_another_lmdb(photos, tmp_path, storage):
    prepare(photos, tmp_path / "a.lmdb", (16, 24), storage=storage, workers=1)
    prepare(tmp_path / "a.lmdb", tmp_path / "b.lmdb", 24, workers=1)
    prepare(photos, tmp_path / "c.lmdb", 24, workers=1)
    a, b, c = (images_of(tmp_path / f"{name}.lmdb") for name in "abc")
    assert len(a) == 4 and all(torch.equal(x, y) and torch.equal(y, z) for x, y, z in zip(a, b, c, strict=True))
    assert images_of(tmp_path / "a.lmdb", 16)[0].shape == (3, 16, 16)


def test_jpeg_is_decoded_to_pillows_values(photos, tmp_path):
    prepare(photos, tmp_path / "a.lmdb", 24, storage="jpeg", jpeg_quality=90, workers=1)
    environment, _ = open_layout(tmp_path / "a.lmdb")
    with environment.begin() as transaction:
        pillow = np.asarray(Image.open(io.BytesIO(transaction.get(b"24-00000"))))
    assert (images_of(tmp_path / "a.lmdb")[0].permute(1, 2, 0).numpy() == pillow).all()


def test_the_reference_layout_without_a_manifest_is_read(photos, tmp_path):
    with lmdb.open(str(tmp_path / "theirs"), map_size=2**24) as environment, environment.begin(write=True) as put:
        for i, path in enumerate(path for path in files(photos) if path.suffix == ".png"):
            image, out = Image.open(path).resize((24, 24)), io.BytesIO()
            image.save(out, format="jpeg" if i % 2 else "png")
            put.put(f"24-{i:05d}".encode(), out.getvalue())
        put.put(b"length", b"4")
    assert len(images_of(tmp_path / "theirs")) == 4
    assert prepare(tmp_path / "theirs", tmp_path / "ours.lmdb", 12, workers=1).count == 4


def test_the_zip_data_set_equals_the_prepared_one(photos, tmp_path):
    as_zip(photos, tmp_path / "a.zip")
    prepare(tmp_path / "a.zip", tmp_path / "a.lmdb", 24, workers=1)
    direct = Zip(str(tmp_path / "a.zip"), 24)
    assert len(direct) == 4
    assert all(torch.equal(direct[i], image) for i, image in enumerate(images_of(tmp_path / "a.lmdb")))
    with pytest.raises(UserError, match="is not a zip"):
        Zip(str(photos), 24).prepare()


def test_classes_are_carried_over_from_an_lmdb_and_asked_for_in_vain_where_it_has_none(photos, tmp_path):
    for name, labels in (("labelled", True), ("plain", False)):
        prepare(photos, tmp_path / f"{name}.lmdb", 24, workers=1, labels=labels)
    prepare(tmp_path / "labelled.lmdb", tmp_path / "again.lmdb", 12, workers=2, labels=True)
    again = LmdbDataset(str(tmp_path / "again.lmdb"), 12)
    assert again.classes == ["animal", "thing"]
    assert again.labels().tolist() == [0, 1, 1, 1]
    with pytest.raises(UserError, match="plain.lmdb was made without --labels"):
        prepare(tmp_path / "plain.lmdb", tmp_path / "none.lmdb", 12, labels=True)
    assert not list(tmp_path.glob("*none*"))


@pytest.mark.parametrize("dataset", [Folder, Zip])
@pytest.mark.parametrize("content, reason", [(b"", "no image"), (b"<html>", "no image"), ("wide", "not square")])
def test_a_file_that_is_no_image_is_named_before_a_run_begins(photos, tmp_path, dataset, content, reason):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (30, 30)).save(folder / "a.png")
    if content == "wide":
        Image.new("RGB", (40, 30)).save(folder / "sub" / "odd.png")
    else:
        (folder / "sub" / "odd.png").write_bytes(content)
    as_zip(folder, tmp_path / "photos.zip")
    data = dataset(str(folder if dataset is Folder else tmp_path / "photos.zip"), 24, crop="none")
    with pytest.raises(UserError, match=f"sub/odd.png: {reason}.*remove it, or "):
        data.prepare()


def test_a_truncated_tar_and_a_zip_of_nonsense_say_so(photos, tmp_path):
    as_tar(photos, tmp_path / "a.tgz", "w:gz")
    whole = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged or incomplete"):
        prepare(tmp_path / "a.tgz", tmp_path / "o.lmdb", 24, workers=1)
    (tmp_path / "b.bin").write_bytes(b"\1nonsense")
    with pytest.raises(UserError, match="unsupported source; expected a folder, zip, tar"):
        prepare(tmp_path / "b.bin", tmp_path / "p.lmdb", 24, workers=1)


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def bomb():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_odd_images_follow_their_rules():
    cat = Image.fromarray(skimage.data.chelsea())
    assert decode(encoded(cat.convert("CMYK"), "jpeg")).mode == "RGB"
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    assert decode(encoded(first, "gif", save_all=True, append_images=[second])).getpixel((0, 0)) == (255, 0, 0)
    assert decode(encoded(cat.quantize(64), "png")).size == cat.size
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(cat, "jpeg", exif=exif)).size == cat.size[::-1]
    sixteen = Image.fromarray(np.array([[0, 128, 129, 32896, 65535]], dtype=np.uint16))
    assert [p[0] for p in np.asarray(decode(encoded(sixteen, "png")))[0]] == [0, 0, 1, 128, 255]
    assert decode(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "png")).getpixel((0, 0)) == (255, 255, 255)
    for data, reason in [
        (b"", "empty"),
        (b"nonsense", "does not decode"),
        (encoded(cat, "png")[:5000], "does not decode"),
        (bomb(), "bomb"),
        (encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "tiff"), "floating-point"),
    ]:
        with pytest.raises(Unusable, match=reason):
            decode(data)
