"""The names of HiT's TensorFlow variables, without ``/.ATTRIBUTES/VARIABLE_VALUE``, and networks from its arguments.

Kernels of linears are [in, out]; of convolutions [height, width, in, out]; of queries, keys and values
[in, heads, width]; of attention's output [heads, width, out].
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from plugins.systems.hit.blocks import MLP, Attention, CrossBlock, SelfBlock
from plugins.systems.hit.discriminator import HiTDiscriminator
from plugins.systems.hit.generator import HiT, Stage
from registry import UserError
from stylenat.interfaces import Pair
from stylenat.networks.batch_norm import BatchNorm


class GeneratorLayout:
    """The generator's variables."""

    networks = ("generator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return any(name.startswith("blocks/0/layer_with_weights-0/attention_layer/") for name in names)

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """The resolution: the side of the largest position table."""
        tables = [t for name, t in state.items() if name.startswith("position_embeddings/") and t.dim() == 4]
        return {"resolution": max(table.shape[1] for table in tables)} if tables else {}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        names = {
            "output_size": "resolution", "latent_dim": "latent_dim", "norm_type": "norm", "attn_type": "attention",
            "num_layers_per_block": "layers", "channel_dim_per_block": "channels", "num_heads_per_block": "heads",
            "patch_size_per_block": "patches",
        }  # fmt: skip
        options = _renamed(config, names, "output_size")
        for name, known in (("norm", ("batch", "layer")), ("attention", ("multi_query", "multi_head"))):
            if options.get(name, known[0]) not in known:
                raise UserError(f"the configuration's {name} {options[name]!r} is not built here, only {known}")
        patches = list(options.pop("patches", [])) or None
        if patches is not None:
            options["patches"] = [side for side in patches if side is not None]
            if patches[: len(options["patches"])] != options["patches"]:
                raise UserError(f"the configuration has blocks after a stage without them: {patches}")
        return HiT(**options)

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, HiT):
            raise UserError("checkpoint_layout.hit supports only the weights of generator.hit")
        pairs = _linear("first", "dense_layer/layer_with_weights-0")
        tokens = "embedding_layer/layer_with_weights-"
        pairs += _linear("tokens.linear", f"{tokens}0") + _table("tokens.position", f"{tokens}1", (0, 1))
        pairs += _norm(network.tokens.norm, "tokens.norm", f"{tokens}2")
        for i, stage in enumerate(network.stages):
            names = f"position_embeddings/{i}", f"blocks/{i}", f"to_rgb_layers/{i}", f"umsamplings/{i}"  # Its spelling.
            pairs += stage_pairs(stage, f"stages.{i}.", *names)
        return pairs

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        return {}


