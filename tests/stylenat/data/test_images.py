"""Image files of unusual kinds give the right pixels, or are skipped with the reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from plugins.datasets.folder import Folder
from plugins.datasets.zip_dataset import Zip
from stylenat.commands.prepare import main
from stylenat.data.decoders import decode_pixels
from stylenat.data.formats import Unusable, is_image_name
from stylenat.data.images import decode, read_image
from stylenat.data.lmdb_images import LmdbImages
from stylenat.data.prepare import prepare

CHART = Image.fromarray(skimage.data.chelsea()[:64, 100:164])
GREY = np.asarray(CHART.convert("L"))


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


def grey(data):
    pixels = np.asarray(decode(data))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].astype(int)


def tiff(values, samples=1, **tags):
    """A TIFF of one strip (a strip for each plane, where they are separate)."""
    numbers = {"width": 256, "bits": 258, "compression": 259, "photometric": 262, "planar": 284, "sample_format": 339}
    height, width = values.shape[-2:] if tags.get("planar") == 2 else values.shape[:2]
    entries = ImageFileDirectory_v2(prefix=b"II")
    entries.tagtype |= {257: 4, 258: 3, 259: 3, 262: 3, 273: 4, 277: 3, 278: 4, 279: 4, 284: 3, 339: 3}
    bits = 8 * values.itemsize
    defaults = {256: width, 257: height, 258: (bits,) * samples, 259: 1, 262: 1, 277: samples, 278: height}
    strips = samples if tags.get("planar") == 2 else 1
    entries.update(defaults | {numbers[name]: value for name, value in tags.items()})
    pack = zlib.compress if tags.get("compression") == 8 else bytes
    data = [pack(plane.tobytes()) for plane in (values if strips > 1 else [values])]
    entries[279] = tuple(map(len, data))
    entries[273] = tuple(sum(map(len, data[:i])) for i in range(strips))  # Pillow adds where they begin.
    return b"II*\0" + struct.pack("<I", 8) + entries.tobytes(8) + b"".join(data)


def png(width, bits, colour, row, transparent):
    """A PNG of one row in which one value is transparent."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def profile(gamma, red, green, blue):
    """An RGB profile (ICC 2) of primaries in D50 and one gamma, by hand: LittleCMS's Python API makes only sRGB's."""

    def number(value):
        return struct.pack(">i", round(value * 65536))

    def curve():
        return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)

    def xyz(values):
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    tags = {b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue), b"wtpt": xyz((0.9642, 1, 0.8249)),
            b"rTRC": curve(), b"gTRC": curve(), b"bTRC": curve()}  # fmt: skip
    return assembled(b"RGB ", tags)


def grey_profile(gamma):
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    return assembled(
        b"GRAY", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0), b"wtpt": white}
    )


def assembled(space, tags):
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(data), len(value))
        data += value
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


