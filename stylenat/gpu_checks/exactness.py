"""Check ``exactness``: every backend of the attention op against float64, at every precision, forward and backward."""

import math
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from registry.wording import reason
from stylenat.attention.op import BACKENDS, neighborhood_attention
from stylenat.gpu_checks import Row
from stylenat.gpu_checks.measure import PRECISIONS, precision
from stylenat.interfaces import AttentionBackend

ALLOWED = {"float32": 1e-5, "TF32": 5e-3, "bf16": 3e-2, "fp16": 5e-3}
"""|error| / |result|, Euclidean, of the output and of each gradient: a few roundings of that precision's factors."""
RESULTS = ("output", "dq", "dk", "dv", "dbias")
DENSE_TOKENS = 64 * 64
"""The most for which the float64 reference is ``dense``; beyond, it is ``tiled``."""


@dataclass(frozen=True)
class Case:
    """One call of the op. ``core`` ones are tried by every backend, also by those that compile for seconds."""

    height: int
    width: int
    kernel_size: int
    dilation: int
    head_dim: int = 32
    masked: bool = False
    core: bool = False

    def __str__(self) -> str:
        masked = " masked" if self.masked else ""
        return f"{self.height}x{self.width} k{self.kernel_size} d{self.dilation} head_dim {self.head_dim}{masked}"


CASES = (
    Case(16, 16, 7, 1, masked=True, core=True),
    Case(30, 30, 7, 4, core=True),  # The dilation does not divide the side.
    Case(64, 64, 7, 1),
    Case(32, 32, 7, 4),
    Case(23, 22, 7, 3),
    Case(13, 13, 13, 1),  # One window is the map.
    Case(28, 28, 7, 4, head_dim=64),  # kernel_size x dilation is the side.
    Case(20, 33, 3, 1, head_dim=8),
    Case(20, 17, 5, 2, head_dim=16),
    Case(24, 24, 7, 1, head_dim=128),
    Case(16, 16, 7, 2),
    Case(256, 256, 7, 32),
)
SMALL = (Case(6, 7, 3, 2, 8, core=True), Case(8, 9, 5, 1, 8), Case(5, 6, 3, 1, 8, masked=True))


def rows(device: torch.device) -> Iterator[Row]:
    """One row a backend and precision: the largest error over the cases that it takes."""
    cases = CASES if device.type == "cuda" else SMALL
    backends = list(BACKENDS.values())
    # FlexAttention compiles each shape for seconds: what is quick comes first.
    for backend in sorted(backends, key=lambda backend: backend.name == "flex"):
        for name in PRECISIONS:
            mine = [case for case in cases if case.core or backend.name != "flex"]
            yield compared(backend, name, mine, device)


def compared(backend: AttentionBackend, name: str, cases: list[Case], device: torch.device) -> Row:
    """The row of one backend at one precision. A backend that takes a call and then fails is inexact."""
    title, dtype = f"{backend.name}, {name}", PRECISIONS[name][0]
    worst, at, same_bits, done, refusals = dict.fromkeys(RESULTS, 0.0), "", True, 0, []
    for case in cases:
        for with_bias in (True, False):
            inputs, grad = tensors(case, dtype, with_bias, device)
            bias = inputs[3] if with_bias else None
            refusal = backend.unsupported(inputs[0], case.kernel_size, case.dilation, bias)
            if refusal is not None:
                refusals.append(refusal)
                continue
            try:
                got, again = (results(backend, case, name, inputs, grad, device) for _ in range(2))
                want = reference(case, dtype, with_bias, device)
            except torch.OutOfMemoryError:
                refusals.append(f"out of memory at {case}")
                continue
            except Exception as error:  # Any: to fail is this backend's result.
                traceback.print_exc()
                return Row(title, exact=False, note=f"failed at {case}: {reason(error)}"[:300])
            errors = {result: _error(g, w) for result, g, w in zip(RESULTS, got, want, strict=False)}
            if max(errors.values()) > max(worst.values()):
                at = str(case)
            worst |= {result: max(error, worst[result]) for result, error in errors.items()}
            same_bits &= all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
            done += 1
            if backend.name == "flex" or not case.core:
                break  # With a bias is enough.
    if not done:
        return Row(title, note=f"not usable: {refusals[-1]}")
    shown = {result: error if math.isfinite(error) else "not finite" for result, error in worst.items()}
    values = {"cases": done, **shown, "worst at": at, "same bits twice": same_bits}
    return Row(title, values, exact=max(worst.values()) <= ALLOWED[name])


def tensors(case: Case, dtype: torch.dtype, with_bias: bool, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Leaves q, k, v and the bias table (float32, as a parameter is), and the gradient of the output."""
    random = torch.Generator().manual_seed(0)
    shape, span = (2, case.height, case.width, 2, case.head_dim), 2 * case.kernel_size - 1
    if case.height * case.width > DENSE_TOKENS:
        shape = (1, *shape[1:])
    q, k, v, grad = (torch.randn(shape, generator=random).to(device, dtype) for _ in range(4))
    leaves = [q, k, v]
    if with_bias:
        bias = torch.randn(2, span, span, generator=random)
        if case.masked:  # Every other offset, and all keys of one head.
            bias.view(-1)[::2] = -torch.inf
            bias[1] = -torch.inf
        leaves.append(bias.to(device))
    return [leaf.requires_grad_() for leaf in leaves], grad


def results(
    backend: AttentionBackend, case: Case, name: str, inputs: list[Tensor], grad: Tensor, device: torch.device
) -> list[Tensor]:
    """The output and the gradients of all inputs, called as a layer calls it."""
    with precision(name, device):
        out = _op(backend, case, inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


@lru_cache(maxsize=4 * len(CASES))
def reference(case: Case, dtype: torch.dtype, with_bias: bool, device: torch.device) -> list[Tensor]:
    """The same of the same rounded inputs in float64."""
    inputs, grad = tensors(case, dtype, with_bias, device)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    out = _op(BACKENDS["dense" if case.height * case.width <= DENSE_TOKENS else "tiled"], case, exact)
    return [out.detach(), *torch.autograd.grad(out, exact, grad.double())]


def _op(backend: AttentionBackend, case: Case, inputs: list[Tensor]) -> Tensor:
    bias = inputs[3] if len(inputs) > 3 else None
    return neighborhood_attention(
        *inputs[:3], kernel_size=case.kernel_size, dilation=case.dilation, bias=bias, backend=backend
    )


def _error(got: Tensor, want: Tensor) -> float:
    """Relative; infinite where something is NaN."""
    error = float((got.double() - want).norm() / want.norm())
    return math.inf if math.isnan(error) else error