class DiscriminatorLayout:
    """The discriminator's variables."""

    networks = ("discriminator",)
    pixel_space = "symmetric"

    def recognises(self, names: Collection[str]) -> bool:
        return any(name.startswith("conv_blocks/layer_with_weights-0/") for name in names)

    def dimensions(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """The resolution: each residual block halves the side, down to 4."""
        return {"resolution": 4 * 2 ** sum("/skip_layers/" in name for name in state)}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        names = {
            "input_size": "resolution", "channels": "channels", "channel_multiplier": "channel_multiplier",
            "blur_resample": "blur", "use_equalized_lr": "equalised", "use_batch_stddev": "stddev_group",
            "grad_penalty_cost": "",
        }  # fmt: skip
        options = _renamed(config, names, "input_size")
        if "stddev_group" in options:
            options["stddev_group"] = 4 if options["stddev_group"] else 0
        if "channels" in options:
            by_side = {int(side): width for side, width in options["channels"].items()}
            options["channels"] = [by_side[side] for side in sorted(by_side)]
        return HiTDiscriminator(**options)

    def pairs(self, network: nn.Module) -> list[Pair]:
        if not isinstance(network, HiTDiscriminator):
            raise UserError("checkpoint_layout.hit_discriminator supports only the weights of discriminator.hit")
        pairs = _convolution("from_rgb", "conv_blocks/layer_with_weights-0")
        for i in range(len(network.blocks)):
            theirs = f"conv_blocks/layer_with_weights-{i + 1}"
            pairs += _convolution(f"blocks.{i}.first", f"{theirs}/conv_layers/layer_with_weights-0")
            pairs += _convolution(f"blocks.{i}.second", f"{theirs}/conv_layers/layer_with_weights-1")
            pairs += _convolution(f"blocks.{i}.skip", f"{theirs}/skip_layers/layer_with_weights-0")[:1]
        pairs += _convolution("final_convolution", "final_layers/layer_with_weights-0")
        # Theirs flattens height, width, channels; ours channels, height, width.
        kernel = Pair(
            "final_linear.weight",
            "final_layers/layer_with_weights-1/kernel",
            lambda t: t.reshape(4, 4, -1, t.shape[1]).permute(3, 2, 0, 1).flatten(1),
            lambda t: t.reshape(t.shape[0], -1, 4, 4).permute(2, 3, 1, 0).flatten(0, 2),
        )
        bias = Pair("final_linear.bias", "final_layers/layer_with_weights-1/bias")
        return [*pairs, kernel, bias, *_linear("logit", "final_layers/layer_with_weights-2")]

    def constants(self, network: nn.Module) -> dict[str, Tensor]:
        return {}


def stage_pairs(stage: Stage, ours: str, position: str, blocks: str, rgb: str, shuffle: str) -> list[Pair]:
    """Of one stage. ``ours`` begins its names here; the others are those of its parts there."""
    pairs = _table(f"{ours}position", position, (0,))
    for i, block in enumerate(stage.blocks):
        pairs += block_pairs(block, f"{ours}blocks.{i}.", f"{blocks}/layer_with_weights-{i}/")
    for i, layer in enumerate(stage.mlps, 1):
        pairs += mlp_pairs(layer, f"{ours}mlps.{i - 1}.", f"{blocks}/layer_with_weights-{i}/")
    if stage.to_rgb is not None:
        output = f"{rgb}/output_layer/layer_with_weights-"
        pairs += _norm(stage.to_rgb.norm, f"{ours}to_rgb.norm", f"{output}0")
        pairs += _linear(f"{ours}to_rgb.linear", f"{output}1")
    if stage.project is not None:
        pairs += _linear(f"{ours}project", f"{shuffle}/dense_layer")
    return pairs


def block_pairs(block: CrossBlock | SelfBlock, ours: str, theirs: str) -> list[Pair]:
    """Of one block with attention, whose names begin with ``ours`` and ``theirs``."""
    pairs = _norm(block.norm, f"{ours}norm", f"{theirs}norm")
    pairs += attention_pairs(block.attention, f"{ours}attention.", f"{theirs}attention_layer/")
    return pairs + mlp_pairs(block.mlp, f"{ours}mlp.", f"{theirs}mlp_block/")


def attention_pairs(layer: Attention, ours: str, theirs: str) -> list[Pair]:
    """Of one attention layer, as ``block_pairs``."""
    pairs = []
    for name, heads in (("query", layer.heads), ("key", layer.shared_heads), ("value", layer.shared_heads)):
        shape = (heads, layer.width)
        pairs += [
            Pair(f"{ours}{name}.weight", f"{theirs}{name}_dense/kernel", _from_heads, _to_heads(shape)),
            Pair(f"{ours}{name}.bias", f"{theirs}{name}_dense/bias", Tensor.flatten, _unflattened(shape)),
        ]
    shape = (layer.heads, layer.width)
    output = Pair(
        f"{ours}output.weight",
        f"{theirs}output_dense/kernel",
        lambda t: t.flatten(0, 1).t(),
        lambda t: t.t().unflatten(0, shape),
    )
    return [*pairs, output, Pair(f"{ours}output.bias", f"{theirs}output_dense/bias")]


def mlp_pairs(layer: MLP, ours: str, theirs: str) -> list[Pair]:
    """Of one MLP, as ``block_pairs``."""
    linears = f"{theirs}mlp_block/layer_with_weights-"
    pairs = _norm(layer.norm, f"{ours}norm", f"{theirs}norm_layer")
    return pairs + _linear(f"{ours}expand", f"{linears}0") + _linear(f"{ours}contract", f"{linears}1")


def _linear(ours: str, theirs: str) -> list[Pair]:
    kernel = Pair(f"{ours}.weight", f"{theirs}/kernel", Tensor.t, Tensor.t)
    return [kernel, Pair(f"{ours}.bias", f"{theirs}/bias")]


def _convolution(ours: str, theirs: str) -> list[Pair]:
    kernel = Pair(
        f"{ours}.weight", f"{theirs}/kernel", lambda t: t.permute(3, 2, 0, 1), lambda t: t.permute(2, 3, 1, 0)
    )
    return [kernel, Pair(f"{ours}.bias", f"{theirs}/bias")]


def _norm(layer: nn.Module, ours: str, theirs: str) -> list[Pair]:
    names = {"weight": "gamma", "bias": "beta"}
    if isinstance(layer, BatchNorm):
        names |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
    return [Pair(f"{ours}.{name}", f"{theirs}/{other}") for name, other in names.items()]


def _table(ours: str, theirs: str, ones: tuple[int, ...]) -> list[Pair]:
    """A position table, which there has leading dimensions of 1."""

    def grown(t: Tensor) -> Tensor:
        return t[(None,) * len(ones)]

    return [Pair(ours, f"{theirs}/embedding_weight", lambda t: t.squeeze(ones), grown)]


def _from_heads(kernel: Tensor) -> Tensor:
    return kernel.flatten(1).t()


def _to_heads(shape: tuple[int, int]):
    return lambda t: t.t().unflatten(1, shape)


def _unflattened(shape: tuple[int, int]):
    return lambda t: t.unflatten(0, shape)


def _renamed(config: Mapping[str, Any], names: Mapping[str, str], needed: str) -> dict[str, Any]:
    """The options by our names; those that are named '' have no part in the function that a network computes."""
    if unknown := sorted(set(config) - set(names)):
        raise UserError(f"the configuration has options unknown here: {', '.join(unknown)}")
    if needed not in config:
        raise UserError(f"the configuration has no {needed!r}; a recorded configuration has")
    return {names[name]: value for name, value in config.items() if names[name]}
