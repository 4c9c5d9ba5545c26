"""Backend ``compiled``: native/attention.cpp, a fused CPU kernel, forward and backward, with the bias's gradient."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from registry import HeadGroup
from stylenat.attention.grouped import KERNELS, Biases, attend, each, sums_of
from stylenat.native.build import library
from stylenat.native.threads import threads

DTYPES = (torch.float32, torch.bfloat16)


class Compiled:
    """Backend ``compiled``, for float32 on a CPU with a C++ compiler. Twice differentiable, the second time through
    ``tiled``. The same bits whatever the number of threads. Without a graph also for bfloat16, computed as float32.

    Extra memory: two numbers a query and head, and for each thread about ``2 * kernel_size`` rows of one head
    (backward: 70 more, and the weights of one row of queries), whatever the height of the image.
    """

    name = "compiled"

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        if q.device.type != "cpu":
            return f"it is for the CPU, and the tensors are on {q.device.type}"
        if q.dtype not in DTYPES or (bias is not None and bias.dtype != torch.float32):
            return f"it computes in float32, not in {q.dtype if q.dtype not in DTYPES else bias.dtype}"
        if q.dtype != torch.float32 and torch.is_grad_enabled():
            return f"it keeps no graph of {q.dtype}"
        if type(q) not in (Tensor, torch.nn.Parameter) or torch.compiler.is_exporting():
            return "it takes plain tensors, and this is a tracer's"
        return _why_not()

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
        if q.dtype != torch.float32:
            q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
            out = q.new_empty(q.shape)
            KERNELS[self.name].forward(groups, scale, (q, k, v), [bias], out, sums_of(q))
            return out
        return attend(self.name, groups, scale, (q, k, v), [bias])

    def grouped(self, qkv: Tensor, groups: Sequence[HeadGroup], biases: Sequence[Tensor], scale: float) -> Tensor:
        """All groups of a HydraAttention: [batch, height, width, 3, heads, dim] to [batch, height, width, heads, dim].

        Every group writes into its heads of the one output, and of the one gradient. Where no graph is kept, q is
        overwritten: the output is a view of it.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return attend(self.name, groups, scale, (qkv,), biases)
        qkv = qkv.contiguous()
        q, k, v = qkv.unbind(3)
        # A query's q is read before its output is written.
        KERNELS[self.name].forward(groups, scale, (q, k, v), biases, q, sums_of(q))
        return q


def _why_not() -> str | None:
    found = library()
    return found if isinstance(found, str) else None


# As torch.compiler.assume_constant_result does, which would import the whole compiler, 150 MB, with this module.
_why_not._dynamo_marked_constant = True  # type: ignore[attr-defined]


class _Kernels:
    """``stylenat.attention.grouped.Kernels`` by the library."""

    @staticmethod
    def forward(
        groups: Sequence[HeadGroup], scale: float, qkv: Sequence[Tensor], biases: Biases, out: Tensor, sums: Tensor
    ) -> None:
        for heads, group, bias in each(groups, biases):
            sizes = _Problem.of(out[..., heads, :], group, scale)
            table, scratch = _table(bias, group), _scratch(sizes, backward=False)
            forward = library().forward if out.dtype == torch.float32 else library().forward_halves
            forward(
                ctypes.byref(sizes),
                *(_view(t[..., heads, :]) for t in qkv),
                _pointer(table),
                _view(out[..., heads, :]),
                _pointer(sums[:, heads]),
                ctypes.c_int64(sums.stride(0)),
                _pointer(scratch),
            )

    @staticmethod
    def backward(
        groups: Sequence[HeadGroup],
        scale: float,
        qkv: Sequence[Tensor],
        biases: Biases,
        saved: tuple[Tensor, Tensor, Tensor],
        grads: Sequence[Tensor],
        grad_biases: Biases,
    ) -> None:
        (out, sums, grad_out), q = saved, qkv[0]
        for (heads, group, bias), grad_bias in zip(each(groups, biases), grad_biases, strict=True):
            sizes = _Problem.of(q[..., heads, :], group, scale)
            table, scratch = _table(bias, group), _scratch(sizes, backward=True)
            span = table.shape[-1]
            tasks = library().tasks(ctypes.byref(sizes))
            grad_table = torch.empty(q.shape[0], group.num_heads, tasks // (q.shape[0] * group.num_heads), span, span)
            library().backward(
                ctypes.byref(sizes),
                *(_view(t[..., heads, :]) for t in qkv),
                _pointer(table),
                _view(out[..., heads, :]),
                _pointer(sums[:, heads]),
                ctypes.c_int64(sums.stride(0)),
                *(_view(t[..., heads, :]) for t in (grad_out, *grads)),
                _pointer(grad_table),
                _pointer(scratch),
            )
            if grad_bias is not None:
                torch.sum(grad_table, dim=(0, 2), out=grad_bias)


KERNELS[Compiled.name] = _Kernels


def _table(bias: Tensor | None, group: HeadGroup) -> Tensor:
    span = 2 * group.kernel_size - 1
    return torch.zeros(group.num_heads, span, span) if bias is None else bias.contiguous()


class _View(ctypes.Structure):
    """View in native/attention.cpp."""

    _fields_ = [("data", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("batch", "row", "column", "head"))]


class _Problem(ctypes.Structure):
    """Problem in native/attention.cpp."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in ("batch", "height", "width", "heads", "dim", "kernel", "dilation", "threads")
        ),
        ("scale", ctypes.c_float),
    ]

    @classmethod
    def of(cls, q: Tensor, group: HeadGroup, scale: float) -> "_Problem":
        problem = cls(*q.shape, group.kernel_size, group.dilation, 1, scale)
        problem.threads = max(1, min(threads(), library().tasks(ctypes.byref(problem))))
        return problem


def _view(t: Tensor) -> ctypes.Structure:
    return ctypes.byref(_View(t.data_ptr(), *t.stride()[:4]))


# Only an address: the tensor itself must live until the call is over.
def _pointer(t: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(t.data_ptr())


def _scratch(problem: _Problem, backward: bool) -> Tensor:
    return torch.empty(library().scratch_floats(ctypes.byref(problem), int(backward)))
