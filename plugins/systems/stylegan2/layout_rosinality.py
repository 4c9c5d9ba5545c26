"""Names of the StyleGAN2 checkpoints of rosinality/stylegan2-pytorch (``.pt`` with g_ema, g and d)."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from plugins.checkpoint_layouts.configurations import Options
from plugins.systems.stylegan2.discriminator import StyleGAN2Discriminator
from plugins.systems.stylegan2.generator import StyleGAN2Generator
from registry import UserError
from stylenat.interfaces import Pair
from stylenat.networks.resampling import blur_kernel


def _common(take: Options) -> dict[str, Any]:
    take.only("blur_kernel", [1, 3, 3, 1], (1, 3, 3, 1))
    return {"resolution": take("size"), "channel_base": 16384 * take("channel_multiplier", 2)}


class Generator:
    """rosinality's generator. It keeps no mean of w; random noise is its default in sampling too."""

    networks = ("generator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return "conv1.conv.modulation.weight" in names and "input.input" in names

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "generator")
        dim = take("style_dim", 512)
        network = StyleGAN2Generator(
            **_common(take), latent_dim=dim, style_dim=dim, mapping_layers=take("n_mlp", 8),
            mapping_lr_multiplier=take("lr_mlp", 0.01), mean_style_decay=None,
        )  # fmt: skip
        take.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        return {"resolution": 4 * 2 ** _count(state, r"to_rgbs\.(\d{1,2})\.bias"), "num_classes": 0}

    def pairs(self, network: nn.Module) -> list[Pair]:
        unnamed = "checkpoint_layout.stylegan2_rosinality_generator has no names for"
        if not isinstance(network, StyleGAN2Generator):
            raise UserError(f"{unnamed} {type(network).__name__}, only for generator.stylegan2")
        if network.num_classes or any(block.to_rgb is None for block in network.blocks):
            raise UserError(f"{unnamed} classes or another architecture than 'skip'; bind num_classes = 0")
        if network.mean_style_decay is not None:
            raise UserError(f"{unnamed} the mean style; bind generator.stylegan2.mean_style_decay = None")
        return [_pair(name, tensor) for name, tensor in network.state_dict().items()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, StyleGAN2Generator)
        found = {}
        for i in range(len(network.blocks) - 1):
            found[f"convs.{2 * i}.conv.blur.kernel"] = 4 * blur_kernel()
            found[f"to_rgbs.{i}.upsample.kernel"] = 4 * blur_kernel()
        return found


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """Names of a state that match."""
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _pair(name: str, tensor: Tensor) -> Pair:
    """Of one tensor of the generator."""
    if match := re.fullmatch(r"mapping\.layers\.(\d+)\.(\w+)", name):
        return Pair(name, f"style.{int(match[1]) + 1}.{match[2]}")
    _, index, rest = name.split(".", 2)
    number = int(index)
    if rest == "const":
        return _reshaped(name, "input.input", tensor, (1, *tensor.shape))
    layer, _, rest = rest.partition(".")
    rgb = layer == "to_rgb"
    # Layers are counted from the one at 4x4, which has names of its own.
    count = 0 if number == 0 else 2 * number - 1 + (layer == "conv1")
    if rgb:
        theirs = f"to_rgbs.{number - 1}" if number else "to_rgb1"
    else:
        theirs = f"convs.{count - 1}" if count else "conv1"
    if rest.startswith("affine."):
        return Pair(name, f"{theirs}.conv.modulation.{rest.removeprefix('affine.')}")
    if rest == "weight":
        return _reshaped(name, f"{theirs}.conv.weight", tensor, (1, *tensor.shape))
    if rest == "noise_strength":
        return _reshaped(name, f"{theirs}.noise.weight", tensor, (1,))
    if rest == "noise_const":
        return _reshaped(name, f"noises.noise_{count}", tensor, (1, 1, *tensor.shape))
    if rgb:
        return _reshaped(name, f"{theirs}.bias", tensor, (1, 3, 1, 1))
    return Pair(name, f"{theirs}.activate.bias")


def _reshaped(name: str, theirs: str, tensor: Tensor, shape: tuple[int, ...]) -> Pair:
    own = tensor.shape
    return Pair(name, theirs, lambda t: t.reshape(own), lambda t: t.reshape(shape))


# Ours to theirs, the number of a block aside.
DISCRIMINATOR = {
    "conv0.weight": "conv1.0.weight",
    "conv0.bias": "conv1.1.bias",
    "conv1.weight": "conv2.1.weight",
    "conv1.bias": "conv2.2.bias",
    "skip.weight": "skip.1.weight",
    "final_convolution.weight": "final_conv.0.weight",
    "final_convolution.bias": "final_conv.1.bias",
    "final_linear": "final_linear.0",
    "logit": "final_linear.1",
}


class Discriminator:
    """rosinality's discriminator."""

    networks = ("discriminator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return {"convs.0.0.weight", "convs.1.conv2.1.weight", "final_conv.0.weight"} <= set(names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "discriminator")
        network = StyleGAN2Discriminator(**_common(take))
        take.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        return {"resolution": 4 * 2 ** _count(state, r"convs\.(\d{1,2})\.skip\.1\.weight"), "num_classes": 0}

    def pairs(self, network: nn.Module) -> list[Pair]:
        unnamed = "checkpoint_layout.stylegan2_rosinality_discriminator has no names for"
        if not isinstance(network, StyleGAN2Discriminator):
            raise UserError(f"{unnamed} {type(network).__name__}, only for discriminator.stylegan2")
        if network.num_classes or any(block.skip is None for block in network.blocks):
            raise UserError(f"{unnamed} classes or another architecture than 'resnet'; bind num_classes = 0")
        pairs = []
        for name in network.state_dict():
            module, _, tensor = name.rpartition(".")
            if name.startswith("blocks."):
                _, index, rest = name.split(".", 2)
                if rest.startswith("from_rgb."):
                    pairs.append(Pair(name, f"convs.0.{'0' if tensor == 'weight' else '1'}.{tensor}"))
                else:
                    pairs.append(Pair(name, f"convs.{int(index) + 1}.{DISCRIMINATOR[rest]}"))
            else:
                pairs.append(Pair(name, DISCRIMINATOR.get(name) or f"{DISCRIMINATOR[module]}.{tensor}"))
        return pairs

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, StyleGAN2Discriminator)
        count = len(network.blocks)
        return {f"convs.{i + 1}.{part}.0.kernel": blur_kernel() for i in range(count) for part in ("conv2", "skip")}
