"""From an image file to the square RGB pixels that networks train on: one rule, wherever the file comes from."""

import io
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

Crop = Literal["center", "none"]
Filter = Literal["lanczos", "box", "bilinear", "bicubic"]
FILTERS = {"lanczos": Image.LANCZOS, "box": Image.BOX, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"}


class Unusable(Exception):
    """An image that cannot be used, and why."""


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by their path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def decode(data: bytes) -> Image.Image:
    """Upright RGB. Transparency goes over white; of an animation, the first frame; 16 bits become 8.

    Raises:
        Unusable: it does not decode, or is so large that it may be a decompression bomb.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # Pillow would clip 16 bits, not scale them.
            image = image.point(lambda value: value / 256).convert("L") if image.mode == "I;16" else image.convert("L")
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise Unusable("larger than Pillow's limit on decompression") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Unusable("does not decode") from error


def square(image: Image.Image, resolution: int, crop: Crop, filter: Filter) -> Image.Image:
    """Cropped to the centre square and resized, antialiased, to [resolution, resolution].

    Raises:
        Unusable: not square, with crop ``none``.
    """
    width, height = image.size
    side = min(width, height)
    if width != height:
        if crop == "none":
            raise Unusable(f"not square ({width}x{height})")
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image if side == resolution else image.resize((resolution, resolution), FILTERS[filter])
