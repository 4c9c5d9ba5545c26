"""The size of a network: parameters, and multiply-accumulates of one forward."""

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(network: nn.Module) -> int:
    """Trainable numbers."""
    return sum(p.numel() for p in network.parameters())


def macs(network: nn.Module, *example: Tensor, **draws: Tensor) -> int:
    """Multiply-accumulates of products and convolutions in ``network(*example, **draws)``.

    On the meta device neighborhood attention counts its useful products: kernel_size² keys a query, twice.
    """
    with FlopCounterMode(display=False) as counter:
        network(*example, **draws)
    return counter.get_total_flops() // 2
