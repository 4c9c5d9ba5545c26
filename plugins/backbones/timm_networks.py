"""Backbone ``timm``: a network of timm (pip install 'stylenat[timm]') with weights from a file."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from plugins.backbones.feature_maps import FeatureMaps
from registry import Count, UserError
from registry.wording import did_you_mean
from stylenat import weights as stored
from stylenat.reference import to_ours


class TimmBackbone(FeatureMaps):
    """Backbone ``timm``: feature maps of a network of timm (github.com/huggingface/pytorch-image-models).

    Nothing is downloaded: ``weights`` is a file of the complete network under timm's names, as its ``state_dict`` or in
    an entry ``model``; safetensors, or a pickle of tensors alone. Without one, the weights are random.

    Args:
        name: of the network, such as ``tf_efficientnet_lite0`` or ``deit_base_distilled_patch16_224``.
        weights: the file, read whenever training begins or continues; None for random weights.
        side: images smaller than it are resized to it; a network with a fixed input size always resizes to that.
        channels: of a vision transformer's four maps; None for 1/8, 1/4, 1/2 and the complete width.
        classifies: keep the classification head: for classifier guidance, or to hold all tensors of a published file.

    Raises:
        UserError: timm is not installed, there is no such network or file, or the file is another network's.
    """

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        side: Count = 224,
        channels: Sequence[Count] | None = None,
        classifies: bool = False,
    ) -> None:
        network = network_of(name)
        # A dry run builds on the meta device, and needs no file.
        if weights is not None and not next(network.parameters()).is_meta:
            load(network, Path(weights), name)
        super().__init__(network, name, side, channels, classifies)
        if weights is None:
            self.note = (
                f"backbone.timm has random weights for {name}: its features say little of what is in an image, and "
                "results say nothing of trained ones; bind backbone.timm.weights to a file"
            )


def network_of(name: str) -> nn.Module:
    """timm's network of this name, untrained."""
    if find_spec("timm") is None:
        raise UserError("backbone.timm needs timm, which is not installed: pip install 'stylenat[timm]'")
    import timm

    if not timm.is_model(name):
        raise UserError(
            f"backbone.timm.name: timm has no network {name!r}{did_you_mean(name, timm.list_models()) or '.'}"
        )
    return timm.create_model(name, pretrained=False)


def load(network: nn.Module, path: Path, name: str) -> None:
    """Loads a file of the complete network's weights. Raises UserError when it is missing or another network's."""
    if not path.is_file():
        raise UserError(f"backbone.timm.weights: there is no file {path}; give the weights of timm's {name}")
    states = stored.read(path).states
    if set(states) != {""}:
        raise UserError(f"backbone.timm.weights: {path} holds {', '.join(states)}, not the weights of timm's {name}")
    translated = to_ours(states[""], network, None)
    tensors = translated.check(f"{path} (backbone.timm.weights) is not of timm's {name}: it")
    if translated.left_over:
        raise UserError(
            f"{path} (backbone.timm.weights) is not of timm's {name}: that has no {translated.left_over[0]}; bind the "
            "name of the network that the weights are of"
        )
    stored.check_finite(tensors, network, str(path))
    network.load_state_dict(tensors)