ADOBE = profile(2.2, (0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb_of(image, profile):
    described = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return np.asarray(ImageCms.profileToProfile(image, described, ImageCms.createProfile("sRGB"), outputMode="RGB"))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_deep_greys_that_use_little_of_their_range_are_counted_and_the_last_line_says_so(tmp_path, capsys, dtype):
    (tmp_path / "in").mkdir()
    Image.fromarray(GREY.astype(dtype)).save(tmp_path / "in" / "dark.tif")
    Image.fromarray(GREY.astype(dtype) * 257).save(tmp_path / "in" / "full.tif")
    (tmp_path / "in" / "odd.png").write_bytes(b"no image")
    assert main([str(tmp_path / "in"), str(tmp_path / "out.lmdb"), "--resolution", "64", "--workers", "1"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("1 16- or 32-bit images use less than a sixteenth of their range") and "65535" in last
    assert LmdbImages(str(tmp_path / "out.lmdb"), 64).layout.manifest["narrow_range"] == 1
    (tmp_path / "in" / "odd.png").unlink()
    with pytest.warns(UserWarning, match="in: some 16- .* less than a sixteenth of their range") as warned:
        [Folder(str(tmp_path / "in"), 64)[0] for _ in range(2)]
    assert len(warned) == 1


def deep_png(colour, values):
    """A PNG with 16 bits in each channel of values [height, width, channels], as Pillow does not write it."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("scale, notes", [(1, ("narrow_range",)), (257, ())])
def test_deep_colours_that_use_little_of_their_range_are_counted_too(scale, notes):
    colours = np.stack([GREY, GREY.T, GREY[::-1]], axis=-1).astype(np.uint16) * scale
    opaque, hidden = np.full_like(colours[..., :1], 65535), np.zeros_like(colours[..., :1])
    assert read_image(deep_png(2, colours)).notes == notes
    assert read_image(tiff(colours, 3, photometric=2)).notes == notes
    assert read_image(deep_png(4, np.concatenate([colours[..., :1], opaque], axis=-1))).notes == notes
    rgba = np.concatenate([colours, opaque], axis=-1)
    rgba[:10] = 65535
    rgba[:10, :, 3:] = 0
    assert read_image(deep_png(6, rgba)).notes == notes
    assert read_image(deep_png(6, np.concatenate([colours, hidden], axis=-1))).notes == ()
    assert read_image(deep_png(2, np.full_like(colours, 65535))).notes == ()


def test_a_transparent_value_of_a_16_bit_grey_lies_over_white_and_does_not_count_as_range():
    values = GREY.astype(np.uint16) * 257
    values[10:30, 10:30] = 1234
    data = encoded(Image.fromarray(values), "png", transparency=1234)
    assert (grey(data)[10:30, 10:30] == 255).all() and (grey(data)[:10] == GREY[:10]).all()
    for rest, notes in ((40000, ("narrow_range",)), (65535, ()), (0, ())):
        values[values != 1234] = rest
        assert read_image(encoded(Image.fromarray(values), "png", transparency=1234)).notes == notes


@pytest.mark.parametrize(
    "data, opaque",
    [
        (png(2, 4, 0, b"\x5f", struct.pack(">H", 15)), [(85,) * 3, (255,) * 3]),
        (png(4, 2, 0, b"\x1b", struct.pack(">H", 1)), [(0,) * 3, (255,) * 3, (170,) * 3, (255,) * 3]),
        (png(2, 16, 2, struct.pack(">6H", 4660, 22136, 39612, 256, 512, 768), struct.pack(">3H", 4660, 22136, 39612)),
         [(255,) * 3, (1, 2, 3)]),
    ],
)  # fmt: skip
def test_the_transparent_value_of_a_png_is_that_of_its_own_depth(data, opaque):
    assert [tuple(pixel) for pixel in np.asarray(decode(data))[0].tolist()] == opaque


def test_16_bit_white_is_zero_is_not_inverted_and_12_bits_have_their_own_white():
    values = GREY.astype(np.uint16) * 257
    assert (grey(tiff(65535 - values, photometric=0)) == GREY).all()
    assert (grey(tiff(values, photometric=1)) == GREY).all()
    twelve = np.arange(0, 4096, 64, dtype=np.uint16)
    packed = np.stack([twelve[0::2] >> 4, (twelve[0::2] & 15) << 4 | twelve[1::2] >> 8, twelve[1::2] & 255], axis=1)
    strip = packed.astype(np.uint8).reshape(1, -1)
    data = tiff(strip, bits=(12,), width=64)
    assert (abs(grey(data)[0] - twelve.astype(float) * 255 / 4095) <= 0.5).all()


@pytest.mark.parametrize(
    "data, reason",
    [
        (tiff(np.zeros((8, 8, 3), np.float32), 3, photometric=2, sample_format=(3, 3, 3)), "floating-point pixels"),
        (tiff(np.zeros((8, 8), np.float32), sample_format=3), "floating-point pixels"),
        (tiff(np.zeros((8, 8, 3), np.uint32), 3, photometric=2), "TIFF of a kind that Pillow does not read .bits"),
        (tiff(np.zeros((3, 8, 8), np.uint16), 3, photometric=2, planar=2), "separate planes"),
        (tiff(np.zeros((8, 8), np.int8), sample_format=2), "signed 8-bit pixels"),
        (encoded(Image.new("LAB", (8, 8)), "tiff"), "Lab colours"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused_with_the_reason(tmp_path, data, reason):
    with pytest.raises(Unusable, match=reason):
        decode(data)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(data)
    assert prepare(tmp_path, tmp_path / "o.lmdb", 8, workers=1).skipped["b.tif"].count(reason[:15])


def test_postscript_is_not_given_to_ghostscript_whatever_its_suffix(monkeypatch):
    def run(*_, **__):
        raise AssertionError("run")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    data = encoded(CHART, "eps")
    with pytest.raises(AssertionError, match="run"):
        Image.open(io.BytesIO(data)).load()
    with pytest.raises(Unusable, match="does not decode") as caught:
        decode(data)
    assert isinstance(caught.value.__cause__, UnidentifiedImageError)


def test_separate_planes_of_8_bits_and_compressed_ones_of_16_are_read():
    pixels = np.asarray(CHART)
    planes = np.moveaxis(pixels, 2, 0).copy()
    assert (np.asarray(decode(tiff(planes, 3, photometric=2, planar=2))) == pixels).all()
    deep = tiff(planes.astype(np.uint16) * 257, 3, photometric=2, planar=2, compression=8)
    assert (np.asarray(decode(deep)) == pixels).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_only_its_end_marker_is_read(options, mode):
    data = encoded(CHART.convert(mode), "jpeg", quality=95, **options)
    for missing in (1, 2):
        assert (np.asarray(decode(data[:-missing])) == np.asarray(decode(data))).all()
        assert torch.equal(decode_pixels(data[:-missing], 64), decode_pixels(data, 64)) or mode == "CMYK"
    for missing in (20, len(data) // 2):
        with pytest.raises(Unusable, match="does not decode"):
            decode(data[:-missing])


@pytest.mark.parametrize(
    "suffix, format",
    [("jfif", "jpeg"), ("jpe", "jpeg"), ("pgm", "ppm"), ("pbm", "ppm"), ("ppm", "ppm"), ("jp2", "jpeg2000"),
     ("tga", "tga"), ("avif", "avif")],
)  # fmt: skip
def test_less_common_suffixes_are_images(suffix, format):
    Image.init()
    if format.upper() not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {format}")
    image = CHART.convert({"pgm": "L", "pbm": "1"}.get(suffix, "RGB"))
    data = encoded(image, format)
    assert is_image_name(f"a/b.{suffix}")
    assert (np.asarray(decode(data)) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff", "webp"])
def test_an_embedded_profile_is_converted_to_srgb(format):
    data = encoded(CHART, format, icc_profile=ADOBE)
    pixels = Image.open(io.BytesIO(data)).convert("RGB")
    decoded = read_image(data)
    wanted = srgb_of(pixels, ADOBE)
    assert decoded.notes == ("profiles_converted",) and (np.asarray(decoded.image) == wanted).all()
    assert abs(wanted.astype(int) - np.asarray(pixels)).mean() > 3
    assert (np.asarray(decode(data, keep_profiles=True)) == np.asarray(pixels)).all()


def test_a_profile_applies_to_grey_and_transparent_images():
    gamma = grey_profile(1.0)
    wanted = srgb_of(CHART.convert("L"), gamma)
    decoded = read_image(encoded(CHART.convert("L"), "png", icc_profile=gamma))
    assert decoded.notes == ("profiles_converted",) and (np.asarray(decoded.image) == wanted).all()
    deep = encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "png", icc_profile=gamma)
    assert (np.asarray(decode(deep)) == wanted).all()
    clear = CHART.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(GREY > 99, 255, 0).astype(np.uint8)))
    over_white = np.where(GREY[..., None] > 99, srgb_of(CHART, ADOBE), 255)
    assert (np.asarray(decode(encoded(clear, "png", icc_profile=ADOBE))) == over_white).all()
    in_colours = encoded(CHART.convert("L"), "png", icc_profile=ADOBE)  # Greys with the profile of a colour space.
    assert read_image(in_colours).notes == ("profiles_converted",)


def test_a_profile_of_srgb_changes_nothing_and_a_broken_one_is_no_failure_of_the_image():
    plain = np.asarray(CHART)
    for profile, notes in [(SRGB, ()), (b"nonsense", ("profiles_broken",)), (ADOBE[:300], ("profiles_broken",)),
                           (grey_profile(2.2), ("profiles_broken",))]:  # fmt: skip
        decoded = read_image(encoded(CHART, "png", icc_profile=profile))
        assert decoded.notes == notes and (np.asarray(decoded.image) == plain).all()


def test_a_cmyk_profile_is_applied():
    """A table of two levels an ink, as a press's profile has of nine: paper's Lab minus what the inks take."""
    inks = np.stack(np.meshgrid(*[[0.0, 1.0]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = 100 * np.prod(1 - inks * [0.3, 0.5, 0.1, 0.9], axis=1)
    a, b = 60 * (inks[:, 1] - inks[:, 0]) * (1 - inks[:, 3]), 60 * (inks[:, 2] - inks[:, 0]) * (1 - inks[:, 3])
    lab = np.stack([light * 2.55, a + 128, b + 128], 1).round().astype(np.uint8)
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + struct.pack(">BBBx", 4, 3, 2) + identity + bytes(range(256)) * 4 + lab.tobytes()
    table += bytes(range(256)) * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    press = bytearray(assembled(b"CMYK", {b"A2B0": table, b"wtpt": white}))
    press[12:16], press[20:24] = b"prtr", b"Lab "
    image = CHART.convert("CMYK")
    data = encoded(image, "tiff", icc_profile=bytes(press))
    decoded = read_image(data)
    assert decoded.notes == ("profiles_converted",)
    assert (np.asarray(decoded.image) == srgb_of(image, bytes(press))).all()
    assert abs(np.asarray(decoded.image).astype(int) - np.asarray(image.convert("RGB"))).mean() > 3


@pytest.mark.parametrize("storage", ["png", "jpeg", "webp", "raw"])
def test_preparation_converts_once_and_counts(tmp_path, capsys, storage):
    folder = tmp_path / "in"
    folder.mkdir()
    CHART.save(folder / "a.png", icc_profile=ADOBE)
    CHART.save(folder / "b.png", icc_profile=b"broken")
    CHART.save(folder / "c.png")
    CHART.convert("L").save(folder / "d.png", icc_profile=grey_profile(2.2))
    arguments = ["--resolution", "64", "--storage", storage, "--workers", "1"]
    assert main([str(folder), str(tmp_path / "out.lmdb"), *arguments]) == 0
    text = capsys.readouterr().out
    assert "2 had a colour profile and were converted" in text and "1 had a colour profile that cannot be used" in text
    direct, made = Folder(str(folder), 64), LmdbImages(str(tmp_path / "out.lmdb"), 64)
    again = prepare(tmp_path / "out.lmdb", tmp_path / "again.lmdb", 64, storage="raw", workers=1)
    # The records are sRGB, and say nothing else.
    assert again.manifest["profiles_converted"] == again.manifest["profiles_broken"] == 0
    if storage != "jpeg":
        assert all(torch.equal(direct[i], made[i]) for i in range(4))

    assert main([str(folder), str(tmp_path / "kept.lmdb"), *arguments, "--keep-profiles"]) == 0
    kept = LmdbImages(str(tmp_path / "kept.lmdb"), 64)
    if storage != "jpeg":
        assert torch.equal(kept[0], kept[2])
    later = prepare(tmp_path / "kept.lmdb", tmp_path / "later.lmdb", 64, storage="raw", workers=1)
    assert later.manifest["profiles_converted"] == later.manifest["profiles_broken"] == (storage != "raw")


def test_the_data_sets_of_files_convert_profiles_or_keep_them(tmp_path):
    import zipfile

    CHART.save(tmp_path / "a.png", icc_profile=ADOBE)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    wanted = torch.from_numpy(srgb_of(CHART, ADOBE).copy()).permute(2, 0, 1)
    plain = torch.from_numpy(np.array(CHART)).permute(2, 0, 1)
    for kind, path in ((Folder, tmp_path), (Zip, tmp_path / "a.zip")):
        assert torch.equal(kind(str(path), 64)[0], wanted)
        assert torch.equal(kind(str(path), 64, keep_profiles=True)[0], plain)


def test_what_an_earlier_version_made_is_left_alone_but_not_continued(tmp_path, capsys):
    import json

    import lmdb

    (tmp_path / "in").mkdir()
    CHART.save(tmp_path / "in" / "a.png", icc_profile=ADOBE)
    out, partial = tmp_path / "out.lmdb", tmp_path / ".out.lmdb.partial"
    prepare(tmp_path / "in", out, 64, workers=1)
    with lmdb.open(str(out), map_size=2**26) as environment, environment.begin(write=True) as transaction:
        manifest = json.loads(transaction.get(b"manifest"))
        del manifest["keep_profiles"], manifest["labels_from"], manifest["profiles_converted"]
        transaction.put(b"manifest", json.dumps(manifest).encode())
    (out / "lock.mdb").unlink()
    arguments = [str(tmp_path / "in"), str(out), "--resolution", "64", "--workers", "1"]
    assert main(arguments) == 0
    assert "made by an earlier version, which did not convert" in capsys.readouterr().out
    out.rename(partial)
    assert main(arguments) == 2
    assert "was started with keep_profiles True, not False" in capsys.readouterr().err
    assert main([*arguments, "--keep-profiles"]) == 0
