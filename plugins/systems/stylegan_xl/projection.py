"""What lies between a backbone and the discriminators (Projected GAN, arXiv 2111.01007, section 3.2): random, fixed
mixing of its feature maps across channels (CCM) and scales (CSM)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from registry import UserError


class Projector(nn.Module):
    """A backbone's maps, fine to coarse, to as many mixed ones of twice their sides.

    CCM: a 1x1 convolution a map, to ``width`` channels at the finest and twice as many at each coarser one. CSM, from
    the coarsest: add the map from below, double the side, and halve the channels by a 1x1 convolution (the finest
    keeps them).

    Attributes:
        channels: of the mixed maps.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(len(channels))]
        self.channels = [widths[max(scale - 1, 0)] for scale in range(len(channels))]
        self.across_channels = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(channels, widths, strict=True)
        )
        self.across_scales = nn.ModuleList(
            nn.Conv2d(before, after, 1) for before, after in zip(widths, self.channels, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps [batch, channels, side, side], each of half the side of the one before.

        Raises UserError for other sides.
        """
        mixed: list[Tensor] = []
        for scale in reversed(range(len(maps))):
            x = self.across_channels[scale](maps[scale])
            if mixed:
                if x.shape != mixed[0].shape:
                    sides = ", ".join(str(found.shape[-1]) for found in maps)
                    raise UserError(
                        f"the backbone's maps have the sides {sides}, and each must be half of the one before; choose "
                        "another resolution or backbone"
                    )
                x = x + mixed[0]
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            mixed.insert(0, self.across_scales[scale](x))
        return mixed
