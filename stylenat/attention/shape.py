"""Backend ``shape``: for tensors without data, so that a model can be sized and its operations and memory counted."""

from collections.abc import Sequence

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from registry import HeadGroup
from stylenat.attention.grouped import attend


class Shape:
    """Backend ``shape``: the operator that fused kernels are called by, which on these tensors gives shapes alone."""

    name = "shape"

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        return None if without_data(q) else "it computes nothing; it is for tensors without data"

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, kernel_size: int, dilation: int, bias: Tensor | None, scale: float
    ) -> Tensor:
        return attend(self.name, [HeadGroup(q.shape[3], kernel_size, dilation)], scale, (q, k, v), [bias])

    def grouped(self, qkv: Tensor, groups: Sequence[HeadGroup], biases: Sequence[Tensor], scale: float) -> Tensor:
        """All groups of a layer: [batch, height, width, 3, heads, dim] to [batch, height, width, heads, dim]."""
        return attend(self.name, groups, scale, (qkv,), biases)


def without_data(t: Tensor) -> bool:
    """Whether it is on the meta device, or pretends to be on another."""
    return t.device.type == "meta" or isinstance(t, FakeTensor)
