"""Generators: the names of StyleNAT's two layouts and of StyleSwin's, and networks from their configurations.

The systems share everything but the attention layers' tables.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plugins.blocks.swin import DoubleAttention
from plugins.checkpoint_layouts.configurations import generator, hydra
from registry import UserError
from stylenat.attention.hydra import FullAttention, HydraAttention
from stylenat.interfaces import Pair
from stylenat.networks.generator import StyleGenerator
from stylenat.networks.resampling import blur_kernel


class StyleNAT:
    """StyleNAT's checkpoints, published layout: one table a head group, ``rpb.0``, ``rpb.1``."""

    networks = ("generator", "hydra")
    TABLES = re.compile(r"(^|\.)rpb\.\d+$")
    attention: tuple[type[nn.Module], ...] = (HydraAttention, FullAttention)

    def recognises(self, names: Collection[str]) -> bool:
        return any(self.TABLES.search(name) for name in names)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return hydra(config) if "num_heads" in config else generator(config)

    def pairs(self, network: nn.Module) -> list[Pair]:
        state = network.state_dict()
        if isinstance(network, HydraAttention) and "hydra" in self.networks:
            return [pair for name in state for pair in self._attention("", name, state)]
        blocks = [block for stage in getattr(network, "stages", [network]) for block in getattr(stage, "blocks", [])]
        if not blocks or not all(isinstance(getattr(block, "attention", None), self.attention) for block in blocks):
            raise UserError(f"this layout ({type(self).__name__}) has no names for the blocks of this experiment")
        return [pair for name in state for pair in self._pairs(name, state)]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        if not isinstance(network, StyleGenerator):
            return {}
        found = {}
        for i, stage in enumerate(network.stages):
            if stage.upsample is not None:
                found[f"layers.{i}.upsample.sin_pos_embed._float_tensor"] = torch.zeros(1)
                found[f"to_rgbs.{i}.upsample.kernel"] = 4 * blur_kernel()
            for j, block in enumerate(stage.blocks):
                found |= self._block_constants(f"layers.{i}.blocks.{j}.", block.attention)
        return found

    def _block_constants(self, prefix: str, attention: nn.Module) -> dict[str, Tensor]:
        if isinstance(attention, FullAttention):
            return {f"{prefix}attn.relative_position_index": attention.index}
        return {}

    def _pairs(self, name: str, state: Mapping[str, Tensor]) -> Iterator[Pair]:
        shape = state[name].shape
        if name == "constant":
            yield Pair(name, "input.input", lambda t: t.permute(0, 2, 3, 1), lambda t: t.permute(0, 3, 1, 2))
        elif match := re.fullmatch(r"mapping\.layers\.(\d+)\.(\w+)", name):
            yield Pair(name, f"style.{int(match[1]) + 1}.{match[2]}")
        elif match := re.fullmatch(r"stages\.(\d+)\.to_rgb\.(.*)", name):
            theirs = f"to_rgbs.{match[1]}.{match[2].replace('linear', 'conv')}"
            if match[2] == "linear.bias":
                yield Pair(name, theirs)
            else:
                conv = (1, 3, 1, 1) if match[2] == "bias" else (*shape, 1, 1)
                yield Pair(name, theirs, lambda t: t.reshape(shape), lambda t: t.reshape(conv))
        elif match := re.fullmatch(r"(stages\.\d+\.blocks\.\d+\.)attention\.(.*)", name):
            yield from self._attention(match[1], match[2], state)
        else:
            theirs = name.replace("stages.", "layers.", 1)
            yield Pair(name, theirs.replace(".expand.", ".mlp.fc1.").replace(".contract.", ".mlp.fc2."))

    def _attention(self, block: str, name: str, state: Mapping[str, Tensor]) -> Iterator[Pair]:
        """Pairs of one tensor of an attention layer; ``block`` is empty for a layer by itself."""
        ours = f"{block}attention.{name}" if block else name
        theirs = block.replace("stages.", "layers.") + ("attn." if block else "")
        yield from self._table(ours, theirs, name, state) if "relative" in name else [Pair(ours, theirs + name)]

    def _table(self, ours: str, theirs: str, name: str, state: Mapping[str, Tensor]) -> Iterator[Pair]:
        yield Pair(ours, theirs + name.replace("relative_position_bias", "rpb"))


class OlderStyleNAT(StyleNAT):
    """StyleNAT's checkpoints, older layout: always two half tables, ``rpb0`` and ``rpb1``, even for one group."""

    TABLES = re.compile(r"(^|\.)rpb[01]$")

    def _table(self, ours: str, theirs: str, name: str, state: Mapping[str, Tensor]) -> Iterator[Pair]:
        base, _, group = name.partition(".")
        groups = sum(key.startswith(ours.removesuffix(group)) for key in state)
        if not group:  # The 4x4 level's full attention.
            yield Pair(ours, f"{theirs}rpb")
        elif groups == 1:
            yield Pair(ours, (f"{theirs}rpb0", f"{theirs}rpb1"))
        elif groups == 2:
            yield Pair(ours, f"{theirs}rpb{group}")
        else:
            raise UserError(f"checkpoint_layout.stylenat_older holds two head groups a layer, not {groups} ({ours})")


class StyleSwin(StyleNAT):
    """StyleSwin's checkpoints: two tables [(2 window - 1)², heads / 2] a block, by query minus key."""

    networks = ("generator",)
    TABLES = re.compile(r"\.relative_position_bias_table$")
    attention = (DoubleAttention,)

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        return generator(config)

    def _attention(self, block: str, name: str, state: Mapping[str, Tensor]) -> Iterator[Pair]:
        ours, theirs = f"{block}attention.{name}", block.replace("stages.", "layers.")
        if "relative" not in name:
            yield Pair(ours, theirs + name)
            return
        heads, span, _ = state[ours].shape
        yield Pair(
            ours,
            f"{theirs}attn.{name.rpartition('.')[2]}.relative_position_bias_table",
            # Reversed: their offset is query minus key, ours key minus query.
            lambda t: t.flip(0).t().reshape(heads, span, span),
            lambda t: t.flatten(1).t().flip(0),
        )

    def _block_constants(self, prefix: str, attention: nn.Module) -> dict[str, Tensor]:
        if not isinstance(attention, DoubleAttention):
            return {}
        last = (2 * attention.window - 1) ** 2 - 1
        found = {f"{prefix}attn.{i}.relative_position_index": last - attention.index for i in (0, 1)}
        if attention.mask is not None:
            found[f"{prefix}attn_mask2"] = attention.mask
        return found
