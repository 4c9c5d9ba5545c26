"""Which files are images, and what a header tells before anything is decoded.

Here are also the cases that Pillow reads wrongly, or refuses without a reason. What becomes of pixels is in
``images.py``.
"""

import contextlib
import io
import os
from functools import lru_cache
from typing import IO, Any

import simplejpeg
from PIL import Image, UnidentifiedImageError, features
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from stylenat.data.contents import HEAD, content_of
from stylenat.data.ignored import is_hidden

SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm",
    ".jp2", ".tga", ".heic", ".heif",
}  # fmt: skip
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "JPEG2000", "AVIF", "TGA", "HEIF")
"""Pillow's names of what is decoded, whatever a file's suffix. Not PostScript, which Pillow gives to Ghostscript."""
MAX_PIXELS = 2**27
"""Images beyond this many pixels (400 MB decoded) may be decompression bombs and are not decoded."""
TOO_LARGE = "too large (may be a decompression bomb)"
FLOATING = "floating-point pixels, whose range is unknown; save 8 or 16 bits instead"
WHEEL = "install the wheel: pip install --force-reinstall --only-binary pillow pillow"
NO_DECODER = {
    "a HEIC image": ("HEIF", "HEIC, which Pillow reads with a plugin only: pip install pillow-heif"),
    "an AVIF image": ("avif", f"AVIF, for which the installed Pillow has no decoder; {WHEEL}"),
    "a WebP image": ("webp", f"WebP, for which the installed Pillow has no decoder; {WHEEL}"),
    "a JPEG 2000 image": ("jpg_2000", f"JPEG 2000, for which the installed Pillow has no decoder; {WHEEL}"),
}
"""By what ``content_of`` calls an image: Pillow's feature that decodes it, and what is wrong without."""
JPEG_END = b"\xff\xd9"

# Tags of TIFF 6.0.
BITS, COMPRESSION, PHOTOMETRIC, PLANAR, SAMPLE_FORMAT = 258, 259, 262, 284, 339
WHITE_IS_ZERO, UNCOMPRESSED, SEPARATE, SIGNED, FLOAT = 0, 1, 2, 2, 3


class Unusable(Exception):
    """An image that cannot be used, and why."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix; what is hidden, or lies hidden, never is."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow knows; to open with another name is a KeyError."""
    Image.init()
    with contextlib.suppress(ImportError):  # An optional package.
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_image(file: IO[bytes]) -> Image.Image:
    """An image of which only the header has been read.

    Raises:
        Unusable: more than MAX_PIXELS, or a kind of image that is not read.
        Exception: Pillow's, of almost any type, for what is damaged or no image.
    """
    try:
        image = Image.open(file, formats=_formats())
    except Image.DecompressionBombError as error:
        raise Unusable(TOO_LARGE) from error
    except UnidentifiedImageError as error:
        if reason := _undecoded(file) or _unread_tiff(file):
            raise Unusable(reason) from error
        raise
    if image.format == "JPEG2000" and (reason := _undecoded(file)):  # Pillow notices when it decodes.
        raise Unusable(reason)
    if image.width * image.height > MAX_PIXELS:
        raise Unusable(f"too large ({image.width}x{image.height}; may be a decompression bomb)")
    if image.mode == "F":
        raise Unusable(FLOATING)
    if image.mode == "LAB":
        raise Unusable("Lab colours, which are not read")
    if image.format == "TIFF":
        _refuse_misread(image.tag_v2)  # type: ignore[attr-defined]
    return image


def load_image(data: bytes) -> Image.Image:
    """An image with its pixels; of a JPEG, the end marker may be missing. Raises as ``open_image``."""
    image = open_image(io.BytesIO(data))
    try:
        image.load()
    except OSError:
        if image.format != "JPEG":
            raise
        image = open_image(io.BytesIO(with_end_marker(data)))
        image.load()
    return image


def _refuse_misread(tags: ImageFileDirectory_v2) -> None:
    """Raises Unusable for what Pillow decodes to wrong pixels."""
    bits = max(tags.get(BITS, (1,)))
    if bits > 8 and tags.get(PLANAR) == SEPARATE and tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED:
        raise Unusable("uncompressed TIFF with 16 bits in separate planes, which Pillow does not read correctly")
    if bits == 8 and SIGNED in tags.get(SAMPLE_FORMAT, ()):
        raise Unusable("signed 8-bit pixels, whose range is unknown")


def _undecoded(file: IO[bytes]) -> str:
    """Why an image of a sound format cannot be decoded here; nothing where it can."""
    file.seek(0)
    content = content_of(file.read(HEAD))
    feature, reason = NO_DECODER.get(content.name if content else "", ("", ""))
    if not feature:
        return ""
    known = feature in Image.OPEN if feature == "HEIF" else features.check(feature)
    return "" if known else reason


def holds_several(image: Image.Image) -> bool:
    """Whether a file is animated or has several pages, of which Pillow reads the first.

    Not a JPEG with a preview or a depth map behind it (MPO), as telephones write it.
    """
    try:
        return image.format != "MPO" and getattr(image, "is_animated", False)
    except Exception:  # Pillow's parsers raise almost anything where the second frame is damaged.
        return True


def _unread_tiff(file: IO[bytes]) -> str:
    """Why Pillow does not read a TIFF; nothing for another file."""
    try:
        file.seek(0)
        header = file.read(8)
        if header[:4] not in (b"II*\0", b"MM\0*"):
            return ""
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        bits, layout, meaning = tags.get(BITS), tags.get(SAMPLE_FORMAT, ()), tags.get(PHOTOMETRIC)
    except Exception:  # Damaged: there is no more to say than that it cannot be read.
        return ""
    return FLOATING if FLOAT in layout else f"TIFF of a kind that Pillow does not read (bits {bits}, colours {meaning})"


def grey_levels(image: Image.Image) -> tuple[int, int]:
    """The values of black and of white in an image of more than 8 bits. Pillow leaves both to us."""
    tags: Any = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    white = 4095 if tags.get(BITS) == (12,) else 65535
    return (white, 0) if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else (0, white)


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether a file has 16 bits for each of several channels, which Pillow reads as 8: a PNG or a TIFF."""
    if image.mode not in ("LA", "RGB", "RGBA", "RGBX"):
        return False
    if image.format == "PNG":
        return data[24] == 16
    return image.format == "TIFF" and max(image.tag_v2.get(BITS, (1,))) == 16  # type: ignore[attr-defined]


def scale_transparent_value(image: Image.Image, data: bytes) -> None:
    """Pillow scales the pixels of a PNG with 2, 4 or 3x16 bits to 8, but not the value that is transparent."""
    value = image.info.get("transparency")
    if value is None or image.format != "PNG":
        return
    bits = data[24]
    if image.mode == "L" and bits in (2, 4):
        image.info["transparency"] = value * 255 // (2**bits - 1)
    elif image.mode == "RGB" and bits == 16:
        image.info["transparency"] = tuple(sample >> 8 for sample in value)


def with_end_marker(data: bytes) -> bytes:
    """A JPEG that lacks its end marker, with it. Raises ValueError where other data is missing, too."""
    data += JPEG_END
    colours = simplejpeg.decode_jpeg_header(data)[2]
    # Strict: libjpeg would fill in what is missing.
    simplejpeg.decode_jpeg(data, "CMYK" if colours in ("CMYK", "YCCK") else "RGB")
    return data
