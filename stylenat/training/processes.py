"""How the processes of one run find each other, and how they end together. ``torchrun`` starts them."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from uuid import uuid4

import torch
from torch import distributed

from registry import UserError
from stylenat import ranks
from stylenat.devices import why_no_gpu
from stylenat.interfaces import Dataset

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than process 0 ever writes by itself."""
MOMENT = timedelta(seconds=5)
"""How long a process that lost another waits for each to say that it lost one, too."""
BETWEEN = 0.05
"""Seconds between two looks for the processes of this start."""
PR_SET_PDEATHSIG = 1


@contextmanager
def joined() -> Iterator[None]:
    """A process that ``torchrun`` started, together with the run's others.

    CPU tensors travel by gloo and CUDA tensors by nccl. What goes wrong is said once: the process that fails first
    raises, the others, which then miss it, leave with its exit code and no word.
    """
    # Its functions take the group of their import's time as a default: imported later, as optimizers do, they keep
    # it and its threads for ever, and a thread of it that wakes during the interpreter's exit aborts the process.
    import_module("torch.distributed.nn.functional")
    _end_with_launcher()

    if os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"] and sys.platform == "linux":
        for library in ("GLOO", "NCCL"):  # One machine: nothing needs to be reachable from outside.
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    # Before the group: a collective of nccl opens a context on the current GPU, which for all processes is the first.
    if (local := int(os.environ.get("LOCAL_RANK", "0"))) < torch.cuda.device_count():
        torch.cuda.set_device(local)
    store, rank, size = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    try:
        store = of_this_start(store, rank, size)
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo",
            store=distributed.PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
        yield
    except Exception as error:
        first = _first_to_fail(store, rank)
        if first and not _lost_another(error):
            raise
        if first:
            missing = _missing(store, [f"failed/{other}" for other in range(size)])
            lost = f"process {', '.join(map(str, missing))}" if missing else "another process"
            print(
                f"error: process {rank} waited for {lost} of this run, which died or did nothing for "
                f"{TIMEOUT.total_seconds():.0f} s; it ends too",
                file=sys.stderr,
            )
        sys.exit(2 if isinstance(error, UserError) else 1)
    distributed.destroy_process_group()


def of_this_start(store: distributed.Store, rank: int, size: int) -> distributed.Store:
    """A part of the store that these processes alone use, and nobody of an earlier start of the run.

    The store may outlive processes that were killed, with all that they left in it. No variable of ``torchrun`` names a
    start: every machine counts its own restarts, so that one that comes back counts fewer than the others. Hence each
    process shows a name of its own, and process 0 answers each name with the name of the start until all have read it.

    Raises DistStoreError where a process does not come.
    """
    own = uuid4().hex
    store.set(f"shown/{rank}", own)
    if rank == 0:
        deadline = time.monotonic() + TIMEOUT.total_seconds()
        read = [f"{own}/read/{other}" for other in range(1, size)]
        while read and not store.check(read):
            for other in range(1, size):
                # It may be the name of one that was killed: the one of this start replaces it.
                store.set(f"start/{store.get(f'shown/{other}').decode()}", own)
            if time.monotonic() > deadline:
                raise distributed.DistStoreError(f"not all of {size} processes came within {TIMEOUT}")
            time.sleep(BETWEEN)
        return distributed.PrefixStore(own, store)
    start = store.get(f"start/{own}").decode()
    store.set(f"{start}/read/{rank}", "")
    return distributed.PrefixStore(start, store)


def no_way_back() -> str | None:
    """A sentence where ``torchrun`` may restart processes of several machines, but lets no lost machine join again.

    PyTorch 2.14 shares one store among all starts then, and a machine that joins later is not told where it is.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    several = os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", "1")
    if not (restarts and several and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"):
        return None
    return "a machine that is lost cannot come back: start torchrun with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"


def _end_with_launcher() -> None:
    """Asks the kernel to kill this process when the ``torchrun`` that started it is gone (Linux).

    It would go on beside the processes that replace it, and hold the run's folder.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _first_to_fail(store: distributed.Store, rank: int) -> bool:
    """Whether no other process has noted a failure yet; this one's is noted.

    The store ends with the process that keeps it. Whoever finds it gone reports for itself.
    """
    try:
        first = store.add("failed", 1) == 1
        store.set(f"failed/{rank}", "lost another")
        return first
    except distributed.DistError:
        return True


def _missing(store: distributed.Store, keys: Sequence[str]) -> list[int]:
    """Which of the processes' keys are not there. Each has a moment for it: they notice a loss at different times."""
    found = []
    for number, key in enumerate(keys):
        try:
            store.wait([key], MOMENT)
        except distributed.DistError:  # Not there in time; or gone with the store, as its keeper's.
            found.append(number)
    return found


def _lost_another(error: BaseException) -> bool:
    """Whether this is how a collective operation fails when another process is gone."""
    backend = isinstance(error, distributed.DistError | distributed.DistBackendError | distributed.DistNetworkError)
    return backend or (isinstance(error, RuntimeError) and "gloo" in str(error))


def prepare_in_turn(dataset: Dataset) -> None:
    """Process 0 prepares the data set, then the others do: what is made once is then only read.

    On machines that do not share the files with process 0, one process after the other makes what is not there yet.
    """
    prepared = ranks.rank() == 0
    if prepared:
        dataset.prepare()
    ranks.wait_for_all()
    while True:
        creates = not prepared and getattr(dataset, "creates", None) is not None
        turns = [bool(answer) for answer in ranks.gathered_text("yes" if creates else "")]
        if not any(turns):
            break
        if turns.index(True) == ranks.rank():
            dataset.prepare()
            prepared = True
    if not prepared:
        dataset.prepare()


def pick_device(name: str, option: str = "train.device") -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``mps``. Of a machine's CUDA GPUs, the one of this process's number there.

    ``auto`` does not choose ``mps``, which has never been run.

    Raises UserError, which names the option, when there is no such device.
    """
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"{option} is 'mps', but PyTorch sees no GPU of Apple's; choose 'auto' or 'cpu'")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"{option} is 'mps', which takes one process; start without torchrun, or choose 'cpu'")
        return torch.device("mps")
    gpus = torch.cuda.device_count()
    if name == "cuda" and gpus == 0:
        raise UserError(f"{option} is 'cuda', but PyTorch sees no GPU: {why_no_gpu()}; or choose 'auto' or 'cpu'")
    if name == "cpu" or gpus == 0:
        return torch.device("cpu")
    number, here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > gpus:
        raise UserError(
            f"{here} processes on a machine with {gpus} GPU(s); start torchrun with --nproc-per-node {gpus}"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
