"""What metrics collect of the vectors of one set of images."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Rows:
    """Every feature vector as it came, float32 on the CPU: 4 bytes a dimension and image (50,000 of 2048: 410 MB)."""

    shared_as = "rows"

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def update(self, features: Tensor) -> None:
        """features: [batch, dim]."""
        self._parts.append(features.detach().to("cpu", torch.float32))

    def all(self) -> Tensor:
        """[count, dim], in the order they came."""
        if len(self._parts) != 1:
            self._parts = [torch.cat(self._parts)] if self._parts else [torch.empty(0, 0)]
        return self._parts[0]

    def state_dict(self) -> dict[str, Tensor]:
        return {"rows": self.all()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError or KeyError for tensors that are not such a state."""
        rows = state["rows"]
        if rows.ndim != 2 or rows.dtype != torch.float32:
            raise ValueError(f"rows of shape {list(rows.shape)} in {rows.dtype}")
        self._parts = [rows]
