"""Backend ``triton``: fused, deterministic CUDA kernels with the learned bias and the dilation (``triton_kernels``)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from registry import HeadGroup
from stylenat.attention.grouped import KERNELS, Biases, attend, each

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
PLAIN = (Tensor, torch.nn.Parameter)
WIDEST_HEAD, LARGEST_KERNEL = 128, 63
OLDEST = (8, 0)
"""Compute capability of an A100, the oldest card whose tensor cores know bfloat16 and TF32."""


@dataclass(frozen=True)
class Tiles:
    """How a program cuts its work: rows and columns of its tile of queries (keys), and of a strip of keys (queries)."""

    tile: tuple[int, int] = (8, 8)
    strip: tuple[int, int] = (2, 16)
    warps: int = 4
    stages: int = 1

    def constants(self) -> dict[str, int]:
        """As the kernels take them."""
        names = ("TY", "TX", "SY", "SX")
        return dict(zip(names, (*self.tile, *self.strip), strict=True)) | {
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


def tiles_for(kernel: str, head_dim: int, precision: str) -> Tiles:
    """Chosen by ``benchmarks/triton_static.py``: for heads up to 64, nothing is spilled on any card.

    Args:
        kernel: name of one of ``triton_kernels``.
        precision: ``ieee`` (float32 without tensor cores), ``tf32``, ``bf16`` or ``fp16``.
    """
    queries, keys = kernel == "attention_backward_queries", kernel == "attention_backward_keys"
    if head_dim > 64:
        return Tiles(tile=(4, 8), strip=(4, 8) if queries else (2, 8), warps=8)
    if keys and head_dim <= 16 and precision != "tf32":
        return Tiles(tile=(4, 8) if precision == "ieee" else (8, 8), strip=(1, 16), warps=8)
    if precision == "ieee" and keys:
        return Tiles(strip=(1, 16))
    # Rows of a tile times rows of a strip are a side of a product in the bias's gradient: at least 16.
    if queries and (precision == "ieee" or head_dim > 32):
        few_warps = precision == "tf32" or (precision == "ieee" and 8 < head_dim <= 16)
        return Tiles(strip=(2, 8), warps=4 if few_warps else 8)
    if keys and head_dim > 32 and precision != "tf32":
        return Tiles(strip=(2, 8))
    if precision == "ieee" or head_dim > 32:
        return Tiles(strip=(1, 16), warps=8)
    many_registers = (precision == "tf32" and not keys) or (queries and head_dim <= 16)
    return Tiles(warps=8 if many_registers else 4)


class Triton:
    """Backend ``triton``: float32, bfloat16 and float16 on CUDA. Equal inputs give equal bits, gradients included.

    Differentiable once by its own kernels, a second time through ``tiled``. Extra memory: three numbers a query and
    head, and a bias table for each tile of 64 queries.

    Args:
        interpreted: runs on CPU tensors in Triton's interpreter, slowly, to check exactness. The environment variable
            ``TRITON_INTERPRET=1`` must be set before anything imports Triton.
    """

    name = "triton"

    def __init__(self, interpreted: bool = False) -> None:
        self.interpreted = interpreted
        self._kernels = "triton, interpreted" if interpreted else "triton"

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        wanted = "cpu" if self.interpreted else "cuda"
        if q.device.type != wanted:
            return f"its kernels are for {wanted.upper()}, and the tensors are on {q.device.type}"
        if type(q) not in PLAIN:
            return f"it takes plain tensors, and this is a {type(q).__name__}"
        if q.dtype not in DTYPES:
            return f"it computes in float32, bfloat16 and float16, not in {q.dtype}"
        if q.shape[-1] > WIDEST_HEAD:
            return f"its kernels take a head_dim of at most {WIDEST_HEAD}, not {q.shape[-1]}"
        if kernel_size > LARGEST_KERNEL:
            return f"its kernels take a kernel_size of at most {LARGEST_KERNEL}, not {kernel_size}"
        return why_no_triton(None if self.interpreted else q.device.index)

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        kernel_size: int,
        dilation: int,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        groups = [HeadGroup(q.shape[3], kernel_size, dilation)]
        return attend(self._kernels, groups, scale, (q, k, v), [bias])

    def grouped(self, qkv: Tensor, groups: Sequence[HeadGroup], biases: Sequence[Tensor], scale: float) -> Tensor:
        """All groups of a HydraAttention: [batch, height, width, 3, heads, dim] to [batch, height, width, heads, dim].

        Every group writes into its heads of the one output, and of the one gradient.
        """
        return attend(self._kernels, groups, scale, (qkv,), biases)

    def forward(
        self,
        groups: Sequence[HeadGroup],
        scale: float,
        qkv: Sequence[Tensor],
        biases: Biases,
        out: Tensor,
        sums: Tensor,
    ) -> None:
        for own, group, bias in each(groups, biases):
            q, k, v, result = (t[..., own, :] for t in (*qkv, out))
            tensors = (q, k, v, bias, result, sums[:, own])
            self._launch("attention_forward", group, scale, bias, tensors, views=(q, k, v, result))

    def backward(
        self,
        groups: Sequence[HeadGroup],
        scale: float,
        qkv: Sequence[Tensor],
        biases: Biases,
        saved: tuple[Tensor, Tensor, Tensor],
        grads: Sequence[Tensor],
        grad_biases: Biases,
    ) -> None:
        out, logsum, grad_out = saved
        delta = torch.empty(out.shape[0], out.shape[3], *out.shape[1:3], device=out.device)
        for (own, group, bias), grad_bias in zip(each(groups, biases), grad_biases, strict=True):
            q, k, v, result, grad, grad_q, grad_k, grad_v = (t[..., own, :] for t in (*qkv, out, grad_out, *grads))
            sums, means = logsum[:, own], delta[:, own]
            partial = None if grad_bias is None else self._partial(q, group)
            tensors = (q, k, v, bias, result, sums, grad, means, grad_q, partial)
            views = (q, k, v, result, grad, grad_q)
            extra = {"GRAD_BIAS": partial is not None, "SPAN": power_of_two(2 * group.kernel_size - 1)}
            self._launch("attention_backward_queries", group, scale, bias, tensors, views, **extra)
            tensors = (q, k, v, bias, sums, grad, means, grad_k, grad_v)
            views = (q, k, v, grad, grad_k, grad_v)
            self._launch("attention_backward_keys", group, scale, bias, tensors, views)
            if grad_bias is not None:
                grad_bias.copy_(partial.sum(dim=(0, 2)))

    @staticmethod
    def _tiles(kernel: str, q: Tensor) -> Tiles:
        half = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        return tiles_for(kernel, q.shape[-1], half.get(q.dtype) or precision(q.dtype))

    def _partial(self, q: Tensor, group: HeadGroup) -> Tensor:
        """Room for every program's share of the bias's gradient."""
        span, programs = (
            2 * group.kernel_size - 1,
            _programs(q.shape, group, self._tiles("attention_backward_queries", q)),
        )
        return torch.empty(q.shape[0], group.num_heads, programs, span, span, device=q.device)

    def _launch(
        self,
        name: str,
        group: HeadGroup,
        scale: float,
        bias: Tensor | None,
        tensors: Sequence[Tensor | None],
        views: Sequence[Tensor],
        **extra: int,
    ) -> None:
        """Runs one kernel. ``views``: of the tensors, those whose strides it takes; missing tensors are never read."""
        from stylenat.attention import triton_kernels

        q = views[0]
        batch, height, width, heads, head_dim = q.shape
        tiles = self._tiles(name, q)
        constants = {
            "KERNEL": group.kernel_size,
            "DIM": head_dim,
            "BLOCK": power_of_two(head_dim),
            "HAS_BIAS": bias is not None,
            "PRECISION": precision(q.dtype),
            "UPCAST": self.interpreted,
        }
        logsum = next(t for t in tensors if t is not None and t.ndim == 4)
        strides = [stride for t in views for stride in t.stride()[:4]]
        sizes = (scale, heads, height, width, group.dilation, logsum.stride(0))
        with torch.cuda.device(q.device if q.is_cuda else -1):
            getattr(triton_kernels, name)[(batch * heads * _programs(q.shape, group, tiles),)](
                *(q if t is None else t for t in tensors), *sizes, *strides, **constants, **extra, **tiles.constants()
            )


def why_no_triton(index: int | None) -> str | None:
    """Why Triton's kernels cannot run on the GPU of this index, or in its interpreter (None); None where they can."""
    if index is not None and (capability := torch.cuda.get_device_capability(index)) < OLDEST:
        return f"it needs compute capability {OLDEST[0]}.{OLDEST[1]}, and this GPU has {capability[0]}.{capability[1]}"
    try:
        import triton  # noqa: F401 - a second of its own; only here is it needed
    except ImportError:
        return "Triton is not installed; it comes with PyTorch's CUDA builds for Linux"
    return None


# As torch.compiler.assume_constant_result does, which would import the whole compiler, 150 MB, with this module.
why_no_triton._dynamo_marked_constant = True  # type: ignore[attr-defined]


def precision(dtype: torch.dtype) -> str:
    """Of products of float32 numbers. Those of half precision have a few, of the bias's gradient."""
    return "ieee" if dtype == torch.float32 and not torch.backends.cuda.matmul.allow_tf32 else "tf32"


def power_of_two(size: int) -> int:
    """At least 16, the smallest side of a product on tensor cores."""
    return max(16, 1 << (size - 1).bit_length())


def _programs(shape: Sequence[int], group: HeadGroup, tiles: Tiles) -> int:
    """Programs for each head and image."""
    count = group.dilation**2
    for side, tile in zip(shape[1:3], tiles.tile, strict=True):
        longest = -(-side // group.dilation)
        count *= -(-longest // tile)
    return count


for _backend in (Triton(), Triton(interpreted=True)):
    KERNELS[_backend._kernels] = _backend
