"""How many threads our C++ may use: PyTorch's number, or one after a fork, which OpenMP's threads do not survive."""

import os

import torch

_forked = False


def _remember_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_remember_fork)


def may_start_threads() -> None:
    """For a fork of a process that has computed nothing, so that no thread was lost."""
    global _forked
    _forked = False


def threads() -> int:
    return 1 if _forked else torch.get_num_threads()
