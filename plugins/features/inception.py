"""Features ``inception``: the Inception-v3 of FID, as torch-fidelity has it."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

INCEPTION = Published(
    what="Inception (features.inception)",
    selector="features.inception.weights",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    mark="Conv2d_1a_3x3.conv.weight",
)


@functools.lru_cache(maxsize=1)
def _network(path: Path, sha256: str) -> nn.Module:
    """Shared by all metrics of a process."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    state = state_of(path, INCEPTION)
    with in_place_of(library, load_state_dict_from_url=lambda *args, **kwargs: state):
        return fitted(
            lambda: library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]), path, INCEPTION.what
        )


class Inception:
    """2048 pool features of TensorFlow's Inception-v3 at 299x299 by TensorFlow 1's bilinear resize, which does not
    antialias: FID's own (arXiv 1706.08500), through torch-fidelity.

    Args:
        weights: the weights' file; None for the one in PyTorch's cache, if it is there.
        download: fetch the file into that cache where it is missing.
    """

    name = "inception"
    dim = 2048
    published_sha256 = INCEPTION.sha256

    def __init__(self, weights: str | None = None, download: bool = False) -> None:
        self.weights, self.download = weights, download

    def check(self) -> None:
        """Raises UserError when the weights are not there, damaged, or another network's."""
        self._loaded()

    def take(self, path: Path, names: Mapping[str, Tensor]) -> bool:
        """Takes a file of weights with these tensors, if it is meant for this extractor."""
        if INCEPTION.mark not in names:
            return False
        self.weights = str(path)
        return True

    def protocol(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layer": "2048",
            "weights_sha256": checksum_of(self._path()),
            "resize": "299, bilinear of TensorFlow 1 (no antialiasing)",
            "precision": "float32",
        }

    def _path(self) -> Path:
        return found(INCEPTION, self.weights, self.download)

    def _loaded(self) -> nn.Module:
        needs_torch_fidelity(INCEPTION.what)
        path = self._path()
        return _network(path, checksum_of(path))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, height, width] to float32 [batch, 2048], on their device."""
        return self._loaded().to(images.device)(images)[0]

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Of features [batch, 2048], the 1008 logits without the last layer's bias, as the Inception score has them."""
        return features @ self._loaded().fc.weight.t().to(features.device)
