"""Colour profiles: from the colours that an image's embedded ICC profile describes to sRGB."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode for each colour space of a profile that is converted."""
SRGB = ImageCms.createProfile("sRGB")


class BadProfile(Exception):
    """A profile that is damaged, or that does not describe the image's kind of pixels."""


def to_srgb(image: Image.Image, profile: object) -> tuple[Image.Image, bool]:
    """RGB pixels in sRGB, and whether the profile changed them; one of sRGB itself does not.

    Args:
        image: of mode L, RGB or CMYK; profile: what Pillow found in the file.

    Raises:
        BadProfile: it cannot be used.
    """
    if not isinstance(profile, bytes):
        raise BadProfile
    mode, transform = _transform(profile)
    if image.mode == "L" and mode == "RGB":  # Common: greys saved with the profile of a colour space.
        image = image.convert("RGB")
    if image.mode != mode:
        raise BadProfile
    return (image.convert("RGB"), False) if transform is None else (transform.apply(image), True)


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that a profile describes, and the way to sRGB; None where no colour moves by more than a rounding."""
    try:
        described = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES[described.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(described, SRGB, mode, "RGB")
    except (OSError, KeyError, ImageCms.PyCMSError) as error:
        raise BadProfile from error
    if mode == "CMYK":
        return mode, transform
    colours = _colours(mode)
    moved = np.asarray(transform.apply(colours), np.int16) - np.asarray(colours.convert("RGB"), np.int16)
    return mode, transform if np.abs(moved).max() > 1 else None


def _colours(mode: str) -> Image.Image:
    """All greys, or a lattice over all colours."""
    levels = np.arange(0, 256, 1 if mode == "L" else 17, dtype=np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    lattice = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
    return Image.fromarray(lattice.reshape(len(levels), -1, 3))
