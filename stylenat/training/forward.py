"""How training calls a network: its precision, compilation, memory format, and which activations are kept.

The network itself stays as it is, in float32 and under its own names: checkpoints and the average know nothing of this.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stylenat.draws import conditions
from stylenat.training.compilation import compiled
from stylenat.training.settings import Training

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Forward:
    """A network as the training steps call it. Its output has its input's type, float32.

    Second derivatives go through ``exactly``: PyTorch cannot compile them, and penalties on gradients need float32.
    """

    def __init__(self, network: nn.Module, settings: Training) -> None:
        self._network = network
        self._precision = PRECISIONS.get(settings.precision)
        self._channels_last = settings.channels_last
        if settings.activation_checkpointing:
            recompute_stages(network, compiled=settings.compile is not None)
        self._call, self._graphs = compiled(network, settings), settings.cuda_graphs

    def __call__(self, x: Tensor, labels: Tensor | None = None, **draws: Tensor) -> Tensor:
        with torch.autocast(x.device.type, self._precision, enabled=self._precision is not None):
            out = self._call(self._laid_out(x), *conditions(labels), **draws).to(x.dtype)
        # A graph writes its output where it wrote the one before, which may still be in use.
        return out.clone() if self._graphs else out

    def exactly(self, x: Tensor, labels: Tensor | None = None, **draws: Tensor) -> Tensor:
        """In the parameters' own precision, uncompiled."""
        return self._network(self._laid_out(x), *conditions(labels), **draws)

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self._channels_last and x.dim() == 4 else x


def use_tf32(allowed: bool) -> None:
    """Whether CUDA rounds the factors of float32 products to TF32's 10 bits; PyTorch alone would, in convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def recompute_stages(network: nn.Module, compiled: bool = False) -> None:
    """Makes every stage of a network (an item of one of its own module lists) keep its inputs alone.

    What lies within is computed again in the backward pass (arXiv 1604.06174). A compiled stage cannot find its
    running buffers as they were: those that have some, as under spectral norm, then keep everything.
    """
    for stages in network.children():
        if isinstance(stages, nn.ModuleList):
            for stage in stages:
                running = bool(Running(stage))
                if not (running and compiled):
                    stage.forward = partial(_recomputed, stage, stage.forward, running)


def _recomputed(stage: nn.Module, forward: Callable[..., Any], running: bool, *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    if not running:
        return checkpoint(forward, *inputs, use_reentrant=False)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), Running(stage)))


class Running:
    """The buffers of a network that change with its calls, such as a spectral norm's vectors, as they are now.

    As a context: in it, the network finds them as they were then; after it, as it left them before. It can be entered
    again and again: second derivatives repeat a computation several times.
    """

    def __init__(self, network: nn.Module) -> None:
        # Constants do not persist.
        kept = network.state_dict(keep_vars=True)
        places = [name.rpartition(".") for name, _ in network.named_buffers() if name in kept]
        self._places = [(network.get_submodule(owner), name) for owner, _, name in places]
        self._values = self._current()

    def __bool__(self) -> bool:
        return bool(self._places)

    def restore(self) -> None:
        """Puts them back."""
        for (owner, name), value in zip(self._places, self._values, strict=True):
            setattr(owner, name, value.clone())

    def __enter__(self) -> None:
        self._later = self._current()
        self.restore()

    def __exit__(self, *exception: object) -> None:
        for (owner, name), value in zip(self._places, self._later, strict=True):
            setattr(owner, name, value)

    def _current(self) -> list[Tensor]:
        return [getattr(owner, name).clone() for owner, name in self._places]
