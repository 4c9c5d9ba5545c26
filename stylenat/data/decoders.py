"""From a record's bytes to pixels, by the fastest decoder that gives Pillow's very values (benchmarks/data.py).

PNG: kornia-rs, twice the speed of Pillow's; JPEG: simplejpeg (libjpeg-turbo), one and a half times; the rest:
Pillow.
"""

import io

import kornia_rs
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

PNG_RGB8 = b"\x08\x02\x00\x00\x00"
"""In a PNG's header behind width and height: 8 bits, RGB, not interlaced."""


def decode_pixels(data: bytes | memoryview) -> Tensor:
    """An encoded image to uint8 [height, width, 3]. Raises ValueError when it does not decode."""
    head = bytes(data[:29])
    try:
        if head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:29] == PNG_RGB8:
            width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
            if max(width, height) <= 2**14:
                return torch.from_numpy(kornia_rs.io.decode_image_png_u8(bytes(data), (height, width), "rgb"))
        if head[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        with Image.open(io.BytesIO(data)) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))
    except Exception as error:  # Three libraries, and each has its own ways of refusing damaged bytes.
        raise ValueError("does not decode") from error


def _jpeg(data: bytes | memoryview) -> Tensor:
    color = simplejpeg.decode_jpeg_header(data)[2]
    if color in ("CMYK", "YCCK"):  # Its colours are Pillow's business.
        return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    return torch.from_numpy(simplejpeg.decode_jpeg(data, "RGB"))
