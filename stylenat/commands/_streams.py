"""Standard output and standard error that may be closed, full, or gone.

A closed descriptor is opened on ``/dev/null``: otherwise the next file of the run would get its number, and whatever is
printed would be written into that file. What a command does when a stream cannot be written is decided here, since an
``OSError`` of ``print`` cannot be told from one of the run's files.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from registry import UserError

NAMES = {1: "standard output", 2: "standard error"}
_REPLACED: list[TextIO] = []
"""Kept: a stream that nobody refers to any more would close its descriptor."""


class Output(io.FileIO):
    """A standard stream. After the first failure what is written to it is dropped.

    Standard error may fail silently: the exit code remains. So may a pipe whose reader has gone, as ``head`` does: the
    command finishes its work. Any other failure of standard output raises UserError.

    Attributes:
        optional: whether the command goes on without the stream instead, and says so on the other one.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.optional = self._failed = False

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._failed:
            return size
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            self._failed = True
            name = NAMES[self.fileno()]
            if self.optional:
                line = f"{name} cannot be written ({error.strerror}); the run goes on without it\n"
                with suppress(OSError):  # The other stream may have failed too.
                    os.write(3 - self.fileno(), line.encode())
            elif self.fileno() == 1 and not isinstance(error, BrokenPipeError):
                raise UserError(f"{name} cannot be written ({error.strerror}); redirect it to another file") from error
            return size


def prepare() -> None:
    """Makes both standard streams of this process writable objects, once.

    Streams that were replaced, as tests do, are left alone.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest free number, this one.
    sys.stdout, sys.stderr = _output(sys.stdout, 1), _output(sys.stderr, 2)
    if isinstance(sys.stdout, io.TextIOWrapper):  # A file's name may be no text that the terminal knows.
        sys.stdout.reconfigure(errors="backslashreplace")


def go_on_without() -> None:
    """From here on the command does not need its standard streams: a training must not end with its log."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(raw := _raw(stream), Output):
            raw.optional = True


def _raw(stream: TextIO) -> object:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)  # Under PYTHONUNBUFFERED there is no buffer between.


def _output(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # It was closed when Python started.
        return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    raw = _raw(stream)
    if not isinstance(stream, io.TextIOWrapper) or type(raw) is not io.FileIO or raw.fileno() != descriptor:
        return stream
    stream.flush()
    _REPLACED.append(stream)
    output = Output(descriptor)
    buffer: Any = output if raw is stream.buffer else io.BufferedWriter(output)
    return io.TextIOWrapper(
        buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering, write_through=stream.write_through
    )
