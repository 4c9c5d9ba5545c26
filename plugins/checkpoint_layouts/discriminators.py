"""The wavelet discriminator's names, the same in StyleNAT's and StyleSwin's checkpoints."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from plugins.checkpoint_layouts.configurations import discriminator
from registry import UserError
from stylenat.interfaces import Pair
from stylenat.networks.discriminator import WaveletDiscriminator, haar_filters
from stylenat.networks.resampling import blur_kernel

# Ours to theirs, the last part of a convolution's or linear's name aside.
WEIGHTS = (
    (r"from_wavelet\.(\d+)\.weight", r"from_rgbs.\1.conv.0"),
    (r"from_wavelet\.(\d+)\.bias", r"from_rgbs.\1.conv.1.bias"),
    (r"blocks\.(\d+)\.0\.weight", r"convs.\1.conv1.0"),
    (r"blocks\.(\d+)\.0\.bias", r"convs.\1.conv1.1.bias"),
    (r"blocks\.(\d+)\.1\.weight", r"convs.\1.conv2.1"),
    (r"blocks\.(\d+)\.1\.bias", r"convs.\1.conv2.2.bias"),
    (r"final_convolution\.weight", "final_conv.0"),
    (r"final_convolution\.bias", "final_conv.1.bias"),
    (r"final_linear\.weight", "final_linear.0"),
    (r"final_linear\.bias", "final_linear.0.bias"),
    (r"activation_bias", "final_linear.1.bias"),
)


class Wavelet:
    """The wavelet discriminator, under spectral norm or an equalised learning rate."""

    networks = ("discriminator",)

    def recognises(self, names: Collection[str]) -> bool:
        return any(name.startswith("from_rgbs.0.conv.0.") for name in names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return discriminator(config)

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, WaveletDiscriminator):
            raise UserError("checkpoint_layout.wavelet supports only the weights of discriminator.wavelet")
        names = network.state_dict()
        # Under spectral norm the activation is a module of its own, which moves the last linear up by one.
        logit = "final_linear.2" if "activation_bias" in names else "final_linear.1"
        table = (*WEIGHTS, (r"logit\.weight", logit), (r"logit\.bias", f"{logit}.bias"))
        spectral = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v"} if "activation_bias" in names else {}
        pairs = []
        for name in names:
            for pattern, theirs in table:
                if match := re.fullmatch(rf"{pattern}(?:\.(weight|u|v))?", name):
                    *_, last = match.groups()
                    stem = match.expand(theirs)
                    pairs.append(Pair(name, f"{stem}.{spectral.get(last, last)}" if last else stem))
        return pairs

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        assert isinstance(network, WaveletDiscriminator)
        low, y, x, both = haar_filters()
        # Theirs are correlated or convolved with their own signs; the sign of a difference filter is a convention.
        forward = {"ll": low, "lh": -y, "hl": -x, "hh": both}
        backward = {"ll": low, "lh": y, "hl": x, "hh": both}
        found = {f"dwt.{band}": filter for band, filter in forward.items()}
        for i in range(1, len(network.from_wavelet)):
            found |= {f"from_rgbs.{i}.dwt.{band}": filter for band, filter in forward.items()}
            found |= {f"from_rgbs.{i}.iwt.{band}": filter for band, filter in backward.items()}
            found[f"from_rgbs.{i}.downsample.kernel"] = blur_kernel()
        return found | {f"convs.{i}.conv2.0.kernel": blur_kernel() for i in range(len(network.blocks))}
