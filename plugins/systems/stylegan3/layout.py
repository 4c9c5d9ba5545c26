"""Names of StyleGAN3's checkpoints (``state_dict`` of G and G_ema). Its discriminator is StyleGAN2-ADA's."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.checkpoint_layouts.configurations import Options
from plugins.systems.stylegan3.generator import OUTPUT_SCALE, AliasFreeGenerator, StyleGAN3Generator
from plugins.systems.stylegan3.schedule import FILTER_SIZE, STOPBAND
from registry import UserError
from stylenat.interfaces import Pair

INPUT = "synthesis.input.freqs"


class Generator:
    """StyleGAN3's generator, with its running mean of w and the magnitudes of its layers."""

    networks = ("generator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        # StyleGAN-XL's embedding is a table without bias.
        return INPUT in names and ("mapping.embed.weight" in names) == ("mapping.embed.bias" in names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "generator")
        mapping = Options(take("mapping_kwargs", {}), "generator.mapping_kwargs")
        for name, value in {
            "img_channels": 3, "first_cutoff": 2, "first_stopband": STOPBAND, "last_stopband_rel": 2**0.3,
            "output_scale": OUTPUT_SCALE, "filter_size": FILTER_SIZE, "lrelu_upsampling": 2,
        }.items():  # fmt: skip
            take.only(name, value)
        take("num_fp16_res", 0)  # Of speed, not of the function.
        network = StyleGAN3Generator(
            resolution=take("img_resolution"),
            channel_base=take("channel_base", 32768),
            channel_max=take("channel_max", 512),
            latent_dim=take("z_dim"),
            style_dim=take("w_dim"),
            mapping_layers=mapping("num_layers", 2),
            mapping_lr_multiplier=mapping("lr_multiplier", 0.01),
            num_layers=take("num_layers", 14),
            num_critical=take("num_critical", 2),
            margin=take("margin_size", 10),
            kernel_size=take("conv_kernel", 3),
            radial_filters=take("use_radial_filters", False),
            mean_style_decay=mapping("w_avg_beta", 0.998),
            magnitude_decay=take("magnitude_ema_beta", 0.999),
            conv_clamp=take("conv_clamp", 256),
            num_classes=take("c_dim", 0),
        )
        take.done()
        mapping.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        layers = [match for name in state if (match := re.match(r"synthesis\.L(\d{1,3})_(\d{1,5})_\d", name))]
        embed = state.get("mapping.embed.weight")
        last = max(layers, key=lambda match: int(match[1]))
        return {"resolution": int(last[2]), "num_classes": 0 if embed is None else embed.shape[-1]}

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, StyleGAN3Generator):
            raise UserError("checkpoint_layout.stylegan3_generator names only weights of generator.stylegan3")
        return [Pair(name, published_name(network, name)) for name in network.state_dict()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, StyleGAN3Generator)
        return filters(network)


def published_name(network: AliasFreeGenerator, name: str) -> str:
    """Of a tensor of mapping, input, layers or the mean style."""
    if name == "mean_style":
        return "mapping.w_avg"
    if name.startswith("input."):
        return f"synthesis.{name}"
    if name.startswith("layers."):
        _, index, rest = name.split(".", 2)
        return f"synthesis.{network.layers[int(index)].plan.name}.{rest}"
    return re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", name)


def filters(network: AliasFreeGenerator) -> dict[str, Tensor]:
    """The constants of published files: filters, and the transform of the input."""
    found = {"synthesis.input.transform": torch.eye(3)}
    for layer in network.layers:
        taps = {"up_filter": layer.up_filter, "down_filter": layer.down_filter}
        found |= {f"synthesis.{layer.plan.name}.{name}": value for name, value in taps.items() if value is not None}
    return found
