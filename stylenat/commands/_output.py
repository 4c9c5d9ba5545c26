"""Standard output and error as commands use them: any name can be printed, and a reader may leave early."""

import io
import os
import stat
import sys
from typing import TextIO


class _Pipe(io.FileIO):
    """A pipe whose reader may leave, as ``head`` does: what is written from then on goes nowhere."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # For processes that inherit it, too.
            os.close(nowhere)
            return len(data)


def prepare_output() -> None:
    """Called before a command prints. A command whose reader leaves finishes its work, training for instance."""
    sys.stdout, sys.stderr = _surviving(sys.stdout), _surviving(sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # A file's name may be no text that the terminal knows.
        sys.stdout.reconfigure(errors="backslashreplace")


def _surviving(stream: TextIO) -> TextIO:
    """The stream, or, where it writes to a pipe or socket, one that survives the reader."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)  # With PYTHONUNBUFFERED there is no buffer.
    if type(raw) is not io.FileIO:
        return stream
    mode = os.fstat(raw.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return stream
    stream.flush()
    pipe = _Pipe(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        pipe if stream.buffer is raw else io.BufferedWriter(pipe),  # type: ignore[type-var]
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
