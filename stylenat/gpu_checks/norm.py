"""Check ``norm``: AdaIN's fused operator against float64, forward and backward, and the times of it and the formula."""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from registry.wording import reason
from stylenat.gpu_checks import Row
from stylenat.gpu_checks.measure import precision, seconds
from stylenat.networks.fused_norm import why_not
from stylenat.networks.layers import AdaIN
from stylenat.networks.modulated_norm import fused, plain

EPS = AdaIN.eps
ALLOWED = {"float32": 1e-5, "bf16": 1e-2}
"""|error| / |result|, Euclidean, where the mean is no larger than the deviation; a larger one adds its own rounding."""
RESULTS = ("output", "dx", "dmodulation")


@dataclass(frozen=True)
class Case:
    """``mean`` of x, over its deviation."""

    batch: int
    side: int
    channels: int
    mean: float = 0.0

    def __str__(self) -> str:
        mean = f", mean {self.mean:g}" if self.mean else ""
        return f"{self.side}x{self.side}x{self.channels}{mean}, {self.batch} images"


CASES = (Case(4, 256, 128), Case(8, 64, 512), Case(8, 16, 512), Case(3, 75, 40), Case(2, 128, 64, mean=1e3))
SMALL = (Case(2, 6, 8), Case(1, 5, 3, mean=1e3))


def rows(device: torch.device) -> Iterator[Row]:
    """One row a map and precision. On a CPU the operator computes the plain formula."""
    if device.type == "cuda" and (refusal := why_not(torch.cuda.current_device())) is not None:
        yield Row("fused", note=f"not usable: {refusal}")
        return
    for case in CASES if device.type == "cuda" else SMALL:
        for name in ALLOWED:
            yield _row(case, name, device)


def _row(case: Case, name: str, device: torch.device) -> Row:
    """An operator that fails is inexact."""
    title = f"{case}, {name}"
    try:
        values = _measured(case, name, device)
    except torch.OutOfMemoryError:
        return Row(title, note="out of memory")
    except Exception as error:  # Any: to fail is the operator's result.
        traceback.print_exc()
        return Row(title, exact=False, note=f"failed: {reason(error)}"[:300])
    allowed = ALLOWED[name] + case.mean * torch.finfo(torch.float32).eps
    return Row(title, values, exact=all(values[result] <= allowed for result in RESULTS))


def _measured(case: Case, name: str, device: torch.device) -> dict[str, float | bool]:
    random = torch.Generator().manual_seed(0)
    shape = (case.batch, case.side**2, case.channels)
    x, grad = (torch.randn(shape, generator=random).to(device) for _ in range(2))
    x, modulation = x + case.mean, torch.randn(case.batch, 2 * case.channels, generator=random).to(device)
    with precision(name, device) as dtype:
        leaves = x.requires_grad_(), modulation.to(dtype).requires_grad_()
        got, again = (_results(fused, *leaves, grad.to(dtype)) for _ in range(2))
        values: dict[str, float | bool] = {"same bits twice": all(map(torch.equal, got, again))}
        for title, norm in (("fused", fused), ("plain", plain)):
            values[f"{title} ms"] = 1e3 * seconds(lambda norm=norm: _results(norm, *leaves, grad.to(dtype)), device)
    exact = _results(plain, *(t.detach().double().requires_grad_() for t in leaves), grad.to(dtype))
    errors = {
        result: float((ours.double() - true).norm() / true.norm())
        for result, ours, true in zip(RESULTS, got, exact, strict=True)
    }
    return errors | values


def _results(norm: Callable[..., Tensor], x: Tensor, modulation: Tensor, grad: Tensor) -> list[Tensor]:
    """The output and the gradients."""
    out = norm(x, modulation, EPS)
    return [out.detach(), *torch.autograd.grad(out, (x, modulation), grad.to(out.dtype))]
