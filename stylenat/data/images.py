"""From an image file to the square RGB pixels that networks train on, and to the bytes that are stored.

The same rules for every file, wherever it comes from; ``docs/data.md`` states them. No torch here: the worker
processes of a preparation import this and little else.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps

from registry import UserError
from stylenat.data.colour import BadProfile, to_srgb
from stylenat.data.contents import HEAD, described
from stylenat.data.formats import (
    Unusable,
    grey_levels,
    holds_several,
    is_deep,
    load_image,
    open_image,
    scale_transparent_value,
)

Crop = Literal["center", "none"]
Fit = Literal["crop", "pad", "stretch"]
Filter = Literal["lanczos", "box", "bilinear", "bicubic", "hamming", "nearest"]
Storage = Literal["png", "jpeg", "webp", "raw"]
Note = Literal["profiles_converted", "profiles_broken", "narrow_range", "several_frames"]
FILTERS = {
    "lanczos": Image.LANCZOS, "box": Image.BOX, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC,
    "hamming": Image.HAMMING, "nearest": Image.NEAREST,
}  # fmt: skip
"""Pillow's, antialiased: the support grows with the reduction (all but ``nearest``)."""
NARROW = "16- or 32-bit images use less than a sixteenth of their range and come out nearly black or of one shade"
NARROW_REMEDY = "scale their values to 0 to 65535, or save them with 8 bits, and prepare them again"
SEVERAL = "images are animated or have several pages; the first was taken"


