"""Prints, warnings, logging and other rich consoles are shown above a live display."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from rich.console import Console
from rich.file_proxy import FileProxy


class _Above(FileProxy):
    """Rich's own proxy, which other consoles must not see through: they would print into the display."""

    @property
    def rich_proxied_file(self) -> "_Above":
        return self


@contextmanager
def printing_above(console: Console) -> Iterator[None]:
    """In this context, output to a terminal goes through ``console``, which shows a live display.

    ``console`` must have an explicit file: one that looks up ``sys.stderr`` would print to itself. Streams that are not
    terminals are not changed.
    """
    with ExitStack() as undo:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if not stream.isatty():
                continue
            above = _Above(console, stream)
            setattr(sys, name, above)
            undo.callback(setattr, sys, name, stream)
            undo.callback(above.flush)
            for handler in _handlers_on(stream):
                handler.setStream(above)
                undo.callback(handler.setStream, stream)
        yield


def _handlers_on(stream: TextIO) -> list[logging.StreamHandler]:
    """Handlers hold on to the stream they were made with."""
    loggers = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", [])}
    return [h for h in handlers if isinstance(h, logging.StreamHandler) and h.stream is stream]
