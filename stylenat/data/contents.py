"""What a file holds by its first bytes, whatever its name says: for messages about files that are not read."""

import zlib
from dataclasses import dataclass

HEAD = 512
"""Bytes that ``content_of`` looks at."""

AGAIN = "download it again"
EXPORT = "write its images as files, such as PNG, into a folder and give that"
A_SOURCE = ""
UNPACK = "unpack it and give the folder"
SINGLE = "give the folder that holds it"
POINTER = "fetch the file itself with `git lfs pull`"


@dataclass(frozen=True)
class Content:
    """``name`` follows "is"; ``advice``: what to do where a source of images was
    expected; empty where it is one, and was not read because it is damaged."""

    name: str
    advice: str

    @property
    def is_image(self) -> bool:
        """Whether it is an image file of a kind that is read, or would be by another Pillow."""
        return self.advice == SINGLE


SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", SINGLE),
    (0, b"\xff\xd8\xff", "a JPEG image", SINGLE),
    (8, b"WEBP", "a WebP image", SINGLE),
    (0, b"GIF8", "a GIF image", SINGLE),
    (0, b"BM", "a BMP image", SINGLE),
    (0, b"II*\0", "a TIFF image", SINGLE),
    (0, b"MM\0*", "a TIFF image", SINGLE),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", SINGLE),
    (4, b"ftypavif", "an AVIF image", SINGLE),
    (4, b"ftypavis", "an AVIF image", SINGLE),
    *((4, b"ftyp" + brand, "a HEIC image", SINGLE) for brand in (b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1")),
    (0, b"\xff\x0a", "a JPEG XL image", SINGLE),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", SINGLE),
    (0, b"8BPS", "a Photoshop document", EXPORT),
    (0, b"%!PS", "PostScript", EXPORT),
    (0, b"%PDF", "a PDF document", EXPORT),
    (128, b"DICM", "a DICOM file", EXPORT),
    (0, b"v/1\x01", "an OpenEXR image", EXPORT),
    (0, b"SIMPLE  =", "a FITS file", EXPORT),
    (4, b"ftyp", "a video (MP4 or QuickTime)", EXPORT),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", EXPORT),
    (8, b"AVI ", "a video (AVI)", EXPORT),
    (0, b"\x93NUMPY", "a NumPy array", EXPORT),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", EXPORT),
    (0, b"MATLAB 5.0", "a MATLAB file", EXPORT),
    (0, b"PAR1", "a Parquet table", EXPORT),
    (0, b"ARROW1", "an Arrow table", EXPORT),
    (0, b"SQLite format 3\0", "an SQLite database", EXPORT),
    *((0, b"\x80" + bytes([version]), "a Python pickle", EXPORT) for version in (2, 3, 4, 5)),
    (0, b"PK\3\4", "a zip archive", A_SOURCE),
    (257, b"ustar", "a tar archive", A_SOURCE),
    (0, b"\x1f\x8b", "gzip-compressed data", UNPACK),
    (0, b"BZh", "bzip2-compressed data", UNPACK),
    (0, b"\xfd7zXZ\0", "xz-compressed data", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"version https://git-lfs", "a Git LFS pointer", POINTER),
)
IDX_TYPES = (8, 9, 11, 12, 13, 14)
"""Element types of an IDX array, the format of MNIST: two zero bytes, the type, the number of dimensions, the sizes."""


def content_of(head: bytes) -> Content | None:
    """What a file with these first bytes holds; None where they tell nothing."""
    for offset, magic, name, advice in SIGNATURES:
        if head.startswith(magic, offset):
            return _compressed(head) if name.startswith("gzip") else Content(name, advice)
    return _idx(head) or _text(head)


def described(head: bytes) -> str:
    """`` (the file is ...)`` behind the reason why an image is not read; nothing where it is one or is not known."""
    if not head:
        return " (the file is empty)"
    content = content_of(head)
    return f" (the file is {content.name})" if content and not content.is_image else ""


def _compressed(head: bytes) -> Content:
    try:
        inner = content_of(zlib.decompressobj(wbits=31).decompress(head, HEAD))
    except zlib.error:
        return Content("damaged gzip-compressed data", AGAIN)
    if inner is None:
        return Content("gzip-compressed data", UNPACK)
    return Content(f"gzip-compressed; inside is {inner.name}", inner.advice)


def _idx(head: bytes) -> Content | None:
    if len(head) < 8 or head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not 1 <= head[3] <= 4:
        return None
    sizes = [int.from_bytes(head[4 + 4 * i : 8 + 4 * i], "big") for i in range(head[3])]
    return Content(f"an IDX array of {'x'.join(map(str, sizes))} (MNIST's format)", EXPORT)


def _text(head: bytes) -> Content | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return Content("an HTML page", AGAIN)
    if start.startswith(b"<svg"):
        return Content("an SVG drawing", EXPORT)
    printable = head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head)
    if not printable:
        return None
    try:
        head[: len(head) - 4 * (len(head) >= HEAD)].decode()  # The last character may be cut.
    except UnicodeDecodeError:
        return None
    return Content("text", "rename a list of paths to NAME.txt")
