"""Names of the projected discriminator in StyleGAN-XL's pickles, whose backbones are timm's networks."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.backbones.feature_maps import FeatureMaps
from plugins.backbones.timm_networks import TimmBackbone
from plugins.checkpoint_layouts.configurations import Options
from plugins.systems.stylegan_xl.discriminator import ProjectedDiscriminator, ProjectedNetwork
from plugins.systems.stylegan_xl.scale_discriminator import DownBlock
from registry import UserError
from stylenat.interfaces import Pair

EFFICIENTNET = {
    "conv_stem": "layer0.0",
    "bn1": "layer0.1",
    **{f"blocks.{i}": f"layer{where}" for i, where in enumerate(("0.3", "0.4", "1.0", "2.0", "2.1", "3.0", "3.1"))},
}
"""The code cuts timm's EfficientNet into its own parts."""


class Discriminator:
    """The projected discriminator of StyleGAN-XL, with its backbones."""

    networks = ("discriminator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return any(re.match(r"discriminators\.\w+\.mini_discs\.0\.", name) for name in names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        take = Options(config, "discriminator")
        kwargs = Options(take("backbone_kwargs", {}), "discriminator.backbone_kwargs")
        names = list(take("backbones"))
        for name, value in (("expand", True), ("proj_type", 2), ("num_discs", 4)):
            kwargs.only(name, value)
        take("interp224", True)  # The backbones know.
        diffaug, classes = take("diffaug", True), take("c_dim", 0)
        network = ProjectedDiscriminator(
            resolution=take("img_resolution"),
            backbones=[_builder(name) for name in names],
            width=kwargs("cout", 64),
            diffaugment="color,translation,cutout" if diffaug else "",
            num_classes=classes if kwargs("cond", False) else 0,
            label_dim=kwargs("cmap_dim", 64),
        )
        for options in (take, kwargs):
            options.done()
        return network

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        # The networks are the same for every resolution and, with the table's rows, for every number of classes.
        return {}

    def pairs(self, network: nn.Module) -> list[Pair]:
        return [Pair(name, _named(name, self._checked(network))) for name in network.state_dict()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        """Batch norm's counters, which nothing uses."""
        if not isinstance(network, ProjectedDiscriminator):
            return {}
        names = [f"{name}.norm.weight" for name, module in network.named_modules() if isinstance(module, DownBlock)]
        counters = (_named(name, network).replace(".weight", ".num_batches_tracked") for name in names)
        return {name: torch.tensor(0) for name in counters}

    def _checked(self, network: nn.Module) -> ProjectedDiscriminator:
        if isinstance(network, ProjectedDiscriminator) and all(
            isinstance(part.backbone, FeatureMaps) for part in network.networks
        ):
            return network
        raise UserError(
            "checkpoint_layout.stylegan_xl_discriminator names only weights of discriminator.projected on backbone.timm"
        )


def _builder(name: str) -> Any:
    # The code keeps a transformer's head, and cuts an EfficientNet's off.
    return lambda: TimmBackbone(name, classifies=not name.startswith("tf_efficientnet"))


def _named(name: str, network: ProjectedDiscriminator) -> str:
    _, index, part, rest = name.split(".", 3)
    one = network.networks[int(index)]
    if part == "scales":
        return f"discriminators.{one.backbone.name}.mini_discs.{_scales_name(rest, one)}"
    if part == "projector":
        group, scale, tensor = rest.split(".")
        mixed = f"layer{scale}_ccm" if group == "across_channels" else f"layer{scale}_csm.out_conv"
        return f"feature_networks.{one.backbone.name}.scratch.{mixed}.{tensor}"
    return f"feature_networks.{one.backbone.name}.pretrained.{_backbones_name(rest, one.backbone)}"


def _scales_name(name: str, network: ProjectedNetwork) -> str:
    scale, part, rest = name.split(".", 2)
    spectral = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v"}
    if part == "logit":
        found = network.scales[int(scale)]
        return f"{scale}.{'cls' if found.classes is not None else f'main.{len(found.blocks)}'}.{spectral[rest]}"
    if part == "classes":
        return f"{scale}." + ("embed.weight" if rest == "table" else rest.replace("linear.", "embed_proj."))
    block, tensor = rest.split(".", 1)
    main = f"{scale}.main.{block}.main"
    if tensor.startswith("norm."):
        return f"{main}.1.{tensor.removeprefix('norm.')}"
    return f"{main}.0." + (spectral[tensor.removeprefix("weight.")] if tensor.startswith("weight.") else tensor)


def _backbones_name(name: str, backbone: FeatureMaps) -> str:
    if name.startswith("reassemble."):
        _, scale, layer, tensor = name.split(".")
        return f"layer{int(scale) + 1}.{3 + int(layer)}.{tensor}"
    own = name.removeprefix("network.")
    if backbone.reassemble is not None:
        return f"model.{own}"
    known = re.match(r"blocks\.\d|conv_stem|bn1", own)
    if known is None:
        raise UserError(f"checkpoint_layout.stylegan_xl_discriminator has no name for {backbone.name}'s {own}")
    return EFFICIENTNET[known[0]] + own[known.end() :]
