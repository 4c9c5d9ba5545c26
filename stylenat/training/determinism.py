"""``train.deterministic``: equal inputs give equal bits on CUDA too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from registry import UserError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")
"""Of cuBLAS, with which its products are reproducible."""
VARYING = {"flex": "the gradient of its bias", "natten": "its gradients"}
"""Attention backends that sum in varying order, and what of them."""


def check_determinism(asked: bool, attention: set[str], device: torch.device) -> None:
    """Before anything is written: whether what is known beforehand has a deterministic form, if asked.

    Args:
        attention: names of the backends that the networks take.

    Raises:
        UserError: a backend, or the workspace of cuBLAS, has none.
    """
    if not asked:
        return
    for name in sorted(attention & VARYING.keys()):
        raise UserError(
            f"train.deterministic: attention backend {name!r} sums {VARYING[name]} in varying order; name another one "
            "or bind train.deterministic = False"
        )
    workspace = os.environ.get(WORKSPACE, WORKSPACES[0])
    if device.type == "cuda" and workspace not in WORKSPACES:
        raise UserError(
            f"train.deterministic needs {WORKSPACE} to be {' or '.join(WORKSPACES)}; it is {workspace!r}: unset it"
        )


@contextmanager
def deterministic(asked: bool) -> Iterator[None]:
    """A context in which PyTorch uses deterministic algorithms alone, if asked.

    Raises:
        UserError: an operator of a plugin has no deterministic form and runs.
    """
    if not asked:
        yield
        return
    os.environ.setdefault(WORKSPACE, WORKSPACES[0])  # Read when cuBLAS is first used.
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        # PyTorch has no type for it.
        name, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise UserError(
            f"train.deterministic: {name} has no deterministic form; leave out what uses it, or bind "
            "train.deterministic = False"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
