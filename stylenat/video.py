"""Frames to a file: MP4 and WebM by imageio-ffmpeg, GIF by Pillow, or PNGs in a folder. Complete or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from registry import UserError
from stylenat.files import partial, whole_file, whole_folder
from stylenat.grids import save_png

CODECS = {
    ".mp4": ("libx264", ["-crf", "14", "-preset", "slow", "-movflags", "+faststart"]),
    ".webm": ("libvpx-vp9", ["-crf", "18", "-b:v", "0"]),
}
SUFFIXES = (*CODECS, ".gif")
SIDE = 256
"""Pixels: smaller frames are enlarged to at least this, since players interpolate."""


def check(path: Path) -> None:
    """Raises UserError where the file cannot be made on this machine, before anything is computed."""
    if path.suffix.lower() in CODECS and find_spec("imageio_ffmpeg") is None:
        raise UserError(
            f"{path.suffix} needs imageio-ffmpeg, which is not installed: pip install 'stylenat[video]'; .gif needs "
            "nothing"
        )


def enlarged(frame: Tensor, side: int = SIDE) -> Tensor:
    """uint8 [3, height, width], each pixel repeated so often that the shorter side is at least ``side``."""
    scale = enlarged_by(min(frame.shape[-2:]), side)
    return frame.repeat_interleave(scale, dim=-1).repeat_interleave(scale, dim=-2)


def enlarged_by(pixels: int, side: int = SIDE) -> int:
    """How often ``enlarged`` repeats each pixel of a frame whose shorter side this is."""
    return max(1, -(-side // pixels))


def write(path: Path, frames: Iterable[Tensor], fps: int) -> int:
    """Writes uint8 frames [3, height, width] as they come; the suffix says how, a name without one is a folder of PNGs.

    Returns:
        How many there were.

    Raises:
        UserError: there are none, or the file cannot be written.
    """
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise UserError(f"{path} would have no frames")
    counted = _Counted(first, iterator)
    try:
        if path.suffix.lower() in CODECS:
            _encode(path, counted, fps)
        elif path.suffix.lower() == ".gif":
            _gif(path, counted, fps)
        else:
            with whole_folder(path) as folder:
                for i, frame in enumerate(counted):
                    save_png(folder / f"frame-{i:06d}.png", frame)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return counted.count


class _Counted:
    def __init__(self, first: Tensor, rest: Iterator[Tensor]) -> None:
        self._first, self._rest, self.count = first, rest, 0

    def __iter__(self) -> Iterator[Tensor]:
        for frame in self._chained():
            self.count += 1
            yield frame

    def _chained(self) -> Iterator[Tensor]:
        yield self._first
        yield from self._rest


def _pixels(frame: Tensor) -> Tensor:
    return frame.permute(1, 2, 0).contiguous().cpu()


def _gif(path: Path, frames: Iterable[Tensor], fps: int) -> None:
    # Dithering flickers between frames.
    images = (Image.fromarray(_pixels(f).numpy()).quantize(256, dither=Image.Dither.NONE) for f in frames)
    first = next(images)
    with whole_file(path) as file:
        duration = max(20, round(1000 / fps / 10) * 10)  # GIF counts in hundredths, and players slow down below two.
        first.save(file, format="gif", save_all=True, append_images=images, duration=duration, loop=0)


def _encode(path: Path, frames: Iterable[Tensor], fps: int) -> None:
    import imageio_ffmpeg

    codec, options = CODECS[path.suffix.lower()]
    with _temporary(path) as temporary:
        writer = None
        try:
            for frame in frames:
                # yuv420p halves the colours' resolution: both sides must be even.
                height, width = frame.shape[-2:]
                frame = F.pad(frame, (0, width % 2, 0, height % 2))
                if writer is None:
                    writer = imageio_ffmpeg.write_frames(
                        str(temporary),
                        (frame.shape[-1], frame.shape[-2]),
                        fps=fps,
                        codec=codec,
                        quality=None,
                        macro_block_size=2,
                        ffmpeg_log_level="error",
                        output_params=[*options, "-fflags", "+bitexact", "-flags:v", "+bitexact"],
                    )
                    writer.send(None)
                writer.send(_pixels(frame).numpy())
        finally:
            if writer is not None:
                writer.close()


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside the file, with its suffix, which ffmpeg reads; what was written there becomes the file."""
    temporary = partial(path).with_suffix(path.suffix)
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def tiled(cells: Tensor, columns: int) -> Tensor:
    """uint8 [cells, 3, side, side] to one frame [3, height, width], row by row, without gaps."""
    count, channels, side, _ = cells.shape
    rows = count // columns
    return cells.view(rows, columns, channels, side, side).permute(2, 0, 3, 1, 4).reshape(channels, rows * side, -1)
