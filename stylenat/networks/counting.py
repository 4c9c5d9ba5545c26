"""The size of a network: parameters, and multiply-accumulates of one forward."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import stylenat.attention.grouped  # noqa: F401 - defines the operator that is counted below


def parameters(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in network.parameters())


def macs(network: nn.Module, *example: Tensor, **draws: Tensor) -> int:
    """Multiply-accumulates of products and convolutions in ``network(*example, **draws)``.

    On the meta device neighborhood attention counts its useful products: kernel_size² keys a query, twice.
    """
    attention = {torch.ops.stylenat.grouped_attention: _attention}
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        network(*example, **draws)
    return counter.get_total_flops() // 2


def _attention(
    kernels: str,
    inputs: Sequence[Sequence[int]],
    biases: Sequence[Sequence[int]],
    heads: Sequence[int],
    sizes: Sequence[int],
    dilations: Sequence[int],
    scale: float,
    **_: object,
) -> int:
    """Floating-point operations, two a product, from the shapes of the operator's tensors."""
    batch, height, width = inputs[0][:3]
    keys = sum(count * size**2 for count, size in zip(heads, sizes, strict=True))
    return 2 * 2 * batch * height * width * keys * inputs[0][-1]
