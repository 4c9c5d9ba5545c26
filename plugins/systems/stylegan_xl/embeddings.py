"""The values that tables of class embeddings begin from: one vector a class, such as the mean features of a pretrained
network over the class's images (arXiv 2202.00273, section 3.3)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat import weights


def check_rows(selector: str, num_classes: int, rows: int) -> None:
    """Raises UserError where there are more classes than embeddings."""
    if num_classes > rows:
        raise UserError(
            f"{selector}.num_classes = {num_classes} is more than the {rows} class embeddings; bind "
            f"{selector}.embedding_rows to {num_classes} or more, and {selector}.embeddings to such a file or None"
        )


class ClassEmbeddings:
    """A file of embeddings [rows, dim]: safetensors, or a pickle of tensors alone, with one tensor or one called
    ``embed``.

    Raises:
        UserError: there is no such file, or no such tensor in it.
    """

    def __init__(self, path: str, selector: str) -> None:
        self.path, self.selector = Path(path), selector
        if not self.path.is_file():
            raise UserError(f"{selector}: there is no file {path}; None begins from random embeddings")
        held: Any = weights.loaded(self.path)
        if isinstance(held, Mapping):
            tensors = [value for value in held.values() if isinstance(value, Tensor)]
            held = held.get("embed", tensors[0] if len(tensors) == 1 else None)
        if not isinstance(held, Tensor) or held.ndim != 2 or not held.is_floating_point():
            raise UserError(
                f"{selector}: {path} holds no table of floating-point embeddings [classes, length]; save one "
                "tensor, or one called embed, with torch.save or as .safetensors"
            )
        if not held.isfinite().all():
            raise UserError(f"{selector}: {path} holds embeddings that are not finite; compute them again")
        self.values = held

    @torch.no_grad()
    def into(self, table: nn.Parameter) -> None:
        """Raises UserError unless the file's table has the shape of this one."""
        if self.values.shape != table.shape:
            raise UserError(
                f"{self.selector}: {self.path} holds {list(self.values.shape)} embeddings and the network has "
                f"{list(table.shape)}; bind embedding_rows and embedding_dim to the file's"
            )
        table.copy_(self.values)

    def record(self) -> dict[str, object]:
        return {"embeddings": str(self.path), "sha256": weights.checksum(self.path)}
