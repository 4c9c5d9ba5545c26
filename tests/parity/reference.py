"""Names of the reference implementations' checkpoints, mapped to ours; and their networks, built by ours."""

import re

import torch

from plugins.blocks.hydra import HydraBlock
from plugins.partitions.table import Table
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator

CONSTANTS = re.compile(r"(relative_position_index|_float_tensor|kernel|\.ll|\.lh|\.hl|\.hh)$")


def generator_name(key: str) -> str:
    if key == "input.input":
        return "constant"
    if match := re.match(r"style\.(\d+)\.(.*)", key):
        return f"mapping.layers.{int(match[1]) - 1}.{match[2]}"
    if match := re.match(r"to_rgbs\.(\d+)\.(.*)", key):
        return f"stages.{match[1]}.to_rgb.{match[2].replace('conv.', 'linear.')}"
    key = key.replace("layers.", "stages.").replace("attn.", "attention.")
    key = key.replace("mlp.fc1", "expand").replace("mlp.fc2", "contract")
    return re.sub(r"rpb$", "relative_position_bias", re.sub(r"rpb\.", "relative_position_bias.", key))


def generator_tensor(key: str, value: torch.Tensor) -> torch.Tensor:
    if key == "input.input":
        return value.permute(0, 2, 3, 1)
    return value.flatten(1) if key.endswith("conv.weight") else value.flatten() if value.ndim == 4 else value


def discriminator_name(key: str, spectral_norm: bool) -> str:
    key = re.sub(r"from_rgbs\.(\d)\.conv\.0", r"from_wavelet.\1.weight", key)
    key = re.sub(r"from_rgbs\.(\d)\.conv\.1", r"from_wavelet.\1", key)
    key = re.sub(r"convs\.(\d)\.conv1\.0", r"blocks.\1.0.weight", key)
    key = re.sub(r"convs\.(\d)\.conv1\.1", r"blocks.\1.0", key)
    key = re.sub(r"convs\.(\d)\.conv2\.1", r"blocks.\1.1.weight", key)
    key = re.sub(r"convs\.(\d)\.conv2\.2", r"blocks.\1.1", key)
    key = key.replace("final_conv.0", "final_convolution.weight").replace("final_conv.1", "final_convolution")
    key = key.replace("weight_orig", "weight").replace("weight_u", "u").replace("weight_v", "v")
    logit = "final_linear.2" if spectral_norm else "final_linear.1"
    exact = {
        "final_linear.0.bias": "final_linear.bias",
        "final_linear.1.bias": "activation_bias",
        f"{logit}.bias": "logit.bias",
    }
    if key in exact:
        return exact[key]
    return key.replace(f"{logit}.", "logit.weight.").replace("final_linear.0.", "final_linear.weight.")


def renamed(state, name, tensor=lambda key, value: value):
    return {name(k): tensor(k, v) for k, v in state.items() if not CONSTANTS.search(k)}


def generator(config) -> StyleGenerator:
    options = config["generator"]
    sides = [2 ** (i + 2) for i in range(len(options["kernels"]))]
    dilations = dict(zip(sides, options["dilations"], strict=True))
    kernel_sizes = {side: row * len(dilations[side]) for side, row in zip(sides, options["kernels"], strict=True)}
    partition = Table(dilations, kernel_sizes)
    return StyleGenerator(
        resolution=config["size"],
        block=lambda **site: HydraBlock(partition=partition, **site),
        channels=options.get("in_channels_override"),
        latent_dim=options["style_dim"],
        style_dim=options["style_dim"],
        mapping_layers=options["n_mlp"],
        min_heads=options["min_heads"],
    )


def discriminator(config) -> WaveletDiscriminator:
    options = config["discriminator"]
    width = options["channels_override"]
    sides = [4 * 2**i for i in range(config["size"].bit_length() - 4)]
    return WaveletDiscriminator(
        resolution=config["size"],
        channels=[width[str(side)] for side in sides] + [width[str(config["size"])]],
        spectral_norm=options["sn"],
    )
