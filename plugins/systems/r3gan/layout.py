"""The names of R3GAN's own code, for both networks, and networks from its configurations.

Its training pickles hold each network as ``Model`` of a wrapper, so that their names begin with that.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from plugins.systems.r3gan.configuration import discriminator, generator
from plugins.systems.r3gan.discriminator import R3Discriminator
from plugins.systems.r3gan.generator import R3Generator
from plugins.systems.r3gan.layers import Resampler
from registry import UserError
from stylenat.interfaces import Pair

BLOCK = {
    "expand.weight": "LinearLayer1.Layer.weight",
    "first.bias": "NonLinearity1.Bias",
    "grouped.weight": "LinearLayer2.Layer.weight",
    "second.bias": "NonLinearity2.Bias",
    "contract.weight": "LinearLayer3.Layer.weight",
}


class GeneratorLayout:
    """R3GAN's generator."""

    networks: tuple[str, ...] = ("generator",)
    pixel_space = "symmetric"
    prefix = ""
    network: type[nn.Module] = R3Generator
    # Of ours: what leads into a stage comes before its blocks, what leads out of it after them.
    others = {
        "to_rgb.weight": "AggregationLayer.Layer.weight",
        "embedding.weight": "EmbeddingLayer.weight",
        "basis": "Basis",
        "linear.weight": "LinearLayer.weight",
        "convolution.weight": "LinearLayer.Layer.weight",
    }

    def recognises(self, names: Collection[str]) -> bool:
        return f"{self.prefix}AggregationLayer.Layer.weight" in names

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return generator(config)

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, self.network):
            raise UserError(f"this layout supports only the weights of {self.network.__name__}")
        return [Pair(name, self._named(name, network)) for name in network.state_dict()]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        if not isinstance(network, self.network):
            return {}
        return {
            self._named(f"{name}.kernel", network): module.kernel
            for name, module in network.named_modules()
            if isinstance(module, Resampler)
        }

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        stages = {match[1] for name in state if (match := re.match(rf"{self.prefix}MainLayers\.(\d+)\.", name))}
        label = state.get(f"{self.prefix}EmbeddingLayer.weight")
        return {"resolution": 2 << len(stages), "num_classes": 0 if label is None else label.shape[-1]}

    def _named(self, name: str, network: nn.Module) -> str:
        """Theirs of one of our names."""
        match = re.fullmatch(r"stages\.(\d+)\.(?:blocks\.(\d+)|(entry|exit))\.(.+)", name)
        if match is None:
            return self.prefix + self.others[name]
        stage, block, _, rest = match.groups()
        lead = self._blocks_before(network, int(stage), block)
        layer = f"{self.prefix}MainLayers.{stage}.Layers.{lead}."
        if block is not None:
            return layer + BLOCK[rest]
        return layer + ("Resampler.Kernel" if rest == "resample.kernel" else self.others[rest])

    def _blocks_before(self, network: nn.Module, stage: int, block: str | None) -> int:
        return 0 if block is None else int(block) + 1


class DiscriminatorLayout(GeneratorLayout):
    """R3GAN's discriminator."""

    networks = ("discriminator",)
    network = R3Discriminator
    others = {
        "from_rgb.weight": "ExtractionLayer.Layer.weight",
        "embedding.weight": "EmbeddingLayer.weight",
        "basis.weight": "Basis.weight",
        "linear.weight": "LinearLayer.weight",
        "convolution.weight": "LinearLayer.Layer.weight",
    }

    def recognises(self, names: Collection[str]) -> bool:
        return f"{self.prefix}ExtractionLayer.Layer.weight" in names

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return discriminator(config)

    def _blocks_before(self, network: nn.Module, stage: int, block: str | None) -> int:
        return len(network.stages[stage].blocks) if block is None else int(block)


class PickledGeneratorLayout(GeneratorLayout):
    """R3GAN's generator in a training pickle."""

    prefix = "Model."


class PickledDiscriminatorLayout(DiscriminatorLayout):
    """R3GAN's discriminator in a training pickle."""

    prefix = "Model."
