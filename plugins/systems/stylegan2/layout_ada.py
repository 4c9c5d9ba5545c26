"""Names of StyleGAN2-ADA's PyTorch checkpoints (``state_dict`` of G, G_ema and D)."""

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


class Generator:
    """StyleGAN2-ADA's generator, with its running mean of w."""

    networks = ("generator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return "synthesis.b4.const" in names

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "generator")
        mapping = Options(take("mapping_kwargs", {}), "generator.mapping_kwargs")
        synthesis = Options(take("synthesis_kwargs", {}), "generator.synthesis_kwargs")
        latent_dim, style_dim = take("z_dim"), take("w_dim")
        for name in ("embed_features", "layer_features"):
            mapping.only(name, None, style_dim)
        _checked(take, mapping, synthesis)
        synthesis.only("use_noise", True)
        network = StyleGAN2Generator(
            resolution=take("img_resolution"),
            channel_base=synthesis("channel_base", 32768),
            channel_max=synthesis("channel_max", 512),
            latent_dim=latent_dim,
            style_dim=style_dim,
            mapping_layers=mapping("num_layers", 8),
            mapping_lr_multiplier=mapping("lr_multiplier", 0.01),
            architecture=synthesis("architecture", "skip"),
            mean_style_decay=mapping("w_avg_beta", 0.995),
            conv_clamp=synthesis("conv_clamp", None),
            num_classes=take("c_dim", 0),
        )
        for options in (take, mapping, synthesis):
            options.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        return _dimensions(state)

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, StyleGAN2Generator):
            raise UserError("checkpoint_layout.stylegan2_ada_generator names only weights of generator.stylegan2")
        return [Pair(name, _generators_name(name)) for name in network.state_dict()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, StyleGAN2Generator)
        found = []
        for block in network.blocks:
            prefix = f"synthesis.b{block.side}"
            layers = ["conv1"] if block.first else ["conv0", "conv1"]
            found += [prefix, *(f"{prefix}.{layer}" for layer in layers)]
            found += [f"{prefix}.skip"] if block.skip is not None else []
        return {f"{name}.resample_filter": blur_kernel() for name in found}


def _generators_name(name: str) -> str:
    if name == "mean_style":
        return "mapping.w_avg"
    if name.startswith("blocks."):
        _, index, rest = name.split(".", 2)
        return f"synthesis.b{4 * 2 ** int(index)}.{rest.replace('to_rgb.', 'torgb.')}"
    return re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", name)


class Discriminator:
    """StyleGAN2-ADA's discriminator."""

    networks = ("discriminator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return {"b4.conv.weight", "b4.fc.weight", "b4.out.weight", "b8.conv0.weight"} <= set(names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "discriminator")
        mapping = Options(take("mapping_kwargs", {}), "discriminator.mapping_kwargs")
        block = Options(take("block_kwargs", {}), "discriminator.block_kwargs")
        epilogue = Options(take("epilogue_kwargs", {}), "discriminator.epilogue_kwargs")
        channel_base, channel_max = take("channel_base", 32768), take("channel_max", 512)
        last = max(1, min(channel_base // 4, channel_max))
        take.only("cmap_dim", None, last)
        for name in ("embed_features", "layer_features"):
            mapping.only(name, None, last)
        mapping("w_avg_beta", None)  # Without latents there is no running mean.
        block("freeze_layers", 0)
        epilogue.only("mbstd_num_channels", 1)
        _checked(take, mapping, block, epilogue)
        network = StyleGAN2Discriminator(
            resolution=take("img_resolution"),
            channel_base=channel_base,
            channel_max=channel_max,
            architecture=take("architecture", "resnet"),
            stddev_group=epilogue("mbstd_group_size", 4),
            mapping_layers=mapping("num_layers", 8),
            mapping_lr_multiplier=mapping("lr_multiplier", 0.01),
            conv_clamp=take("conv_clamp", None),
            num_classes=take("c_dim", 0),
        )
        for options in (take, mapping, block, epilogue):
            options.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        return _dimensions(state)

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, StyleGAN2Discriminator):
            raise UserError(
                "checkpoint_layout.stylegan2_ada_discriminator names only weights of discriminator.stylegan2"
            )
        return [Pair(name, _discriminators_name(name, network.resolution)) for name in network.state_dict()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, StyleGAN2Discriminator)
        found = [f"b{network.resolution >> i}" for i in range(len(network.blocks))]
        layers = {
            _discriminators_name(name, network.resolution).rpartition(".")[0]
            for name in network.state_dict()
            if not name.startswith(("mapping.", "final_linear.", "logit."))
        }
        return {f"{name}.resample_filter": blur_kernel() for name in (*found, *sorted(layers))}


def _discriminators_name(name: str, resolution: int) -> str:
    if name.startswith("blocks."):
        _, index, rest = name.split(".", 2)
        return f"b{resolution >> int(index)}.{rest.replace('from_rgb.', 'fromrgb.')}"
    last = {
        "final_from_rgb": "b4.fromrgb",
        "final_convolution": "b4.conv",
        "final_linear": "b4.fc",
        "logit": "b4.out",
    }
    module, _, tensor = name.rpartition(".")
    return f"{last[module]}.{tensor}" if module in last else re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", name)


def _dimensions(state: Mapping[str, Tensor]) -> dict[str, int]:
    sides = [int(match[1]) for name in state if (match := re.match(r"(?:synthesis\.)?b(\d{1,5})\.", name))]
    embed = state.get("mapping.embed.weight")
    return {"resolution": max(sides), "num_classes": 0 if embed is None else embed.shape[-1]}


def _checked(*every: Options) -> None:
    """Takes the options that are the same for all that is built here. Raises UserError for other values."""
    for options in every:
        options.only("img_channels", 3)
        options.only("activation", "lrelu")
        options.only("resample_filter", [1, 3, 3, 1], (1, 3, 3, 1))
        options("num_fp16_res", 0)  # Of speed, not of the function.
        options("fp16_channels_last", False)
        options("use_fp16", False)
