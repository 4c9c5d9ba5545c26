"""The contract of kind ``attention``: the numbers of the oracle ``dense``, forward and backward."""

import torch
from torch import Tensor

from stylenat.attention.dense import Dense
from stylenat.interfaces import AttentionBackend
from stylenat.testing.contract import (
    CannotCheck,
    noise,
    require,
    require_close,
    require_gradients,
    require_tensor,
    untouched,
)

CASES = ((8, 8, 3, 1), (7, 9, 3, 2), (17, 16, 5, 3), (14, 14, 7, 2), (32, 32, 7, 4))
"""Height, width, kernel size, dilation: square and not, divisible by the dilation and not, one window and many."""
BIASES = ("a bias", "a bias that masks keys", "no bias")


def check_attention(backend: AttentionBackend, device: str = "cpu", tolerance: float = 1e-4) -> None:
    """Compares results and gradients with ``dense`` in float32: with a position bias, with one that masks, without.

    What the backend says to be ``unsupported`` is passed over, but it must take one case.

    Raises:
        ContractError: other numbers than the oracle's, a wrong shape, dtype or device, inputs edited.
        CannotCheck: it supports nothing on ``device``.
    """
    require(isinstance(getattr(backend, "name", None), str), "it needs a name, a string")
    reasons = []
    for height, width, kernel_size, dilation in CASES:
        for kind in BIASES:
            qkv = noise(2, height, width, 3, 2, 8).to(device).requires_grad_()
            span = 2 * kernel_size - 1
            bias = noise(2, span, span, seed=1).to(device)
            if kind == "a bias that masks keys":  # All of them in head 1.
                bias = bias.masked_fill(bias > 0, -torch.inf)
                bias[1] = -torch.inf
            bias = None if kind == "no bias" else bias.requires_grad_()
            # Views of one projection, as HydraAttention passes them: not contiguous.
            q, k, v = qkv.unbind(3)
            reason = backend.unsupported(q, kernel_size, dilation, bias)
            require(reason is None or isinstance(reason, str), "unsupported() must return None or why, a string")
            if reason is not None:
                reasons.append(reason)
                continue
            case = f"{height}x{width}, kernel {kernel_size}, dilation {dilation}, {kind}"
            _compare(backend, (q, k, v), qkv, bias, kernel_size, dilation, case, tolerance)
    if len(reasons) == len(BIASES) * len(CASES):
        raise CannotCheck(f"it supports nothing on {device}: {reasons[0]}")


def _compare(
    backend: AttentionBackend,
    inputs: tuple[Tensor, Tensor, Tensor],
    qkv: Tensor,
    bias: Tensor | None,
    kernel_size: int,
    dilation: int,
    case: str,
    tolerance: float,
) -> None:
    q, k, v = inputs
    options = {"kernel_size": kernel_size, "dilation": dilation, "bias": bias, "scale": 0.35}
    with untouched("attention draws nothing", q=q, k=k, v=v, bias=bias):
        ours = backend(q, k, v, **options)
    require_tensor(ours, tuple(q.shape), q.dtype, f"its result ({case})")
    require(ours.device == q.device, f"its result must stay on {q.device}; got {ours.device}")
    theirs = Dense()(q, k, v, **options)
    require_close(ours, theirs, tolerance, f"its result differs from the oracle's ({case})")
    wanted = {"q, k, v": qkv} | ({} if bias is None else {"bias": bias})
    require_gradients(ours, wanted)
    weights = noise(*q.shape, seed=2).to(q.device)
    pairs = zip(
        wanted,
        torch.autograd.grad((ours * weights).sum(), list(wanted.values())),
        torch.autograd.grad((theirs * weights).sum(), list(wanted.values())),
        strict=True,
    )
    for name, our, their in pairs:
        require_close(our, their, tolerance, f"the gradient of {name} differs from the oracle's ({case})")
