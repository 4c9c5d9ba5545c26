"""Backend ``shape``: for tensors without data, so that a model can be sized and its operations counted."""

from torch import Tensor


class Shape:
    """Backend ``shape``: on the meta device, exactly the useful products of neighborhood attention."""

    name = "shape"

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        return None if q.device.type == "meta" else "it computes nothing; it is for tensors on the meta device"

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, kernel_size: int, dilation: int, bias: Tensor | None, scale: float
    ) -> Tensor:
        head_dim = q.shape[-1]
        queries = q.reshape(-1, 1, head_dim)
        keys = queries.new_empty(len(queries), head_dim, kernel_size**2)
        return (queries.bmm(keys)).bmm(keys.transpose(1, 2)).view(q.shape)
