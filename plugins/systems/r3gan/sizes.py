"""Channels, groups and blocks of each resolution, and which resolutions are computed in bfloat16."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from plugins.systems.r3gan.layers import ResidualBlock
from registry import UserError
from stylenat.networks.widths import NARROWEST, resolutions

CHANNELS = (768, 768, 768, 768)
GROUP_CHANNELS = 16
"""Channels of a group in the published models without a cardinality of their own."""


@dataclass(frozen=True)
class Stage:
    """One resolution: its side, channels, groups of the 3x3 convolutions, residual blocks, and precision."""

    side: int
    channels: int
    cardinality: int
    blocks: int
    bf16: bool


def stages(
    selector: str,
    resolution: int,
    channels: Sequence[int] | None,
    cardinality: Sequence[int] | None,
    blocks: Sequence[int] | None,
    expansion: int,
    kernel_size: int,
    bf16_resolutions: int,
) -> list[Stage]:
    """From 4x4 up to ``resolution``; the parameters are the networks'.

    Longer lists are cut. A shorter one is continued: channels and groups are halved, the number of blocks is kept.

    Raises:
        UserError: an empty list, groups that do not divide the channels, or an even kernel.
    """
    sides = resolutions(resolution, f"{selector}.resolution")
    if kernel_size % 2 == 0:
        raise UserError(f"{selector}.kernel_size must be odd; got {kernel_size}")
    for name, given in (("channels", channels), ("cardinality", cardinality), ("blocks", blocks)):
        if given is not None and not given:
            raise UserError(f"{selector}.{name} needs at least the value at 4x4; got an empty list")
    widths = _continued(channels or CHANNELS, len(sides), NARROWEST)
    if cardinality is None:
        groups = [max(expansion * width // GROUP_CHANNELS, 1) for width in widths]
    else:
        groups = _continued(cardinality, len(sides), 1)
    numbers = list(blocks or [2])
    numbers += [numbers[-1]] * len(sides)
    found = []
    for i, side in enumerate(sides):
        if expansion * widths[i] % groups[i]:
            raise UserError(
                f"{selector} has {expansion} x {widths[i]} channels at {side}x{side}, which {groups[i]} groups do not "
                f"divide; bind {selector}.cardinality"
            )
        found.append(Stage(side, widths[i], groups[i], numbers[i], len(sides) - i <= bf16_resolutions))
    return found


def residual_blocks(stage: Stage, expansion: int, kernel_size: int, depth: int) -> list[nn.Module]:
    return [
        ResidualBlock(stage.channels, stage.cardinality, expansion, kernel_size, depth) for _ in range(stage.blocks)
    ]


def precision(stage: Stage, parameters: torch.dtype) -> torch.dtype:
    """Of the features at a stage: bfloat16, or the parameters' own."""
    return torch.bfloat16 if stage.bf16 else parameters


def _continued(values: Sequence[int], count: int, least: int) -> list[int]:
    found = list(values)
    while len(found) < count:
        found.append(min(found[-1], max(found[-1] // 2, least)))
    return found[:count]
