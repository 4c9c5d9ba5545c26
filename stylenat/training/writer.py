"""Writes checkpoints behind the back of training, which waits for no more than the copy of its state."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from stylenat.training import checkpoint


class Snapshot:
    """Copies of a state in main memory. The buffers of one are used again for the next.

    Fresh memory costs more than the copy: the kernel clears it page by page. From a GPU the buffers are pinned.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[Any, ...], Tensor] = {}

    def take(self, value: Any) -> Any:
        """A copy of nested dicts, lists and tuples of tensors and plain values; it lasts until the next."""
        # Hundreds of small copies: where cores are busy, waiting for a second thread in each takes longer than all.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            copied = self._copied(value, ())
        finally:
            torch.set_num_threads(threads)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return copied

    def _copied(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, Tensor):
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                pinned = value.device.type == "cuda"
                buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=pinned)
                self._buffers[place] = buffer
            return buffer.copy_(value.detach(), non_blocking=True)
        if isinstance(value, Mapping):
            return {key: self._copied(item, (*place, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copied(item, (*place, i)) for i, item in enumerate(value))
        return value


class Writer:
    """A context that writes checkpoints of one run, one at a time; leaving it waits for the last.

    Args:
        directory: of the checkpoints. What an earlier process left half-written there is removed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._snapshot = Snapshot()
        self._thread: threading.Thread | None = None
        self._written: Path | None = None
        self._error: Exception | None = None

    def __enter__(self) -> "Writer":
        checkpoint.tidy(self.directory)
        return self

    def save(
        self,
        step: int,
        networks: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the state and begins to write it; waits first for one that is still being written.

        Args:
            then: called in the writing thread when it is written, such as to remove old ones.

        Raises:
            UserError: as ``checkpoint.save``, for the one before.
        """
        self._wait()
        self._raise()
        copied = self._snapshot.take({"networks": dict(networks), "state": dict(state)})

        def write() -> None:
            try:
                self._written = checkpoint.save(self.directory, step, copied["networks"], copied["state"])
                then()
            except Exception as error:  # For the training thread to raise.
                self._error = error

        # A daemon: whoever presses Ctrl-C twice does not wait. What is half-written is removed by the next.
        self._thread = threading.Thread(target=write, name="checkpoint writer", daemon=True)
        self._thread.start()

    def written(self) -> Path | None:
        """A checkpoint that has been completed since this was last asked. Raises what kept it from being so."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._wait()
        self._raise()
        path, self._written = self._written, None
        return path

    def drained(self) -> Path | None:
        """``written``, having waited for it."""
        self._wait()
        self._raise()
        path, self._written = self._written, None
        return path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self._wait()
        if error is None:
            self._raise()
        elif self._error is not None:
            error.add_note(f"besides, the last checkpoint was not written: {self._error}")

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
