"""Backend ``natten``: NATTEN's fused CUDA kernels (arXiv 2403.04690). Since 0.20 they know no bias."""

from importlib.util import find_spec

from torch import Tensor

from stylenat.attention.twice import twice_differentiable


class Natten:
    """Backend ``natten``, for attention without a bias. Differentiable once by its own kernels, a second time through
    ``tiled``.

    Args:
        implementation: one of NATTEN's own backends by name; None for the fused CUDA kernels that it prefers.
    """

    name = "natten"

    def __init__(self, implementation: str | None = None) -> None:
        self.implementation = implementation

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        if bias is not None:
            return "NATTEN has no relative position bias since 0.20"
        if self.implementation is not None:
            return None
        if q.device.type != "cuda":
            return f"its kernels are for CUDA, and the tensors are on {q.device.type}"
        if find_spec("natten") is None:
            return "NATTEN is not installed (see natten.org/install)"
        import natten  # A second of its own; only here is it needed.

        if not natten.HAS_LIBNATTEN:
            return "this NATTEN was installed without its CUDA kernels (see natten.org/install)"
        return None

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
        import natten

        def attend(q: Tensor, k: Tensor, v: Tensor, bias: None) -> Tensor:
            return natten.na2d(
                q, k, v, kernel_size=kernel_size, dilation=dilation, scale=scale, backend=self.implementation
            )

        return twice_differentiable(attend, q, k, v, None, kernel_size=kernel_size, dilation=dilation, scale=scale)
