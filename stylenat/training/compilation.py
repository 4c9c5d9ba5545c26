"""``train.compile`` and ``train.cuda_graphs``: what they need, and what they cannot do."""

import os
import shutil
from collections.abc import Callable, Mapping

import torch
from torch import nn

from registry import UserError
from stylenat.training.settings import Training

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def compiled(network: nn.Module, settings: Training) -> Callable[..., torch.Tensor]:
    """The network as ``train.compile`` says; itself where that is None.

    Its shapes never change within a run; whether its parameters are frozen does.
    """
    if settings.compile is None:
        return network
    options = {"triton.cudagraphs": True} if settings.cuda_graphs else None
    return torch.compile(network, backend=settings.compile, dynamic=False, options=options)


def check_compilation(settings: Training, device: torch.device) -> None:
    """Raises UserError where this machine cannot compile, or cannot capture graphs, as the settings ask."""
    if settings.cuda_graphs and settings.compile != "inductor":
        raise UserError("train.cuda_graphs needs train.compile = 'inductor', which makes the graphs; bind both")
    if settings.cuda_graphs and device.type != "cuda":
        raise UserError(f"train.cuda_graphs is for CUDA, and the run is on {device}; bind train.cuda_graphs = False")
    if settings.compile != "inductor":
        return
    # Inductor takes $CXX for a CPU; Triton links its launchers with $CC.
    named, usual = ("CXX", ("g++", "clang++")) if device.type == "cpu" else ("CC", ("gcc", "clang", "cc"))
    given = os.environ.get(named)
    if not any(shutil.which(name) for name in ([given] if given else usual)):
        raise UserError(
            f"train.compile = 'inductor' needs a compiler on this machine ({named}={given or 'unset'}); install "
            f"{usual[0]}, or bind train.compile = None"
        )


def check_hooks(settings: Training, networks: Mapping[str, nn.Module]) -> None:
    """Raises UserError where a compiled network has forward or backward hooks, which it would not call."""
    if settings.compile is None:
        return
    for name, network in networks.items():
        for place, module in network.named_modules():
            if any(getattr(module, kind) for kind in HOOKS):
                raise UserError(
                    f"a plugin registered a hook on {'.'.join(filter(None, (name, place)))}, and compiled networks "
                    "call no hooks; bind train.compile = None, or leave the plugin out"
                )
