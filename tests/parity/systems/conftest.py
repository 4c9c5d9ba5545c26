"""What several files of recordings need."""

import pytest
import torch

from plugins.systems.stylegan_xl.discriminator import ProjectedDiscriminator
from plugins.systems.stylegan_xl.layout_discriminator import Discriminator
from stylenat.reference import to_ours

VIT, LITE = "deit_tiny_distilled_patch16_224", "tf_efficientnet_lite0"


@pytest.fixture(scope="session")
def recorded_draws():
    """Of HiT's consistency transforms, as uniform numbers."""
    return _recorded_draws


def _recorded_draws(drawn, side):
    """[7, batch] in [0, 1) that give the recorded numbers: a whole number n of k is the middle of its interval."""
    largest, offsets = side // 8, side + 1 - side // 2 % 2
    rows = [drawn[name].flatten() for name in ("brightness", "saturation", "contrast")]
    shifts = [drawn[f"translation_axis{axis}"].flatten() for axis in (1, 2)]
    squares = [drawn[f"cutout_axis{axis}"].flatten() for axis in (1, 2)]
    rows += [(shift + largest + 0.5) / (2 * largest + 1) for shift in shifts]
    return torch.stack([*rows, *((start + 0.5) / offsets for start in squares)])


@pytest.fixture(scope="session")
def tiny():
    """StyleGAN-XL's recorded discriminators, on two tiny networks of timm: ``tiny(config, resolution, state)``."""
    pytest.importorskip("timm")
    return _tiny


def _tiny(config, resolution, state):
    from timm.models.efficientnet import _gen_efficientnet_lite

    from plugins.backbones.feature_maps import FeatureMaps

    def lite():
        network = _gen_efficientnet_lite(LITE, channel_multiplier=0.1, pretrained=False)
        return FeatureMaps(network, LITE, 224, None, False)

    network = ProjectedDiscriminator(
        resolution=resolution,
        backbones=[lambda: FeatureMaps(_tiny_vit(), VIT, 224, (4, 8, 16, 32), True), lite],
        width=config["cout"],
        channels=[config["ndf"]] * 4,
        diffaugment="",
        num_classes=10 if config["cond"] else 0,
        label_dim=config["cmap_dim"],
        embedding_rows=10,
        embedding_dim=24,
    )
    translated = to_ours(state, network, Discriminator())
    network.load_state_dict(translated.check("the recording"))
    assert not translated.left_over, translated.left_over[:5]
    return network


@pytest.fixture(scope="session")
def tiny_classifier(tiny):
    """A backbone that classifies with the recorded weights."""
    return _tiny_classifier


def _tiny_classifier(state):
    from plugins.backbones.feature_maps import FeatureMaps

    network = _tiny_vit()
    network.load_state_dict(state)
    return FeatureMaps(network, VIT, 224, (4, 8, 16, 32), True)


def _tiny_vit():
    import timm

    return timm.create_model(VIT, pretrained=False, embed_dim=16, num_heads=2)
