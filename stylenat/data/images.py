"""From an image file to the square RGB pixels that networks train on, and to the bytes that are stored.

One rule for every kind of file, wherever it comes from; ``docs/data.md`` states them. No torch here: the worker
processes of a preparation import this and little else.
"""

import io
import os
import warnings
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps

Crop = Literal["center", "none"]
Filter = Literal["lanczos", "box", "bilinear", "bicubic", "hamming", "nearest"]
Storage = Literal["png", "jpeg", "webp", "raw"]
FILTERS = {
    "lanczos": Image.LANCZOS, "box": Image.BOX, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC,
    "hamming": Image.HAMMING, "nearest": Image.NEAREST,
}  # fmt: skip
"""Pillow's, antialiased: the support grows with the reduction (all but ``nearest``)."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}
MAX_PIXELS = 2**27
"""Images beyond this many pixels (400 MB decoded) may be decompression bombs and are not decoded."""


NOT_SQUARE = "not square"
TOO_LARGE = "too large (may be a decompression bomb)"


class Unusable(Exception):
    """An image that cannot be used, and why."""


def advice(error: Unusable) -> str:
    """What to do about an image that training cannot use."""
    if str(error).startswith(NOT_SQUARE):
        return "remove it, or bind crop = 'center'"
    return "remove it, or let tools/prepare.py skip such files"


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix; what is hidden, or lies hidden, never is."""
    hidden = any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
    return not hidden and os.path.splitext(name)[1].lower() in SUFFIXES


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by their path."""
    return sorted(path for path in folder.rglob("*") if is_image_name(str(path.relative_to(folder))) and path.is_file())


def check(file: str | Path | IO[bytes], crop: Crop) -> None:
    """Reads no more than an image's header, a tenth of a millisecond. Raises Unusable for what it gives away."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise Unusable(TOO_LARGE) from error
    except Exception as error:  # As below.
        raise Unusable((isinstance(error, OSError) and error.strerror) or "no image that can be read") from error
    if width * height > MAX_PIXELS:
        raise Unusable(TOO_LARGE)
    if crop == "none" and width != height:
        raise Unusable(f"{NOT_SQUARE} ({width}x{height})")


def decode(data: bytes) -> Image.Image:
    """Upright RGB. Transparency goes over white; of an animation, the first frame; 16 bits become 8.

    Raises:
        Unusable: it is empty, does not decode, has floating-point pixels, or more than MAX_PIXELS.
    """
    if not data:
        raise Unusable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning, and its remarks on odd metadata.
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise Unusable(f"too large ({image.width}x{image.height}; may be a decompression bomb)")
            image.load()
            image = ImageOps.exif_transpose(image)
            return _rgb(image)
    except Unusable:
        raise
    except Image.DecompressionBombError as error:
        raise Unusable(TOO_LARGE) from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise almost anything on damaged bytes.
        raise Unusable("does not decode") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise Unusable("floating-point pixels, whose range is unknown")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits, not scale them.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unusable("32-bit pixels, whose range is unknown")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def square(image: Image.Image, resolution: int, crop: Crop, filter: Filter) -> Image.Image:
    """Cropped to the centre square and resized, antialiased, to [resolution, resolution].

    Raises:
        Unusable: not square, with crop ``none``.
    """
    width, height = image.size
    side = min(width, height)
    if width != height:
        if crop == "none":
            raise Unusable(f"{NOT_SQUARE} ({width}x{height})")
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image if side == resolution else image.resize((resolution, resolution), FILTERS[filter])


def encode(image: Image.Image, storage: Storage, quality: int) -> bytes:
    """The bytes of one record: an image file, or for ``raw`` its pixels [resolution, resolution, 3]."""
    if storage == "raw":
        return image.tobytes()
    out = io.BytesIO()
    if storage == "png":
        image.save(out, format="png")
    elif storage == "webp":
        image.save(out, format="webp", lossless=True, quality=50, exact=True)
    else:
        image.save(out, format="jpeg", quality=quality, subsampling=0)
    return out.getvalue()
