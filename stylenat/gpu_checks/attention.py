"""Check ``attention``: milliseconds of the op by backend, at shapes of ffhq256, with and without bias."""

from collections.abc import Iterator

import torch

from stylenat.attention.op import BACKENDS, neighborhood_attention
from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.measure import attempt, peak_gib, precision, seconds
from stylenat.interfaces import AttentionBackend

# Side, dilation, heads of one group.
SHAPES = ((256, 1, 2), (64, 8, 8), (256, 32, 2))
SLOW, SLOW_SIDE = ("dense", "tiled"), 64
"""Backends that are timed up to this side alone."""
BATCH, HEAD_DIM, KERNEL_SIZE = 8, 32, 7


def rows(device: torch.device) -> Iterator[Row]:
    """One row a shape, precision, backend and presence of a bias. FlexAttention compiles first, which is not timed."""
    small = device.type != "cuda"
    for side, dilation, heads in ((8, 1, 2),) if small else SHAPES:
        for name in ("bf16", "TF32"):
            for backend in BACKENDS.values():
                if backend.name not in SLOW or side <= SLOW_SIDE:
                    for with_bias in (True, False):
                        yield from _row(
                            backend, name, (1 if small else BATCH, side, dilation, heads), with_bias, device
                        )


def _row(
    backend: AttentionBackend, name: str, shape: tuple[int, int, int, int], with_bias: bool, device: torch.device
) -> Iterator[Row]:
    """None for a backend that cannot be used; the check ``exactness`` says why."""
    batch, side, dilation, heads = shape
    with precision(name, device) as dtype:
        q, k, v, grad = (torch.randn(batch, side, side, heads, HEAD_DIM, device=device, dtype=dtype) for _ in range(4))
        span = 2 * KERNEL_SIZE - 1
        bias = torch.randn(heads, span, span, device=device) if with_bias else None
        if backend.unsupported(q, KERNEL_SIZE, dilation, bias) is not None:
            return
        leaves = [t.requires_grad_() for t in (q, k, v, bias) if t is not None]

        def forward() -> torch.Tensor:
            return neighborhood_attention(
                q, k, v, kernel_size=KERNEL_SIZE, dilation=dilation, bias=bias, backend=backend
            )

        @torch.no_grad()
        def without_graph() -> None:
            forward()

        def backward() -> None:
            torch.autograd.grad(forward(), leaves, grad)

        def measured() -> dict[str, Value]:
            both = seconds(backward, device)
            alone = seconds(without_graph, device)
            return {
                "forward ms": 1e3 * alone,
                "forward and backward ms": 1e3 * both,
                "peak GiB": peak_gib(backward, device),
            }

        what = "with bias" if with_bias else "without bias"
        yield attempt(
            f"{side}x{side} d{dilation}, {batch} images, {heads} heads, {name}, {backend.name} {what}", measured
        )
