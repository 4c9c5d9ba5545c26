"""Feature maps at four scales from an image classifier of timm, convolutional or a vision transformer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import UserError

SCALES = 4
"""Maps of a backbone: of 1/4, 1/8, 1/16 and 1/32 of the side."""


class FeatureMaps(nn.Module):
    """Four feature maps of a network with timm's ``forward_intermediates``.

    A hierarchical network gives the last map of each of its strides 4, 8, 16 and 32. A transformer, whose tokens have
    one stride, gives those of four evenly spaced blocks, which random convolutions turn into such a pyramid (Projected
    GAN's code, after arXiv 2103.13413).

    Args:
        network: of timm; name: its name there; side: to which images are resized, where they are smaller or the
            network's input size is fixed.
        channels: of a transformer's maps; None for 1/8, 1/4, 1/2 and the complete width.
        classifies: keep the classification head, for ``logits``.

    Raises:
        UserError: a network without such maps.
    """

    def __init__(
        self, network: nn.Module, name: str, side: int, channels: Sequence[int] | None, classifies: bool
    ) -> None:
        super().__init__()
        self.name = name
        settings = network.pretrained_cfg
        rows = list(getattr(network.feature_info, "info", network.feature_info))
        strides = [row["reduction"] for row in rows]
        tokens = len(set(strides)) == 1
        self.indices = (
            [(k + 1) * len(rows) // SCALES - 1 for k in range(SCALES)]
            if tokens
            else [
                max(i for i, s in enumerate(strides) if s == stride) for stride in (4, 8, 16, 32) if stride in strides
            ]
        )
        if len(self.indices) < SCALES or not hasattr(network, "forward_intermediates"):
            raise UserError(f"backbone.timm: {type(network).__name__} has no maps of strides 4, 8, 16 and 32")
        self.fixed = bool(settings.get("fixed_input_size", False)) or tokens
        self.side = settings["input_size"][-1] if self.fixed else side
        widths = [rows[i]["num_chs"] for i in self.indices]
        self.channels = list(channels or (widths[i] * 2**i // 8 for i in range(SCALES))) if tokens else widths
        if len(self.channels) != SCALES:
            raise UserError(f"backbone.timm.channels needs {SCALES} numbers; got {len(self.channels)}")
        self.reassemble = reassembly(widths[0], self.channels, strides[0]) if tokens else None
        self.classifies = classifies
        if classifies:
            self.num_classes = network.num_classes
        else:
            network.prune_intermediate_layers(self.indices, prune_norm=True, prune_head=True)
        self.network = network
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(settings[name]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Colours [batch, 3, height, width] from 0 to 1 to four maps [batch, channels, side / stride, ...]."""
        maps = self.network.forward_intermediates(
            self._prepared(images), indices=self.indices, norm=False, intermediates_only=True
        )
        if self.reassemble is None:
            return list(maps)
        return [convolutions(found) for convolutions, found in zip(self.reassemble, maps, strict=True)]

    def logits(self, images: Tensor) -> Tensor:
        """Colours [batch, 3, height, width] from 0 to 1 to [batch, num_classes]."""
        if not self.classifies:
            raise UserError("backbone.timm has no classification head here; bind backbone.timm.classifies = True")
        return self.network(self._prepared(images))

    def _prepared(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        if self.fixed or min(x.shape[2:]) < self.side:
            x = F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return x


def reassembly(width: int, channels: Sequence[int], stride: int) -> nn.ModuleList:
    """Convolutions from maps of one stride to four of strides 4, 8, 16 and 32.

    Raises UserError for a stride other than 16.
    """
    if stride != 16:
        raise UserError(f"backbone.timm: a transformer's patches must have 16 pixels a side; this one's have {stride}")
    a, b, c, d = channels
    return nn.ModuleList(
        [
            nn.Sequential(nn.Conv2d(width, a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)),
            nn.Sequential(nn.Conv2d(width, b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
            nn.Sequential(nn.Conv2d(width, c, 1)),
            nn.Sequential(nn.Conv2d(width, d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
        ]
    )
