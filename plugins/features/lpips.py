"""LPIPS on VGG16 (arXiv 1801.03924) as torch-fidelity has it, for the perceptual path length."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

VGG16 = Published(
    what="LPIPS's VGG16 (metric.ppl)",
    selector="metric.ppl.vgg16_weights",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    mark="features.0.weight",
)
LINEAR = Published(
    what="LPIPS (metric.ppl)",
    selector="metric.ppl.lpips_weights",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-vgg16-lpips.pth",
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    mark="lin0.model.1.weight",
)


@functools.lru_cache(maxsize=1)
def _network(vgg16: Path, linear: Path, resize: int | None, checksums: tuple[str, str]) -> nn.Module:
    import torch
    import torchvision
    from torch_fidelity import sample_similarity_lpips as library

    with torch.device("meta"):
        layers = torchvision.models.vgg16()
    # Only the convolutions are looked at; the classifier is nine tenths of the file.
    convolutions = {
        name.removeprefix("features."): tensor
        for name, tensor in state_of(vgg16, VGG16).items()
        if name.startswith("features.")
    }
    fitted(lambda: layers.features.load_state_dict(convolutions, assign=True), vgg16, VGG16.what)
    state = state_of(linear, LINEAR)
    with in_place_of(
        library,
        load_state_dict_from_url=lambda *args, **kwargs: state,
        torchvision_load_pretrained_vgg16=lambda: layers,
    ):
        return fitted(
            lambda: library.SampleSimilarityLPIPS("lpips-vgg16", resize).requires_grad_(False),
            linear,
            LINEAR.what,
        )


class Lpips:
    """Distance between pairs of images; args: as of metric ``ppl``."""

    def __init__(
        self, vgg16_weights: str | None, lpips_weights: str | None, download: bool, resize: int | None
    ) -> None:
        self.vgg16_weights, self.lpips_weights = vgg16_weights, lpips_weights
        self.download, self.resize = download, resize

    def check(self) -> None:
        """Raises UserError when weights are not there, damaged, or another network's."""
        self._loaded()

    def take(self, path: Path, names: Mapping[str, Tensor]) -> bool:
        """Takes a file of weights with these tensors, if it is one of the two."""
        if LINEAR.mark in names:
            self.lpips_weights = str(path)
        elif VGG16.mark in names:
            self.vgg16_weights = str(path)
        return LINEAR.mark in names or VGG16.mark in names

    def protocol(self) -> dict[str, Any]:
        vgg16, linear = self._paths()
        return {
            "name": "lpips-vgg16",
            "vgg16_sha256": checksum_of(vgg16),
            "lpips_sha256": checksum_of(linear),
            "resize": "none" if self.resize is None else f"{self.resize}, area down and bilinear up",
            "precision": "float32",
        }

    def _paths(self) -> tuple[Path, Path]:
        return found(VGG16, self.vgg16_weights, self.download), found(LINEAR, self.lpips_weights, self.download)

    def _loaded(self) -> nn.Module:
        needs_torch_fidelity(LINEAR.what)
        vgg16, linear = self._paths()
        return _network(vgg16, linear, self.resize, (checksum_of(vgg16), checksum_of(linear)))

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """Pixels 0..255 [batch, 3, height, width] twice, uint8 or not rounded, to float32 [batch]."""
        return self._loaded().to(images.device)(images, others).flatten()
