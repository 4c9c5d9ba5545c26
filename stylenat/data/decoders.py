"""From a record's bytes to pixels, by the fastest decoder that gives Pillow's very values (benchmarks/data.py).

PNG: kornia-rs, twice the speed of Pillow's; JPEG: simplejpeg (libjpeg-turbo), one and a half times; the rest:
Pillow.
"""

import io
import warnings

import kornia_rs
import numpy as np
import simplejpeg
import torch
from torch import Tensor

from stylenat.data.formats import load_image, open_image, with_end_marker

PNG_RGB8 = b"\x08\x02\x00\x00\x00"
"""In a PNG's header behind width and height: 8 bits, RGB, not interlaced."""


class WrongSize(ValueError):
    """An image whose header declares another size."""


def decode_pixels(data: bytes | memoryview, side: int) -> Tensor:
    """An encoded image to uint8 [side, side, 3].

    Raises:
        WrongSize: the header says another size; nothing has been decoded, since a few bytes can declare gigabytes.
        ValueError: it does not decode.
    """
    head = bytes(data[:29])
    try:
        if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:29] == PNG_RGB8:
            _require(int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"), side)
            return torch.from_numpy(kornia_rs.io.decode_image_png_u8(bytes(data), (side, side), "rgb"))
        if head[:3] == b"\xff\xd8\xff":
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            _require(width, height, side)
            if colours not in ("CMYK", "YCCK"):  # Those are Pillow's business.
                return torch.from_numpy(_jpeg(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(io.BytesIO(data)) as image:
                _require(*image.size, side)
            return torch.from_numpy(np.array(load_image(bytes(data)).convert("RGB")))
    except WrongSize:
        raise
    except Exception as error:  # Three libraries, and each has its own ways of refusing damaged bytes.
        raise ValueError("does not decode") from error


def _require(width: int, height: int, side: int) -> None:
    if (width, height) != (side, side):
        raise WrongSize(f"is {width}x{height}, not {side}x{side}")


def _jpeg(data: bytes | memoryview) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return simplejpeg.decode_jpeg(with_end_marker(bytes(data)), "RGB")
