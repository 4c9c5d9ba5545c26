"""Generator ``hit``: HiT (Zhao et al., arXiv 2106.07631, section 3)."""

from typing import Literal

from torch import Tensor, nn

from plugins.systems.hit.blocks import (
    MLP,
    TOKENS,
    AttentionName,
    CrossBlock,
    Norm,
    NormName,
    SelfBlock,
    blocked,
    doubled,
    initialised,
    linear,
    norm_of,
    shuffled,
    unblocked,
)
from registry import AttentionSite, Count, UserError
from stylenat.networks.widths import Width, resolutions, widths

FIRST = 8
"""Side of the first stage."""
SIZES = {
    "S": ([512, 256, 128, 128, 64, 64, 32, 32], [2, 2, 1, 1, 1, 1]),
    "B": ([512, 512, 256, 128, 64, 64, 32, 32], [2, 2, 2, 2, 1, 1]),
    "L": ([1024, 512, 256, 128, 128, 128, 64, 64], [2, 2, 2, 2, 2, 2]),
}
"""Channels and layers by stage. The published code has B alone; S and L are reconstructed from parameter counts."""
SIZES_TO_128 = {"B": ([512, 512, 256, 128, 128], [2, 2, 2, 2, 2])}
"""Where the model of 128x128 and below differs."""
HEADS, PATCHES = [16, 8, 4], [4, 4, 8, 8]


