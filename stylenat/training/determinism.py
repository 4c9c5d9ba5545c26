"""``train.deterministic``: equal inputs give equal bits on CUDA too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from registry import UserError

WORKSPACES = (":4096:8", ":16:8")
"""Of cuBLAS, with which its products are reproducible."""
VARYING = {"flex": "the gradient of its bias", "natten": "its gradients"}
"""Attention backends that sum in varying order, and what of them."""


@contextmanager
def deterministic(asked: bool, attention: set[str]) -> Iterator[None]:
    """A context in which PyTorch uses deterministic algorithms alone, if asked.

    Args:
        attention: names of the backends that the networks take.

    Raises:
        UserError: something in use has no deterministic form: a backend, the workspace of cuBLAS, or any operator of a
            plugin when it runs.
    """
    if not asked:
        yield
        return
    for name in sorted(attention & VARYING.keys()):
        raise UserError(
            f"train.deterministic: attention backend {name!r} sums {VARYING[name]} in varying order; name another one "
            "or bind train.deterministic = False"
        )
    # Read when cuBLAS is first used.
    workspace = os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACES[0])
    if workspace not in WORKSPACES:
        raise UserError(
            f"train.deterministic needs CUBLAS_WORKSPACE_CONFIG to be one of {WORKSPACES}; it is {workspace}"
        )
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
