"""What metrics collect of the vectors of one set of images."""

from collections.abc import Mapping

import torch
from torch import Tensor

PENDING_BYTES = 2**24
"""Vectors that are copied from their device at once: each copy waits for a GPU."""


class Rows:
    """Every feature vector as it came, on the CPU: in float32 4 bytes a dimension and image (50,000 of 2048: 410 MB).

    In training the real set's vectors stay between evaluations, when a GPU needs its memory for other things.

    Attributes:
        device: of the vectors as they came; the place to compute what needs all of them.
    """

    shared_as = "rows"

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.device, self._dtype = torch.device("cpu"), dtype
        self._parts: list[Tensor] = []
        self._pending: list[Tensor] = []

    def update(self, features: Tensor) -> None:
        """features: [batch, dim]."""
        self.device = features.device
        self._pending.append(features.detach().to(self._dtype))
        if sum(part.nbytes for part in self._pending) >= PENDING_BYTES:
            self._copy()

    def _copy(self) -> None:
        if self._pending:
            self._parts.append(torch.cat(self._pending).cpu())
            self._pending = []

    def all(self) -> Tensor:
        """[count, dim] on the CPU, in the order they came."""
        self._copy()
        if len(self._parts) != 1:
            self._parts = [_joined(self._parts)] if self._parts else [torch.empty(0, 0)]
        return self._parts[0]

    def state_dict(self) -> dict[str, Tensor]:
        return {"rows": self.all()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError or KeyError for tensors that are not such a state."""
        rows = state["rows"]
        if rows.ndim != 2 or rows.dtype != self._dtype:
            raise ValueError(f"rows of shape {list(rows.shape)} in {rows.dtype}")
        self._parts, self._pending = [rows], []


def _joined(parts: list[Tensor]) -> Tensor:
    """All rows in one tensor. ``parts`` is emptied on the way: the rows are not in memory twice."""
    whole = parts[0].new_empty(sum(len(part) for part in parts), *parts[0].shape[1:])
    start = 0
    while parts:
        part = parts.pop(0)
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def both(real: Rows, fake: Rows) -> tuple[Tensor, Tensor]:
    """All vectors of both sets, on the device of the generated images': the real ones may come from a file."""
    return real.all().to(fake.device), fake.all().to(fake.device)
