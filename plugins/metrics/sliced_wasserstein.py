"""Metric ``swd``: sliced Wasserstein distance between local patches (Progressive GAN, section 5)."""

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from registry import Bounds, Count
from stylenat.evaluation.accumulators import Rows

MOST = 8192
"""Images of each set that are looked at, the first ones: what bounds the memory."""
AT_ONCE = 32
"""Directions whose projections are in memory at once: 2 MB each for 8192 images."""
PATCH = 7
"""Side of a patch: no pyramid level can be smaller."""
CHANNELS = 3 * PATCH**2
Side = Annotated[int, Bounds(PATCH)]


class _Patches:
    """A bounded number of 7x7 patches of each image at every level of its Laplacian pyramid."""

    limit = MOST

    def __init__(self, patches: int, smallest: int, seed: int) -> None:
        self._patches, self._smallest = patches, smallest
        self._random = torch.Generator().manual_seed(seed)
        self._levels: list[Rows] = []
        self._seen = 0
        self._quantiles: dict[tuple[int, int], list[Tensor]] = {}

    def update(self, images: Tensor) -> None:
        images = images[: MOST - self._seen]
        self._seen += len(images)
        self._quantiles.clear()
        if not len(images):
            return
        for level, band in enumerate(_laplacian_pyramid(images.float(), self._smallest)):
            if level == len(self._levels):
                self._levels.append(Rows(torch.float16))
            self._levels[level].update(self._drawn(band))

    def _drawn(self, band: Tensor) -> Tensor:
        """[batch, 3, side, side] to [batch * patches, 3 * 49]."""
        count, channels, _, side = band.shape
        across = side - 6
        places = torch.randint(across**2, (count, self._patches), generator=self._random).to(band.device)
        corners = places // across * side + places % across
        steps = torch.arange(7, device=band.device)
        window = (steps[:, None] * side + steps).flatten()
        pixels = (corners[:, :, None] + window).flatten(1)[:, None].expand(-1, channels, -1)
        picked = band.flatten(2).gather(2, pixels).view(count, channels, self._patches, 49)
        return picked.transpose(1, 2).reshape(-1, channels * 49)

    def quantiles(self, projections: int, seed: int) -> list[Tensor]:
        """One [projections, 512] a level: of the descriptors along random directions.

        Quantiles rather than sorted samples, since two sets may differ in size. They are kept until more images
        come: the real images are compared with again and again.
        """
        if (projections, seed) not in self._quantiles:
            random = torch.Generator().manual_seed(seed)
            # No name holds a level's descriptors while the next level's are made.
            self._quantiles[projections, seed] = [
                _quantiles(
                    _descriptors(level), F.normalize(torch.randn(CHANNELS, projections, generator=random), dim=0)
                )
                for level in self._levels
            ]
        return self._quantiles[projections, seed]


class SlicedWasserstein:
    """Mean sliced Wasserstein-1 distance over pyramid levels, times 1000, of the first 8192 images of each set.

    Args:
        patches: drawn of each image and level.
        projections: random directions a level.
        smallest: side of the coarsest pyramid level, at least that of a patch, 7.
        seed: of patches and directions.
    """

    name = "swd"

    def __init__(
        self, patches: Count = 64, projections: Count = 256, smallest: Annotated[int, Bounds(PATCH)] = 16, seed: int = 0
    ) -> None:
        self.patches, self.projections, self.smallest, self.seed = patches, projections, smallest, seed

    def protocol(self) -> dict[str, Any]:
        return {
            "version": 1, "patches": self.patches, "projections": self.projections, "smallest": self.smallest,
            "seed": self.seed, "images_at_most": MOST,
        }  # fmt: skip

    def accumulator(self) -> _Patches:
        return _Patches(self.patches, self.smallest, self.seed)

    def compare(self, real: _Patches, fake: _Patches) -> float:
        both = (patches.quantiles(self.projections, self.seed) for patches in (real, fake))
        distances = [(ours - theirs).abs().mean() for ours, theirs in zip(*both, strict=True)]
        return 1000 * float(torch.stack(distances).mean())


def _descriptors(level: Rows) -> Tensor:
    """[patches, 147], each colour normalised to mean 0 and deviation 1 as published."""
    patches = level.all().to(level.device).float().view(-1, 3, PATCH**2)
    mean = patches.mean(dim=(0, 2), keepdim=True)
    deviation = patches.std(dim=(0, 2), keepdim=True).clamp_min(1e-3)
    return patches.sub_(mean).div_(deviation).flatten(1)  # In place: of 8192 images they are 308 MB.


def _quantiles(samples: Tensor, directions: Tensor) -> Tensor:
    """[samples, channels] and [channels, projections] to [projections, 512], on the CPU."""
    places = ((torch.arange(512) + 0.5) / 512 * len(samples)).long().clamp_max(len(samples) - 1)
    found = []
    for some in directions.T.to(samples.device).split(AT_ONCE):
        projected = some @ samples.T
        if projected.is_cuda:
            found.append(projected.sort(dim=1).values[:, places.to(projected.device)].cpu())
        else:  # NumPy sorts rows five times as fast as PyTorch sorts columns.
            ordered = projected.numpy()
            ordered.sort(axis=1)
            found.append(torch.from_numpy(ordered[:, places]))
    return torch.cat(found)


def _laplacian_pyramid(images: Tensor, smallest: int) -> list[Tensor]:
    """Bands from fine to coarse; the last is what remains."""
    bands = []
    while images.shape[-1] // 2 >= smallest:
        smaller = F.avg_pool2d(images, 2)
        bands.append(images - F.interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        images = smaller
    return [*bands, images]