class NotSquare(Unusable):
    """An image that is not square, where that is an error."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)

    def __str__(self) -> str:
        width, height = self.args
        return f"not square ({width}x{height})"


@dataclass(frozen=True)
class Decoded:
    """An RGB image and what happened to its values.

    Attributes:
        notes: ``profiles_converted``: an embedded profile was applied; ``profiles_broken``: there is one that cannot
            be used; ``narrow_range``: more than 8 bits, of which less than a sixteenth of the range is used;
            ``several_frames``: the file holds others behind this one.
    """

    image: Image.Image
    notes: tuple[Note, ...] = ()


def advice(error: Unusable) -> str:
    """What to do about an image that training cannot use."""
    if isinstance(error, NotSquare):
        return "remove it, or leave out crop = 'none' and bind fit = 'crop', 'pad' or 'stretch'"
    return "remove it, or let tools/prepare.py skip such files"


def refuse_contradiction(crop: Crop, fit: Fit) -> None:
    """Raises UserError where images that are not square are to be an error and to be fitted."""
    if crop == "none" and fit != "crop":
        raise UserError(
            f"crop none refuses images that are not square, and fit {fit} takes them; leave out one of the two"
        )


def check(file: Path | IO[bytes], crop: Crop) -> None:
    """Reads an image's header only, a tenth of a millisecond. Raises Unusable for what it gives away."""
    try:
        if isinstance(file, Path):
            with open(file, "rb") as opened:
                return check(opened, crop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(file) as image:
                width, height = image.size
    except Unusable:
        raise
    except Exception as error:  # As below.
        if isinstance(file, Path) or (isinstance(error, OSError) and error.strerror):
            raise Unusable(getattr(error, "strerror", None) or "unreadable") from error
        file.seek(0)
        raise Unusable(f"no image that can be read{described(file.read(HEAD))}") from error
    if crop == "none" and width != height:
        raise NotSquare(width, height)


def decode(data: bytes, keep_profiles: bool = False) -> Image.Image:
    """The image of ``read_image``."""
    return read_image(data, keep_profiles).image


def read_image(data: bytes, keep_profiles: bool = False) -> Decoded:
    """Upright sRGB. Transparency goes over white; of an animation, the first frame; 16 bits become 8.

    Args:
        keep_profiles: leave the colours as they are; an RGB image then keeps its profile.

    Raises:
        Unusable: it is empty, does not decode, has floating-point pixels, or more than MAX_PIXELS.
    """
    if not data:
        raise Unusable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning, and its remarks on odd metadata.
            return _rgb(data, load_image(data), keep_profiles)
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise almost anything on damaged bytes.
        raise Unusable(f"does not decode{described(data[:HEAD])}") from error


def _rgb(data: bytes, image: Image.Image, keep_profiles: bool) -> Decoded:
    scale_transparent_value(image, data)
    black, white = grey_levels(image)
    deep, several = is_deep(image, data), holds_several(image)
    image = ImageOps.exif_transpose(image)
    profile, notes, kept = image.info.get("icc_profile"), ["several_frames"] * several, {}
    if image.mode.startswith("I"):
        image, narrow = _eight_bits(image, black, white)
        notes += ["narrow_range"] * narrow
    elif deep:
        notes += ["narrow_range"] * _uses_little(image)
    if profile and keep_profiles and image.mode.startswith(("RGB", "P")):
        kept["icc_profile"] = profile
    image, alpha = _split_alpha(image)
    if profile and not keep_profiles:
        try:
            image, converted = to_srgb(image, profile)
            notes += ["profiles_converted"] * converted
        except BadProfile:
            notes += ["profiles_broken"]
    image = image.convert("RGB")
    if alpha:
        image.putalpha(alpha)
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    image.info = kept  # Nothing else of the file's metadata goes into a record.
    return Decoded(image, tuple(notes))


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """L, RGB or CMYK, as the image's profile would describe it; and alpha where there is any."""
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if transparent else None
    if image.mode == "CMYK":
        return image, alpha
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"), alpha


def _eight_bits(image: Image.Image, black: int, white: int) -> tuple[Image.Image, bool]:
    """Grey of 8 bits, white where it is transparent, and whether it uses less than a sixteenth of its range.

    Pillow would clip 16 bits, not scale them.
    """
    values = np.asarray(image).astype(np.int32)
    transparent = values == image.info.get("transparency", -1)
    shown = values[~transparent]
    low, high = (shown.min(), shown.max()) if shown.size else (0, 0)
    if low < 0 or high > 65535:
        raise Unusable("pixels below 0 or above 65535, whose range is unknown")
    full = max(black, white)
    scaled = ((values if white else black - values) * 510 + full) // (2 * full)  # Rounded to nearest.
    scaled[transparent] = 255
    grey = Image.fromarray(scaled.astype(np.uint8))
    grey.info = {name: value for name, value in image.info.items() if name != "transparency"}
    blank = low == high and low in (0, full)  # Black or white is what it means.
    return grey, bool(shown.size) and not blank and 16 * int(high - low) < full


def _uses_little(image: Image.Image) -> bool:
    """Whether the opaque pixels of an image that Pillow brought from 16 to 8 bits use less than a sixteenth of them.

    Pillow keeps the high byte alone: one that uses the low byte only is black.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    counts = np.reshape(image.histogram(alpha), (-1, 256))[: 3 if image.mode.startswith("RGB") else 1]
    used = counts.any(axis=0).nonzero()[0]
    return bool(used.size) and bool(used[0] < 255 and used[-1] - used[0] < 16)


def square(image: Image.Image, resolution: int, crop: Crop, filter: Filter, fit: Fit = "crop") -> Image.Image:
    """Resized, antialiased, to [resolution, resolution].

    Args:
        fit: of an image that is not square: ``crop`` keeps the centre square, ``pad`` all of it between black bars,
            ``stretch`` all of it with another aspect ratio.

    Raises:
        NotSquare: it is not square, with crop ``none``.
    """
    width, height = image.size
    if width == height:
        return image if width == resolution else image.resize((resolution, resolution), FILTERS[filter])
    if crop == "none":
        raise NotSquare(width, height)
    if fit == "stretch":
        return image.resize((resolution, resolution), FILTERS[filter])
    if fit == "pad":
        return _padded(image, resolution, filter)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return image if side == resolution else image.resize((resolution, resolution), FILTERS[filter])


def _padded(image: Image.Image, resolution: int, filter: Filter) -> Image.Image:
    """ImageOps.pad, but of any aspect ratio: the short side keeps at least a pixel."""
    long = max(image.size)
    width, height = (max(1, round(side * resolution / long)) for side in image.size)
    out = Image.new("RGB", (resolution, resolution))
    out.info = image.info  # Where it is kept, its colour profile.
    out.paste(image.resize((width, height), FILTERS[filter]), ((resolution - width) // 2, (resolution - height) // 2))
    return out


def enlarges(image: Image.Image, resolution: int, fit: Fit) -> bool:
    """Whether ``square`` makes an image larger than it is."""
    return (max if fit == "pad" else min)(image.size) < resolution


def encode(image: Image.Image, storage: Storage, quality: int) -> bytes:
    """The bytes of one record: an image file, or for ``raw`` its pixels [resolution, resolution, 3]."""
    if storage == "raw":
        return image.tobytes()
    out, profile = io.BytesIO(), image.info.get("icc_profile")
    if storage == "png":
        image.save(out, format="png", icc_profile=profile)
    elif storage == "webp":
        image.save(out, format="webp", lossless=True, quality=50, exact=True, icc_profile=profile)
    else:
        image.save(out, format="jpeg", quality=quality, subsampling=0, icc_profile=profile)
    return out.getvalue()
