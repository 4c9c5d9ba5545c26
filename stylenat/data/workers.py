"""Processes that decode ahead, into memory that they share with the training process.

The memory is allocated once: a new piece for every batch would take half as long as decoding JPEGs into it. Which
images a batch has is a function of its number, so that nothing but an empty message goes either way: from a worker
that its next batch is there, to it that a batch's memory is free again.
"""

import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from pathlib import Path

import torch
from torch import Tensor, multiprocessing

from registry import UserError

AHEAD = 2
"""Batches that each worker may have ready or handed out."""

PARENT_EVERY = 5.0
"""Seconds after which an idle worker looks whether the training process still lives."""

SHARED_MEMORY = Path("/dev/shm")

NOT_THEIRS = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
"""Signals that mean the training process; it ends the workers when it is time."""

ENDED_BY = {
    signal.SIGKILL: "was killed, possibly out of memory; start again, with fewer train.workers",
    signal.SIGBUS: "met a bus error: a file of the data set was truncated or cannot be read, or shared memory is full; "
    "check them with tools/inspect_data.py, and start again",
}
"""What to say of a worker that a signal ended, by the signal."""

Fill = Callable[[int, Tensor], None]
"""Decodes the batch of this number into memory for it. May raise UserError."""


def decoded_ahead(fill: Fill, workers: int, shape: tuple[int, ...], dtype: torch.dtype) -> Iterator[Tensor]:
    """Batches number 0, 1, ..., each valid until the next is asked for.

    Args:
        fill: picklable where processes are not forked.
        workers: processes, at least 1.
        shape, dtype: of a batch.

    Raises:
        UserError: what ``fill`` raised, a worker that was killed, or too little shared memory.
    """
    check_shared_memory(workers * AHEAD * torch.Size(shape).numel() * dtype.itemsize)
    slots = torch.empty(workers, AHEAD, *shape, dtype=dtype).share_memory_()
    started: list[tuple[multiprocessing.Process, Connection]] = []
    end = Finalize(None, _end, [started], exitpriority=0)  # For an exit with the iterator alive.
    try:
        for i, own in enumerate(slots):
            started.append(_start(fill, i, workers, own))
        for number in count():
            process, pipe = started[number % workers]
            _await(process, pipe)
            yield slots[number % workers, number // workers % AHEAD]
            with suppress(ConnectionError):  # It may have sent an error, which comes when its batch is due, and ended.
                pipe.send(None)
    finally:
        end()


def check_shared_memory(needed: int) -> None:
    """Raises UserError where so many bytes do not fit: beyond what there is, writing to it would be a bus error."""
    if not SHARED_MEMORY.is_dir():  # Not on this system.
        return
    if not os.access(SHARED_MEMORY, os.W_OK):
        raise UserError(
            f"batches decoded ahead need shared memory, and {SHARED_MEMORY} is not writable; bind train.workers = 0, "
            "or make it writable"
        )
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise UserError(
            f"batches decoded ahead need {needed / 2**20:.0f} MiB of shared memory, and {SHARED_MEMORY} has "
            f"{free / 2**20:.0f} MiB free; bind fewer train.workers, or give the container more (docker: --shm-size)"
        )


def _start(fill: Fill, first: int, step: int, slots: Tensor) -> tuple[multiprocessing.Process, Connection]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_work, args=(fill, first, step, slots, there, os.getpid()), daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_THEIRS)  # Handed down: one may come while the worker starts.
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    there.close()  # The worker's alone, so that its end is seen here.
    return process, here


def _end(started: list[tuple[multiprocessing.Process, Connection]]) -> None:
    for process, pipe in started:
        process.kill()
        process.join()
        pipe.close()


def _await(process: multiprocessing.Process, pipe: Connection) -> None:
    """Waits for the worker's next batch. Raises its error, or UserError where it has ended."""
    try:
        problem = pipe.recv()
    except (EOFError, ConnectionResetError) as error:
        process.join()
        why = ENDED_BY.get(-(process.exitcode or 0), f"ended unexpectedly with exit code {process.exitcode}")
        raise UserError(f"a process that decodes images {why}") from error
    if problem is not None:
        raise problem


def _work(fill: Fill, first: int, step: int, slots: Tensor, pipe: Connection, parent: int) -> None:
    for number in NOT_THEIRS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):  # The training process is gone.
        for turn in count():
            if turn >= AHEAD and not _freed(pipe, parent):
                return
            try:
                fill(first + turn * step, slots[turn % AHEAD])
            except UserError as error:
                return pipe.send(error)
            except Exception:
                return pipe.send(RuntimeError(f"in a process that decodes images:\n{traceback.format_exc()}"))
            pipe.send(None)


def _freed(pipe: Connection, parent: int) -> bool:
    """Waits for memory; False once the training process has died, which workers started later may hide."""
    while not pipe.poll(PARENT_EVERY):
        if os.getppid() != parent:
            return False
    pipe.recv()
    return True
