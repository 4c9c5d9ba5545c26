"""bfloat16 for sampling and evaluation (``--precision bf16``), whatever precision the training ran in."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stylenat.sampling import is_style_based

CPUINFO = Path("/proc/cpuinfo")


def lower(generator: nn.Module, device: torch.device) -> str | None:
    """The generator's images are made in bfloat16 from now on. It cannot be trained any more.

    On a CPU a generator that can (``interfaces.Generator``) changes its weights, once. For others, and on other
    devices, PyTorch's autocast decides in which precision an operation runs. Styles stay float32.

    Returns why that is not faster on this machine; None where it should be.
    """
    if not (device.type == "cpu" and hasattr(generator, "lower_precision") and generator.lower_precision()):
        name = "synthesis" if is_style_based(generator) else "forward"
        setattr(generator, name, _in_autocast(getattr(generator, name), device.type))
    generator.sampled_in = "bfloat16"
    return why_not_faster(device)


def why_not_faster(device: torch.device) -> str | None:
    """Why bfloat16 is not faster than float32 there; None where it should be."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return f"{torch.cuda.get_device_name(device)} has no bfloat16 arithmetic"
    if device.type == "cpu" and not _instructions():
        return "this CPU has no bfloat16 instructions (AVX512-BF16, AMX or Arm's)"
    return None


def _instructions() -> bool:
    if not CPUINFO.exists():  # A Mac: its processors since the M2 have them.
        return True
    lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _in_autocast(f: Callable[..., Any], kind: str) -> Callable[..., Any]:
    @functools.wraps(f)  # Its parameters say what it takes (``sampling.takes_transform``).
    def called(*arguments: Any, **named: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16):
            images = f(*arguments, **named)
        return images.float()

    return called
