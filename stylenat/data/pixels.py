"""The two image spaces: uint8 pixels outside the networks, ImageNet-normalised floats inside them.

StyleSwin and StyleNAT train on images normalised by ImageNet's statistics, so their published weights speak
this space; a generator's output is unnormalised before anyone looks at it or measures it.
"""

import torch
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def _constants(like: Tensor) -> tuple[Tensor, Tensor]:
    shape = (3, 1, 1)
    mean = torch.tensor(MEAN, dtype=like.dtype, device=like.device).view(shape)
    std = torch.tensor(STD, dtype=like.dtype, device=like.device).view(shape)
    return mean, std


def to_networks(images: Tensor) -> Tensor:
    """uint8 [..., 3, height, width] to the networks' space, float32, in the same memory format."""
    mean, std = _constants(torch.empty(0, device=images.device))
    result = torch.empty_like(images, dtype=torch.float32)
    if images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last) and images.device.type == "cpu":
        # Whole rows of pixels at once: three channels by themselves are too short a vector for the processor.
        width = images.shape[-1]
        scale, shift = ((c.flatten().repeat(width)) for c in (1 / (255 * std), -mean / std))
        rows = result.permute(0, 2, 3, 1).flatten(2)
        rows.copy_(images.permute(0, 2, 3, 1).flatten(2)).mul_(scale).add_(shift)
        return result
    return result.copy_(images).mul_(1 / 255).sub_(mean).div_(std)


def to_pixels(images: Tensor) -> Tensor:
    """The networks' space to float32 pixels, 0 to 255 but neither rounded nor clamped."""
    images = images.detach().float()
    mean, std = _constants(images)
    return (images * std).add_(mean).mul_(255)


def to_uint8(images: Tensor) -> Tensor:
    """The networks' space to uint8 pixels of the same shape, rounded to nearest and clamped."""
    return to_pixels(images).round_().clamp_(0, 255).to(torch.uint8)
