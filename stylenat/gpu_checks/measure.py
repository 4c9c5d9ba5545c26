"""Seconds, peak memory, kernel launches and host waits of a piece of work, and what becomes of a case that fails."""

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from registry import UserError
from registry.wording import reason
from stylenat.gpu_checks import Row, Value

PRECISIONS = {
    "float32": (torch.float32, False),
    "TF32": (torch.float32, True),
    "bf16": (torch.bfloat16, True),
    "fp16": (torch.float16, True),
}
"""The networks' dtype, and whether products of float32 factors may round them to TF32."""


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[torch.dtype]:
    """One of ``PRECISIONS`` as training has it: autocast for half precision. Gives the dtype."""
    dtype, tf32 = PRECISIONS[name]
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield dtype
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def attempt(case: str, measured: Callable[[], dict[str, Value]]) -> Row:
    """The row of a measurement. One that fails is a row that says why; its traceback goes to the log."""
    try:
        return Row(case, measured())
    except torch.OutOfMemoryError:
        return Row(case, note="out of memory")
    except UserError as error:
        return Row(case, note=str(error))
    except Exception as error:  # Any: the other cases are worth knowing.
        traceback.print_exc()
        return Row(case, note=f"failed: {reason(error)}"[:300])
    finally:
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 10, warm_up: int = 2) -> float:
    """The median time of one call, on the device's clock."""
    if device.type != "cuda":
        work()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    for _ in range(warm_up):
        work()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for before, after in events:
        before.record()
        work()
        after.record()
    torch.cuda.synchronize()
    return sorted(before.elapsed_time(after) for before, after in events)[repeats // 2] / 1000


def peak_gib(work: Callable[[], object], device: torch.device) -> float | None:
    """The most memory that PyTorch's allocator held during the work, with what was there before; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def launches_and_waits(work: Callable[[], object], device: torch.device) -> dict[str, Value]:
    """Kernel launches and host waits for the device in one call, by PyTorch's profiler; nothing on a CPU.

    Both are None where the profiler may not look at the device, as in containers without the right to.
    """
    if device.type != "cuda":
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    return counted({event.key: event.count for event in profiled.key_averages()})


def counted(calls: Mapping[str, int]) -> dict[str, Value]:
    """The same from the number of calls of each function of CUDA's."""
    launches = sum(n for name, n in calls.items() if name.startswith(("cudaLaunchKernel", "cuLaunchKernel")))
    if not launches:
        return {"launches": None, "waits": None}
    # cudaDeviceSynchronize is ours and the profiler's; a blocking copy waits for its stream.
    waits = calls.get("cudaStreamSynchronize", 0) + calls.get("cudaEventSynchronize", 0)
    return {"launches": launches, "waits": waits}
