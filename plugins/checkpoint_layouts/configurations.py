"""Networks from the published systems' configurations: what ``config.generator`` and the like say, built by ours."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from plugins.blocks.hydra import HydraBlock
from plugins.blocks.swin import SwinBlock
from plugins.partitions.table import Table
from registry import UserError, even_groups
from stylenat.attention.hydra import HydraAttention
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator

# What has no part in the function that a network computes: rates, bookkeeping, memory for time.
IGNORED = {"lr", "reg_every", "params", "use_checkpoint"}


class Options:
    """A configuration's options, each taken once. What stays unread at the end is refused, not guessed at."""

    def __init__(self, options: Mapping[str, Any], what: str) -> None:
        self.what, self.left = what, {k: v for k, v in options.items() if k not in IGNORED}

    def __call__(self, name: str, default: Any = ...) -> Any:
        if default is ... and name not in self.left:
            raise UserError(f"the configuration's {self.what} has no {name!r}; a recorded configuration has")
        return self.left.pop(name, default)

    def only(self, name: str, *values: Any) -> None:
        """Raises UserError where the option, if given, has another value than those that are built here."""
        if (value := self.left.pop(name, values[0])) not in values:
            raise UserError(f"the configuration's {self.what}.{name} = {value!r} is not built here, only {values[0]!r}")

    def done(self) -> None:
        if self.left:
            raise UserError(f"the configuration's {self.what} has options unknown here: {', '.join(sorted(self.left))}")


def neighborhoods(kernel_sizes: list[int], dilations: list[int]) -> list[tuple[int, int]]:
    """One (kernel size, dilation) a group; a list of one serves all groups.

    Raises UserError when the lists' lengths do not agree.
    """
    groups = max(len(kernel_sizes), len(dilations))
    both = [values * groups if len(values) == 1 else values for values in (list(kernel_sizes), list(dilations))]
    if {len(values) for values in both} != {groups}:
        raise UserError(f"the configuration's kernels {kernel_sizes} and dilations {dilations} differ in number")
    return list(zip(*both, strict=True))


def generator(config: Mapping[str, Any]) -> StyleGenerator:
    """The generator of ``config``: its ``size`` and the options under ``generator``.

    Raises UserError for an option that is missing, unknown or not built here.
    """
    take, resolution = Options(config["generator"], "generator"), config["size"]
    for dropout in ("proj_drop", "attn_drop"):
        take.only(dropout, 0.0, 0)
    common = {"mlp_ratio": take("mlp_ratio", 4), "qkv_bias": take("qkv_bias", True), "qk_scale": take("qk_scale", None)}
    kernels, dilations = take("kernels", None), take("dilations", None)
    full_resolution, kind = take("enable_full_resolution", 8), take("block_type")
    if kind == "nat":
        sides = [2**i for i in range(2, resolution.bit_length())]
        if kernels is None or dilations is None or min(len(kernels), len(dilations)) < len(sides):
            raise UserError(f"the configuration needs a row of kernels and of dilations for each of {sides}")
        rows = {side: neighborhoods(k, d) for side, k, d in zip(sides, kernels, dilations, strict=False)}
        table = Table(
            {side: [dilation for _, dilation in row] for side, row in rows.items()},
            {side: [kernel_size for kernel_size, _ in row] for side, row in rows.items()},
        )
        block: Any = partial(HydraBlock, partition=table, **common)
    elif kind == "swin":
        block = partial(SwinBlock, full_resolution=full_resolution, **common)
    else:
        raise UserError(f"the configuration's generator.block_type = {kind!r} is not built here, only 'nat' and 'swin'")
    style_dim, channels = take("style_dim", 512), take("in_channels_override", None)
    network = StyleGenerator(
        resolution=resolution,
        block=block,
        channel_multiplier=take("channel_multiplier", 2),
        channels=None if channels is None else list(channels),
        latent_dim=style_dim,
        style_dim=style_dim,
        mapping_layers=take("n_mlp", 8),
        mapping_lr_multiplier=take("lr_mlp", 0.01),
        min_heads=take("min_heads", 4),
    )
    take.done()
    return network


def hydra(config: Mapping[str, Any]) -> HydraAttention:
    """One attention layer from its own configuration. Raises UserError as ``generator`` does."""
    take = Options(config, "attention layer")
    for name in ("cls", "hw", "use_rpb"):
        take(name, None)
    for dropout in ("proj_drop", "attn_drop"):
        take.only(dropout, 0.0, 0)
    heads = take("num_heads")
    groups = even_groups(heads, neighborhoods(take("kernel_sizes"), take("dilations")))
    layer = HydraAttention(take("dim"), heads, groups, take("qkv_bias", True), take("qk_scale", None))
    take.done()
    return layer


def discriminator(config: Mapping[str, Any]) -> nn.Module:
    """The discriminator of ``config``. Raises UserError as ``generator`` does."""
    take, resolution = Options(config["discriminator"], "discriminator"), config["size"]
    take.only("ssd", False)
    take.only("blur_kernel", [1, 3, 3, 1], (1, 3, 3, 1))
    channels = take("channels_override", None)
    if channels is not None:
        # Features live at 4, 8, ..., resolution / 2; the largest have the width that is given for the image's side.
        width = {int(side): value for side, value in channels.items()}
        sides = [2**i for i in range(2, resolution.bit_length() - 2)]
        if missing := {*sides, resolution} - set(width):
            raise UserError(f"the configuration's discriminator.channels_override lacks {sorted(missing)}")
        channels = [width[side] for side in (*sides, resolution)]
    network = WaveletDiscriminator(
        resolution=resolution,
        channel_multiplier=take("channel_multiplier", 2),
        channels=channels,
        spectral_norm=take("sn", True),
    )
    take.done()
    return network
