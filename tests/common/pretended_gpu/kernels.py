"""In the place of the kernels of a real GPU: each is one operation, as there, and its numbers mean nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from stylenat.attention.grouped import KERNELS
from stylenat.attention.op import BACKENDS
from stylenat.attention.shape import Shape


class _Kernels:
    """Attention: one operation forward and one backward, for all groups of a layer."""

    def forward(self, groups, scale, qkv, biases, out, sums):
        out.zero_()
        sums.zero_()

    def backward(self, groups, scale, qkv, biases, saved, grads, grad_biases):
        for grad in (*grads, *grad_biases):
            grad.zero_()


class _Fused(Shape):
    name = "fused"

    def unsupported(self, q, kernel_size, dilation, bias):
        return None


@contextmanager
def pretended_kernels() -> Iterator[None]:
    """Within ``pretended_gpu``: attention and AdaIN are one operator each, so that operations can be counted."""
    with (
        patch.dict(BACKENDS, {"fused": _Fused()}, clear=True),
        patch.dict(KERNELS, {"fused": _Kernels()}),
        patch("stylenat.networks.fused_norm.why_not", lambda index: None),
    ):
        yield