class Tokens(nn.Module):
    """Latents [batch, latent_dim] to the tokens [batch, 16, width] that pixels attend to."""

    def __init__(self, latent_dim: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.linear = linear(latent_dim, TOKENS * width)
        self.position = initialised(TOKENS, width)
        self.norm = norm(width)

    def forward(self, latents: Tensor) -> Tensor:
        return self.norm(self.linear(latents).unflatten(1, self.position.shape) + self.position)


class ToRGB(nn.Module):
    """A linear of normalised features, added to the image of the stage before."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.linear = linear(channels, 3)

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """x: [batch, side, side, channels]; image: [batch, side / 2, side / 2, 3] or None."""
        rgb = self.linear(self.norm(x))
        return rgb if image is None else rgb + doubled(image)


class Stage(nn.Module):
    """One resolution: position table, cross-attention, then self-attention (low resolutions) or MLPs and RGB (high
    resolutions); pixel shuffle to the next one.

    Args:
        side: of the features; channels: of them; following: of the next stage, None for the last.
        context: width of the latent tokens; layers: after the cross-attention.
        patch: side of a block; None at high resolutions.
    """

    def __init__(
        self,
        side: int,
        channels: int,
        following: int | None,
        context: int,
        heads: int,
        layers: int,
        patch: int | None,
        kind: AttentionName,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.patch, self.last = patch, following is None
        self.position = initialised(side, side, channels)
        blocks: list[nn.Module] = [CrossBlock(channels, context, heads, kind, norm)]
        if patch is not None:
            blocks += [SelfBlock(channels, heads, kind, norm, patch) for _ in range(layers)]
        self.blocks = nn.ModuleList(blocks)
        self.mlps = nn.ModuleList(MLP(channels, norm) for _ in range(layers if patch is None else 0))
        self.to_rgb = ToRGB(channels, norm) if patch is None else None
        # Also the published code leaves the linear out where the widths agree already.
        project = following is not None and channels // 4 != following
        self.project = linear(channels // 4, following) if project else None

    def forward(self, x: Tensor, tokens: Tensor, image: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x: [batch, side, side, channels]; tokens: [batch, 16, context]; image: [batch, side / 2, side / 2, 3] or
        None."""
        height, width = x.shape[1:3]
        x = self.blocks[0](x + self.position, tokens)
        if self.patch is not None:
            x = blocked(x, self.patch)
            for block in self.blocks[1:]:
                x = block(x)
            x = unblocked(x, height, width)
        for layer in self.mlps:
            x = layer(x)
        if self.to_rgb is not None:
            image = self.to_rgb(x, image)
        if not self.last:
            x = shuffled(x)
            x = x if self.project is None else self.project(x)
        return x, image


class HiT(nn.Module):
    """Generator ``hit``: latents through stages of attention from 8x8 up; no styles, no noise, linear RGB in [-1, 1].

    Args:
        resolution: side of the image, a power of two from 8. The position tables make it part of the model.
        size: S, B or L. B is published at 128, 256 and 1024; S and L at 256, reconstructed from their parameter counts.
        channels, layers, heads: by stage from 8x8 up, instead of the published ones; a longer list is cut, a shorter
            one continued (channels by halving, down to 8).
        patches: sides of the blocks of the low-resolution stages; stages after them are of high resolution, as the last
            one always is.
        latent_dim: 512 in the published models of faces, 256 for ImageNet.
        norm: ``batch`` as published, or ``layer``.
        norm_group: images that batch norm sees at a time; None for all of a microbatch, over all processes.
        attention: ``multi_query`` as published, or ``multi_head``.

    Raises:
        UserError: the resolution is none, or a stage's channels, heads and blocks do not fit together.
    """

    def __init__(
        self,
        *,
        resolution: int,
        size: Literal["S", "B", "L"] = "B",
        channels: list[Width] | None = None,
        layers: list[Count] | None = None,
        heads: list[Count] | None = None,
        patches: list[Count] | None = None,
        latent_dim: Width = 512,
        norm: NormName = "batch",
        norm_group: Count | None = None,
        attention: AttentionName = "multi_query",
    ) -> None:
        super().__init__()
        sides = resolutions(resolution, "generator.hit.resolution")[1:]
        published = SIZES_TO_128.get(size, SIZES[size]) if resolution <= 128 else SIZES[size]
        width = list(widths(sides, 1, channels or published[0], "generator.hit.channels").values())
        depth, count = _continued(layers or published[1], sides), _continued(heads or HEADS, sides)
        sizes = list((PATCHES if patches is None else patches)[: len(sides) - 1])
        blocks = [*sizes, *[None] * (len(sides) - len(sizes))]
        for stage in zip(sides, width, count, blocks, strict=True):
            _check(*stage, last=stage[0] == resolution)

        self.resolution, self.latent_dim = resolution, latent_dim
        make = norm_of(norm, norm_group)
        self.first = linear(latent_dim, FIRST * FIRST * width[0])
        self.tokens = Tokens(latent_dim, width[0], make)
        following = [*width[1:], None]
        self.stages = nn.ModuleList(
            Stage(sides[i], width[i], following[i], width[0], count[i], depth[i], blocks[i], attention, make)
            for i in range(len(sides))
        )
        self.sites = [
            [AttentionSite(side, heads, channels, i) for i in range(len(stage.blocks))]
            for side, heads, channels, stage in zip(sides, count, width, self.stages, strict=True)
        ]

    def forward(self, latents: Tensor) -> Tensor:
        """[batch, latent_dim] to [batch, 3, resolution, resolution]."""
        x = self.first(latents).view(latents.shape[0], FIRST, FIRST, -1)
        tokens, image = self.tokens(latents), None
        for stage in self.stages:
            x, image = stage(x, tokens, image)
        assert isinstance(image, Tensor)  # The last stage is of high resolution.
        return image.permute(0, 3, 1, 2)


def _continued(values: list[int], sides: list[int]) -> list[int]:
    return (list(values) + values[-1:] * len(sides))[: len(sides)]


def _check(side: int, channels: int, heads: int, patch: int | None, last: bool) -> None:
    """Raises UserError where a stage cannot be built."""
    where = f"generator.hit at {side}x{side}"
    if heads > channels:
        raise UserError(f"{where}: {heads} heads need at least as many channels; got {channels}")
    if not last and channels % 4:
        raise UserError(f"{where}: channels must be a multiple of 4 for the pixel shuffle; got {channels}")
    if patch is not None and heads % 2:
        raise UserError(f"{where}: multi-axis attention needs an even number of heads; got {heads}")
    if patch is not None and side % patch:
        raise UserError(f"{where}: blocks of {patch}x{patch} do not divide the features; bind generator.hit.patches")
