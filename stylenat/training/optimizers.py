"""Optimizers by name: thin factories around ``torch.optim``, with the lazy correction of StyleGAN2."""

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import nn

from registry import Bounds, NotNegative, Positive
from stylenat.interfaces import Schedule, Time, at

Beta = Annotated[float, Bounds(0, 0.999999)]
Parameters = Iterable[nn.Parameter]


class Adam:
    """Optimizer ``adam`` (arXiv 1412.6980).

    Args:
        betas: decay rates of the running averages of gradient and squared gradient; each may move in time.
        epsilon: added to the root of the squared gradient's average.
        epsilon_hat: whether it is added before that average's bias is corrected, as Keras does (the end of section 2).
    """

    def __init__(
        self,
        betas: tuple[Beta | Schedule, Beta | Schedule] = (0.0, 0.99),
        epsilon: Positive = 1e-8,
        epsilon_hat: bool = False,
    ) -> None:
        self.betas, self.epsilon, self.epsilon_hat = betas, epsilon, epsilon_hat

    def __call__(self, parameters: Parameters, learning_rate: float, lazy_ratio: float = 1.0) -> torch.optim.Optimizer:
        # Betas that move are set before the first step.
        betas = [0.0 if callable(beta) else beta**lazy_ratio for beta in self.betas]
        return self._made(parameters, learning_rate, (betas[0], betas[1]), lazy_ratio)

    def _made(
        self, parameters: Parameters, learning_rate: float, betas: tuple[float, float], lazy_ratio: float
    ) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(parameters, lr=learning_rate, betas=betas, eps=self.epsilon, fused=True)
        optimizer.defaults["lazy_ratio"] = lazy_ratio
        return optimizer

    def adjust(self, optimizer: torch.optim.Optimizer, time: Time) -> None:
        """Sets the betas and the epsilon of this iteration."""
        if any(map(callable, self.betas)):
            ratio = optimizer.defaults["lazy_ratio"]
            for group in optimizer.param_groups:
                group["betas"] = tuple(at(beta, time) ** ratio for beta in self.betas)
        if self.epsilon_hat:
            for group in optimizer.param_groups:  # PyTorch divides the root by sqrt(1 - beta2 ** t) before it adds.
                group["eps"] = self.epsilon / (1 - group["betas"][1] ** (time.iteration + 1)) ** 0.5


class AdamW(Adam):
    """Optimizer ``adamw``: Adam with decoupled weight decay (arXiv 1711.05101).

    Args:
        betas, epsilon: as Adam's; weight_decay: of all parameters, times the learning rate, a step.
    """

    def __init__(
        self,
        betas: tuple[Beta | Schedule, Beta | Schedule] = (0.0, 0.99),
        epsilon: Positive = 1e-8,
        weight_decay: NotNegative = 0.01,
    ) -> None:
        super().__init__(betas, epsilon)
        self.weight_decay = weight_decay

    def _made(
        self, parameters: Parameters, learning_rate: float, betas: tuple[float, float], lazy_ratio: float
    ) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(
            parameters, lr=learning_rate, betas=betas, eps=self.epsilon, weight_decay=self.weight_decay, fused=True
        )
        optimizer.defaults["lazy_ratio"] = lazy_ratio
        return optimizer


class RMSProp:
    """Optimizer ``rmsprop``: WGAN's (arXiv 1701.07875, algorithm 1).

    Args:
        decay: rate of the running average of the squared gradient; epsilon: added to its root.
    """

    def __init__(self, decay: Beta = 0.99, epsilon: Positive = 1e-8) -> None:
        self.decay, self.epsilon = decay, epsilon

    def __call__(self, parameters: Parameters, learning_rate: float, lazy_ratio: float = 1.0) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=learning_rate, alpha=self.decay**lazy_ratio, eps=self.epsilon)


class SGD:
    """Optimizer ``sgd``: gradient descent.

    Args:
        momentum: decay rate of the running sum of gradients; weight_decay: of all parameters.
    """

    def __init__(self, momentum: Beta = 0.0, weight_decay: NotNegative = 0.0) -> None:
        self.momentum, self.weight_decay = momentum, weight_decay

    def __call__(self, parameters: Parameters, learning_rate: float, lazy_ratio: float = 1.0) -> torch.optim.Optimizer:
        momentum = self.momentum**lazy_ratio if self.momentum else 0.0
        return torch.optim.SGD(
            parameters, lr=learning_rate, momentum=momentum, weight_decay=self.weight_decay, fused=True
        )
