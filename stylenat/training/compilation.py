"""``train.compile`` and ``train.cuda_graphs``: what they need, and what they cannot do."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from registry import UserError
from registry.wording import reason
from stylenat.attention.flex import SWITCHES
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
    if settings.cuda_graphs and device.type != "cuda":
        raise UserError(f"train.cuda_graphs is for CUDA, and the run is on {device}; bind train.cuda_graphs = False")
    for switch in SWITCHES if settings.compile is not None else ():
        if os.environ.get(switch) == "1":
            raise UserError(
                f"train.compile is {settings.compile!r}, but {switch}=1 in the environment switches compilation off; "
                "unset it, or bind train.compile = None"
            )
    if settings.compile != "inductor":
        return
    # Inductor takes $CXX for a CPU; Triton builds its launchers with $CC. Both include Python's headers.
    named, suffix, usual = ("CXX", ".cpp", ["g++"]) if device.type == "cpu" else ("CC", ".c", ["gcc", "clang"])
    if device.type == "cpu" and sys.platform == "darwin":
        usual = ["clang++"]
    command = os.environ.get(named) or next(filter(shutil.which, usual), usual[0])
    if problem := compiler_problem(command, suffix):
        raise UserError(
            f"train.compile = 'inductor' needs a compiler on this machine and Python's headers, and "
            f"{named} = {command!r} {problem}; install {usual[0]} and python3-dev, or bind train.compile = None"
        )


def compiler_problem(command: str, suffix: str) -> str | None:
    """What keeps a compiler from a program that includes Python's header, in a few words; None for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / f"program{suffix}", Path(folder) / "program.o"
        source.write_text("#include <Python.h>\n")
        options = ["-c", str(source), "-o", str(made), f"-I{sysconfig.get_paths()['include']}"]
        try:
            done = subprocess.run([*shlex.split(command), *options], capture_output=True, text=True, timeout=60)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return f"cannot be run ({reason(error)})"
        if made.exists():
            return None
        first = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
        return f"compiles nothing ({first})"


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
