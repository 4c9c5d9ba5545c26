"""The public op: checks its arguments once, picks a backend, and gets out of the way."""

from collections.abc import Sequence

from torch import Tensor

from registry import UserError
from registry.wording import did_you_mean
from stylenat.attention.compiled import Compiled
from stylenat.attention.dense import Dense
from stylenat.attention.flex import Flex
from stylenat.attention.natten_fused import Natten
from stylenat.attention.shape import Shape, without_data
from stylenat.attention.tiled import Tiled
from stylenat.attention.triton_fused import Triton
from stylenat.interfaces import AttentionBackend

Backend = str | AttentionBackend | Sequence[str | AttentionBackend] | None
"""The backend that must be used, or those that are asked before the bundled ones."""

# In order of preference.
BACKENDS: dict[str, AttentionBackend] = {
    backend.name: backend for backend in (Triton(), Natten(), Flex(), Compiled(), Tiled(), Dense())
}
SHAPE = Shape()
"""Of tensors without data, whatever backend is named."""


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kernel_size: int,
    dilation: int = 1,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: Backend = None,
) -> Tensor:
    """Every query attends to its ``kernel_size`` x ``kernel_size`` dilated neighborhood (arXiv 2209.15001).

    Args:
        q, k, v: [batch, height, width, heads, head_dim].
        kernel_size: side of the neighborhood; odd, at least 3.
        dilation: distance between neighbouring keys; ``kernel_size * dilation`` must fit both sides.
        bias: [heads, 2 * kernel_size - 1, 2 * kernel_size - 1], added to the logits, indexed by key minus query
            offset in steps of the dilation. -inf masks a key; a query whose keys are all masked gives 0, and its
            gradients are 0.
        scale: of the logits; ``head_dim ** -0.5`` by default.
        backend: a name in ``BACKENDS`` or an object of kind ``attention``; or a list of them, of which the first that
            takes the arguments here is used, before those of ``BACKENDS``; None is the empty list.

    Returns:
        [batch, height, width, heads, head_dim].

    Raises:
        UserError: arguments that no backend accepts, or that the named backend cannot take here.
    """
    _check(q, k, v, kernel_size, dilation, bias)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    chosen = choose(backend, q, kernel_size, dilation, bias)
    return chosen(q, k, v, kernel_size=kernel_size, dilation=dilation, bias=bias, scale=scale)


def _check(q: Tensor, k: Tensor, v: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> None:
    if q.ndim != 5 or q.shape != k.shape or q.shape != v.shape:
        raise UserError(
            "neighborhood attention takes q, k and v of one shape [batch, height, width, heads, head_dim]; "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if len({(t.dtype, t.device) for t in (q, k, v)}) > 1:
        raise UserError(
            "neighborhood attention takes q, k and v of one dtype on one device; "
            f"got {', '.join(f'{t.dtype} on {t.device}' for t in (q, k, v))}"
        )
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise UserError(f"kernel_size must be odd and at least 3; got {kernel_size}")
    if dilation < 1:
        raise UserError(f"dilation must be at least 1; got {dilation}")
    height, width, heads = q.shape[1:4]
    if kernel_size * dilation > min(height, width):
        raise UserError(
            f"kernel_size x dilation = {kernel_size} x {dilation} = {kernel_size * dilation} exceeds the "
            f"{height} x {width} feature map; use a smaller kernel or dilation"
        )
    span = 2 * kernel_size - 1
    if bias is not None and bias.shape != (heads, span, span):
        raise UserError(f"bias must be [{heads}, {span}, {span}]; got {list(bias.shape)}")


def choose(backend: Backend, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> AttentionBackend:
    """The named backend, or the first that can be used. Raises UserError as ``neighborhood_attention`` does."""
    asked = candidates(backend)
    if without_data(q):
        # A network that is exported is traced on such tensors: its backend must leave plain operations behind.
        return asked[0] if asked and getattr(asked[0], "traced", False) else SHAPE
    # Whoever is named is asked first: looking for others may mean to build one.
    for candidate in asked:
        reason = candidate.unsupported(q, kernel_size, dilation, bias)
        if reason is None:
            return candidate
    usable = next(b for b in BACKENDS.values() if b.unsupported(q, kernel_size, dilation, bias) is None)
    if asked and not isinstance(backend, list | tuple):
        raise UserError(f"attention backend {asked[0].name!r} cannot be used: {reason}; {usable.name!r} can")
    return usable


def candidates(backend: Backend) -> list[AttentionBackend]:
    """The backends that are named, in order. Raises UserError where there is none of a name."""
    if backend is None:
        return []
    named = list(backend) if isinstance(backend, list | tuple) else [backend]
    for name in named:
        if isinstance(name, str) and name not in BACKENDS:
            guess = did_you_mean(name, list(BACKENDS)) or "."
            raise UserError(f"there is no attention backend {name!r}{guess} There are {', '.join(BACKENDS)}")
    return [BACKENDS[b] if isinstance(b, str) else b for b in named]
