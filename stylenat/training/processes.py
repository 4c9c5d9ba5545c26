"""How the processes of one run find each other, and how they end together. ``torchrun`` starts them."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module

import torch
from torch import distributed

from registry import UserError
from stylenat import ranks
from stylenat.devices import why_no_gpu

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others: longer than process 0 ever writes by itself."""
MOMENT = timedelta(seconds=5)
"""How long a process that lost another waits for each to say that it lost one, too."""


@contextmanager
def joined() -> Iterator[None]:
    """A process that ``torchrun`` started, together with the run's others.

    CPU tensors travel by gloo and CUDA tensors by nccl. What goes wrong is said once: the process that fails first
    raises, the others, which then miss it, leave with its exit code and no word.
    """
    # Its functions take the group of their import's time as a default: imported later, as optimizers do, they keep
    # it and its threads for ever, and a thread of it that wakes during the interpreter's exit aborts the process.
    import_module("torch.distributed.nn.functional")

    if os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"] and sys.platform == "linux":
        for library in ("GLOO", "NCCL"):  # One machine: nothing needs to be reachable from outside.
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    # Before the group: a collective of nccl opens a context on the current GPU, which for all processes is the first.
    if (local := int(os.environ.get("LOCAL_RANK", "0"))) < torch.cuda.device_count():
        torch.cuda.set_device(local)
    store, rank, size = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo",
            store=distributed.PrefixStore(f"run/{attempt}", store),
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
        yield
    except Exception as error:
        first = store.add(f"failed/{attempt}", 1) == 1
        store.set(f"failed/{attempt}/{rank}", "lost another")
        if first and not _lost_another(error):
            raise
        if first:
            missing = _missing(store, [f"failed/{attempt}/{other}" for other in range(size)])
            lost = f"process {', '.join(map(str, missing))}" if missing else "another process"
            print(
                f"error: process {rank} waited for {lost} of this run, which died or did nothing for "
                f"{TIMEOUT.total_seconds():.0f} s; it ends too",
                file=sys.stderr,
            )
        sys.exit(2 if isinstance(error, UserError) else 1)
    distributed.destroy_process_group()


def _missing(store: distributed.Store, keys: Sequence[str]) -> list[int]:
    """Which of the processes' keys are not there. Each has a moment for it: they notice a loss at different times."""
    found = []
    for number, key in enumerate(keys):
        try:
            store.wait([key], MOMENT)
        except distributed.DistStoreError:
            found.append(number)
    return found


def _lost_another(error: BaseException) -> bool:
    """Whether this is how a collective operation fails when another process is gone."""
    backend = isinstance(error, distributed.DistError | distributed.DistBackendError | distributed.DistNetworkError)
    return backend or (isinstance(error, RuntimeError) and "gloo" in str(error))


def first_alone(work: Callable[[], None]) -> None:
    """Process 0 does it, then the others do: what is made once and then only read."""
    if ranks.rank() == 0:
        work()
    ranks.wait_for_all()
    if ranks.rank() != 0:
        work()


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
