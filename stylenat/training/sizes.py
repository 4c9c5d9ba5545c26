"""What an experiment's networks cost, found without memory for their weights."""

from dataclasses import dataclass

import torch
from torch import nn

from stylenat.networks.counting import macs, parameters
from stylenat.training.settings import Training
from stylenat.training.state import build_networks


@dataclass(frozen=True)
class Size:
    """A network on the meta device; its trainable numbers; multiply-accumulates an image."""

    network: nn.Module
    parameters: int
    macs: int


def sized(settings: Training) -> dict[str, Size]:
    """``generator`` and ``discriminator``, built and run on the meta device.

    Raises UserError for whatever cannot be built, a partition that does not fit among them.
    """
    meta = torch.device("meta")
    with meta:
        generator, discriminator = build_networks(settings, meta)
        latents = torch.empty(1, generator.latent_dim)
        images = torch.empty(1, 3, generator.resolution, generator.resolution)
        return {
            "generator": Size(generator, parameters(generator), macs(generator, latents)),
            "discriminator": Size(discriminator, parameters(discriminator), macs(discriminator, images)),
        }
