"""The contract of kind ``backbone``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stylenat.testing.contract import built, noise, require, require_tensor
from stylenat.testing.networks import check_network


class _Flat(nn.Module):
    """A backbone as whatever uses it keeps it, its maps as one tensor [batch, numbers]."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> "_Flat":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([found.flatten(1) for found in self.backbone(images)], dim=1)


def check_backbone(backbone: Callable[..., nn.Module], resolution: int = 32, **options: Any) -> None:
    """Builds the backbone twice and runs it forward and backward. Choose options that make it small.

    Args:
        backbone: the class; options: what a gin file would bind; resolution: of the images, from 32.

    Raises:
        ContractError: maps that are not ``channels`` wide or not each of half the side of the one before, no gradient
            to the images, maps that depend on the other images; see ``stylenat.testing.networks.check_network``.
    """

    def make() -> nn.Module:
        return _Flat(built(backbone, **options)).train()

    network = make()
    images = noise(3, 3, resolution, resolution).mul(0.2).add(0.5).requires_grad_()
    maps, channels = network.backbone(images), getattr(network.backbone, "channels", None)
    require(bool(channels) and all(type(width) is int for width in channels), "it needs channels, a list of integers")
    require(len(maps) == len(channels), f"it gives {len(maps)} maps and has {len(channels)} channels")
    side = maps[0].shape[-1]
    for number, (found, width) in enumerate(zip(maps, channels, strict=True)):
        shape = (3, width, side >> number, side >> number)
        require_tensor(found, shape, torch.float32, f"map {number}, of half the side of the one before,")
    flat = (3, sum(found[0].numel() for found in maps))
    check_network("backbone", make, {"images": images}, flat)
    if classes := getattr(network.backbone, "num_classes", 0):
        require_tensor(network.backbone.logits(images), (3, classes), torch.float32, "logits(images)")
