"""Image spaces: uint8 pixels outside the networks, floats inside them; ``train.pixel_space`` says which.

StyleSwin and StyleNAT train on images normalised by ImageNet's statistics, so their published weights speak that space;
other systems use [-1, 1]. Images are converted here and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from registry import UserError
from stylenat.devices import constant
from stylenat.native.build import library

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

Name = Literal["imagenet", "symmetric"]


@dataclass(frozen=True)
class PixelSpace:
    """Floats inside the networks: (pixels / 255 - mean) / std, by channel."""

    name: Name
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def zero(self) -> tuple[float, ...]:
        return tuple(255 * mean for mean in self.mean)

    @property
    def scale(self) -> tuple[float, ...]:
        return tuple(1 / (255 * std) for std in self.std)


IMAGENET = PixelSpace("imagenet", MEAN, STD)
SYMMETRIC = PixelSpace("symmetric", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SPACES: dict[str, PixelSpace] = {space.name: space for space in (IMAGENET, SYMMETRIC)}


def _by_channel(device: torch.device, *constants: tuple[float, ...]) -> list[Tensor]:
    return [constant(numbers, torch.float32, device).view(3, 1, 1) for numbers in constants]


def to_networks(images: Tensor, space: PixelSpace = IMAGENET) -> Tensor:
    """uint8 [..., 3, height, width] to the networks' space, float32, in the same memory format."""
    zero, scale = _by_channel(images.device, space.zero, space.scale)
    return images.to(torch.float32).sub_(zero).mul_(scale)


def to_pixels(images: Tensor, space: PixelSpace = IMAGENET) -> Tensor:
    """The networks' space to float32 pixels, 0 to 255 but neither rounded nor clamped. No gradient."""
    images = images.detach().float()
    mean, std = _by_channel(images.device, space.mean, space.std)
    return (images * std).add_(mean).mul_(255)


def to_pixels_with_graph(images: Tensor, space: PixelSpace = IMAGENET) -> Tensor:
    """As ``to_pixels``, differentiable."""
    mean, std = _by_channel(images.device, space.mean, space.std)
    return (images.float() * std + mean) * 255


def in_imagenet(
    augment: Callable[[Tensor, torch.Generator], Tensor], space: PixelSpace
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """The augmentation for images of ``space``. Augmentations work on ImageNet's, whatever the networks'."""
    if space == IMAGENET:
        return augment

    def converted(images: Tensor, random: torch.Generator) -> Tensor:
        mean, std, own_mean, own_std = (
            constant(numbers, images.dtype, images.device).view(3, 1, 1)
            for numbers in (IMAGENET.mean, IMAGENET.std, space.mean, space.std)
        )
        seen = (images * own_std + own_mean - mean) / std
        out = augment(seen, random)
        return images if out is seen else (out * std + mean - own_mean) / own_std

    return converted


def must_be_of_space(recorded: object, space: Name, where: str) -> None:
    """Raises UserError where weights were trained in another space; ones that do not say were in ImageNet's."""
    recorded = "imagenet" if recorded is None else recorded
    if recorded != space:
        raise UserError(
            f"{where} holds weights of networks whose images are in the pixel space {recorded!r}, and "
            f"train.pixel_space is {space!r}; bind the same"
        )


class NotFinite(UserError):
    """Images that hold NaN or infinite values. ``pixels``: the images as uint8, with 0 where there is no number."""

    def __init__(self, message: str, pixels: Tensor) -> None:
        super().__init__(message)
        self.pixels = pixels


def to_uint8(images: Tensor, space: PixelSpace = IMAGENET) -> Tensor:
    """The networks' space [batch, 3, height, width] to uint8 pixels, rounded to nearest and clamped.

    Raises:
        NotFinite: a value is NaN or infinite, which uint8 cannot show.
    """
    pixels = to_pixels(images, space)
    finite = pixels.isfinite()
    shown = pixels.round_().clamp_(0, 255).nan_to_num_(0).to(torch.uint8)
    if not finite.all():
        bad = int((~finite).flatten(1).any(dim=1).sum())
        raise NotFinite(f"{bad} of {len(images)} images hold values that are not finite", shown)
    return shown


def place(image: Tensor, out: Tensor, mirrored: bool = False, space: PixelSpace = IMAGENET) -> None:
    """Writes one image into its place in a batch, on a CPU.

    One pass over it (native/pixels.cpp), where PyTorch takes four; without a compiler, PyTorch's, to the same bits.

    Args:
        image: uint8 [3, height, width] in any memory format, such as a decoder's pixels seen as planes.
        out: [3, height, width], contiguous: as uint8 it takes the pixels, as float32 the networks' space.
        mirrored: left to right.
    """
    if image.shape != out.shape or image.shape[0] != 3 or image.dtype != torch.uint8 or not out.is_contiguous():
        raise ValueError(f"{image.dtype} {list(image.shape)} does not go into {out.dtype} {list(out.shape)}")
    kernels = library()
    if isinstance(kernels, str):
        image = image.flip(-1) if mirrored else image
        out.copy_(image if out.dtype == torch.uint8 else to_networks(image, space))
        return
    write = kernels.write_bytes if out.dtype == torch.uint8 else kernels.write_floats
    source = image.data_ptr(), *image.stride(), *image.shape[1:]
    zero, scale = _by_channel(out.device, space.zero, space.scale)
    write(*source, out.data_ptr(), mirrored, zero.data_ptr(), scale.data_ptr())
