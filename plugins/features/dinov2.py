"""Features ``dinov2``: DINOv2's class token, resized and normalised as torch-fidelity does."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from plugins.features.published import (
    Published,
    checksum_of,
    fitted,
    found,
    in_place_of,
    needs_torch_fidelity,
    state_of,
)

Size = Literal["s", "b", "l"]
WIDTH = {"s": 384, "b": 768, "l": 1024}
SHA256 = {
    "s": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "b": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "l": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
}
WEIGHTS = {
    size: Published(
        what=f"DINOv2 ViT-{size.upper()}/14 (features.dinov2)",
        selector="features.dinov2.weights",
        url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14/dinov2_vit{size}14_pretrain.pth",
        sha256=sha256,
        mark="blocks.0.ls1.gamma",
    )
    for size, sha256 in SHA256.items()
}


@functools.lru_cache(maxsize=1)
def _network(size: Size, path: Path, sha256: str) -> nn.Module:
    """torch-fidelity's extractor around our transformer, shared by all metrics of a process.

    By itself it would run whatever code the model's repository holds that day.
    """
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    from plugins.features.vision_transformer import VisionTransformer

    with torch.device("meta"):
        transformer = VisionTransformer(WIDTH[size], depth=24 if size == "l" else 12)
    state = dict(state_of(path, WEIGHTS[size]))
    state.pop("mask_token", None)  # For training only.
    fitted(lambda: transformer.load_state_dict(state, assign=True), path, WEIGHTS[size].what)
    with in_place_of(torch.hub, load=lambda *args, **kwargs: transformer):
        return FeatureExtractorDinoV2(f"dinov2-vit-{size}-14", ["dinov2"])


class Dinov2:
    """The class token of DINOv2 (arXiv 2304.07193) at 224x224, in which distances follow people's judgement better than
    in Inception's features (arXiv 2306.04675).

    Resized by TensorFlow 1's bilinear, as torch-fidelity does; other implementations resize otherwise.

    Args:
        size: ``s``, ``b`` or ``l``, the one that arXiv 2306.04675 uses.
        weights: the weights' file; None for the one in PyTorch's cache, if it is there.
        download: fetch the file into that cache where it is missing.
    """

    name = "dinov2"

    def __init__(self, size: Size = "l", weights: str | None = None, download: bool = False) -> None:
        self.size, self.weights, self.download, self.dim = size, weights, download, WIDTH[size]
        self.published_sha256 = WEIGHTS[size].sha256

    def check(self) -> None:
        """Raises UserError when the weights are not there, damaged, or another network's."""
        self._loaded()

    def take(self, path: Path, names: Mapping[str, Tensor]) -> bool:
        """Takes a file of weights with these tensors, if it is meant for this extractor."""
        if WEIGHTS[self.size].mark not in names:
            return False
        self.weights = str(path)
        return True

    def protocol(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "size": self.size,
            "weights_sha256": checksum_of(self._path()),
            "resize": "224, bilinear of TensorFlow 1 (no antialiasing)",
            "precision": "float32",
        }

    def _path(self) -> Path:
        return found(WEIGHTS[self.size], self.weights, self.download)

    def _loaded(self) -> nn.Module:
        needs_torch_fidelity(WEIGHTS[self.size].what)
        path = self._path()
        return _network(self.size, path, checksum_of(path))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, height, width] to float32 [batch, dim], on their device."""
        return self._loaded().to(images.device)(images)[0]
