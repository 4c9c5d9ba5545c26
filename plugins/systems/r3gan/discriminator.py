"""Discriminator ``r3gan``: the generator's mirror image (arXiv 2501.05441, section 3)."""

from torch import Tensor, nn

from plugins.systems.r3gan.generator import Blocks
from plugins.systems.r3gan.layers import Convolution, DiscriminativeBasis, Downsample, Linear
from plugins.systems.r3gan.sizes import Stage, precision, residual_blocks, stages
from registry import Count, CountOrZero
from stylenat.networks.layers import given
from stylenat.networks.widths import Width


class R3Discriminator(nn.Module):
    """No normalisation and no statistics over the batch.

    Args:
        resolution, channels, cardinality, blocks, expansion, kernel_size, num_classes, bf16_resolutions: as the
            generator's; all lists begin at 4x4.
        label_dim: of the embedded label, whose inner product with the features is the logit; None for the channels at
            4x4. There is no term without the label.

    Raises:
        UserError: sizes that do not fit each other.
    """

    def __init__(
        self,
        resolution: int,
        channels: list[Width] | None = None,
        cardinality: list[Count] | None = None,
        blocks: list[Blocks] | None = None,
        expansion: Count = 2,
        kernel_size: Count = 3,
        num_classes: CountOrZero = 0,
        label_dim: Count | None = None,
        bf16_resolutions: CountOrZero = 0,
    ) -> None:
        super().__init__()
        sizes = stages(
            "discriminator.r3gan", resolution, channels, cardinality, blocks, expansion, kernel_size, bf16_resolutions
        )
        self.resolution, self.num_classes = resolution, num_classes
        depth, first = sum(size.blocks for size in sizes), sizes[0]
        label_dim = label_dim or first.channels
        exits = [Downsample(b.channels, a.channels) for a, b in zip(sizes, sizes[1:], strict=False)]
        exits = [DiscriminativeBasis(first.channels, label_dim if num_classes else 1), *exits]
        self.from_rgb = Convolution(3, sizes[-1].channels)
        self.stages = nn.ModuleList(
            DiscriminatorStage(size, residual_blocks(size, expansion, kernel_size, depth), exit)
            for size, exit in zip(reversed(sizes), reversed(exits), strict=True)
        )
        self.embedding = Linear(num_classes, label_dim, gain=label_dim**-0.5) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, 3, resolution, resolution] and one-hot [batch, num_classes] to logits [batch, 1]."""
        x = self.from_rgb(images.to(precision(self.stages[0].size, self.from_rgb.weight.dtype)))
        for stage in self.stages:
            x = stage(x)
        if self.embedding is None:
            return x
        return (x * self.embedding(given(labels, self.num_classes).to(x.dtype))).sum(dim=1, keepdim=True)


class DiscriminatorStage(nn.Module):
    """One resolution: residual blocks, then a downsampling or, at 4x4, the basis.

    Args:
        size: of the stage; exit: to the resolution below, or to the features.
    """

    def __init__(self, size: Stage, blocks: list[nn.Module], exit: nn.Module) -> None:
        super().__init__()
        self.size, self.blocks, self.exit = size, nn.ModuleList(blocks), exit

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, side, side] to [batch, below, side / 2, side / 2] or [batch, features]."""
        x = x.to(precision(self.size, next(self.parameters()).dtype))
        for block in self.blocks:
            x = block(x)
        return self.exit(x)
