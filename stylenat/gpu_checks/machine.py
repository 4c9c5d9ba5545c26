"""Check ``machine``: what the other figures are of, and the two ceilings, arithmetic and memory."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.measure import PRECISIONS, attempt, precision, seconds


def rows(device: torch.device) -> Iterator[Row]:
    """Versions, TFLOP/s of a matrix product at each precision, GB/s of a copy."""
    yield Row("versions", _versions(device))
    side, floats = (8192, 2**28) if device.type == "cuda" else (64, 2**10)
    for name in PRECISIONS:
        yield attempt(f"matrix product, {name}", lambda name=name: _product(name, side, device))
    yield attempt("copy", lambda: _copy(floats, device))


def _versions(device: torch.device) -> dict[str, Value]:
    found: dict[str, Value] = {"device": platform.processor() or platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found = {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "GiB": properties.total_memory / 2**30,
        }
    found |= {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for package in ("triton", "natten", "stylenat"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _product(name: str, side: int, device: torch.device) -> dict[str, Value]:
    with precision(name, device) as dtype:
        a = torch.randn(side, side, device=device, dtype=dtype)
        return {"TFLOP/s": 2 * side**3 / seconds(lambda: a @ a, device) / 1e12}


def _copy(floats: int, device: torch.device) -> dict[str, Value]:
    source = torch.zeros(floats, device=device)
    target = torch.empty_like(source)
    return {"GB/s": 8 * floats / seconds(lambda: target.copy_(source), device) / 1e9}
