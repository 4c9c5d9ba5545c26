"""Names of the generator in StyleGAN-XL's pickles."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.checkpoint_layouts.configurations import Options
from plugins.systems.stylegan_xl.generator import StyleGANXLGenerator
from registry import UserError
from stylenat.interfaces import Pair

MAPPING = {
    "mapping.embed.table": "mapping.embed.weight",
    "mapping.embed.linear.": "mapping.embed_proj.",
    "unused_embeddings": "mapping.embed.weight",
    "mean_style": "mapping.w_avg",
    "input.": "synthesis.input.",
}


class Generator:
    """StyleGAN-XL's generator of any stage, with its running means of w."""

    networks = ("generator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return {"mapping.embed.weight", "synthesis.input.freqs"} <= set(names) and ("mapping.embed.bias" not in names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "generator")
        stem = Options(take("stem", {}), "generator.stem")
        stages = [Options(stage, "generator.stages") for stage in take("stages", [])]
        resolution = take("img_resolution")
        growth = [stage("img_resolution") for stage in stages]
        for stage in stages:
            stage("up_factor", None)
        rows, dim = take("embed", (1000, 320))
        for options, name, value in ((take, "num_critical", 2), (take, "img_channels", 3)):
            options.only(name, value)
        network = StyleGANXLGenerator(
            resolution=resolution,
            stem_resolution=stem("img_resolution", resolution) if stages else resolution,
            stem_layers=stem("num_layers", None) or take("num_layers", 10),
            head_layers=[stage("head_layers") for stage in stages],
            growth=growth,
            channel_base=take("channel_base", 65536),
            channel_max=take("channel_max", 1024),
            latent_dim=take("z_dim", 64),
            style_dim=take("w_dim", 512),
            mapping_layers=take("mapping_layers", 2),
            margin=take("margin_size", 10),
            kernel_size=take("conv_kernel", 3),
            radial_filters=take("use_radial_filters", False),
            num_classes=take("c_dim", 0),
            embedding_rows=rows,
            embedding_dim=dim,
        )
        for options in (take, stem, *stages):
            options.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        matches = [match for name in state if (match := re.match(r"synthesis\.L(\d{1,4})_(\d{1,5})_", name))]
        last = max(matches, key=lambda match: int(match[1]))
        mean = state.get("mapping.w_avg")
        conditional = "mapping.embed_proj.weight" in state
        return {"resolution": int(last[2]), "num_classes": len(mean) if conditional and mean is not None else 0}

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, StyleGANXLGenerator):
            raise UserError("checkpoint_layout.stylegan_xl_generator names only weights of generator.stylegan_xl")
        return [Pair(name, _named(name, network)) for name in network.state_dict()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        if not isinstance(network, StyleGANXLGenerator):
            return {}
        found = {"synthesis.input.transform": torch.eye(3)}
        for layer in network.layers:
            for name in ("up_filter", "down_filter"):
                if (taps := getattr(layer, name)) is not None:
                    found[f"synthesis.{layer.plan.name}.{name}"] = taps
        return found


def _named(name: str, network: StyleGANXLGenerator) -> str:
    for ours, theirs in MAPPING.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    if name.startswith("layers."):
        _, index, rest = name.split(".", 2)
        return f"synthesis.{network.layers[int(index)].plan.name}.{rest}"
    return re.sub(r"^mapping\.layers\.(\d+)", r"mapping.fc\1", name)
