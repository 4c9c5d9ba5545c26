"""A small experiment with everything that depends on how a batch is divided: every loss, term and augmentation."""

import pytest
import torch

from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.blocks.hydra import HydraBlock
from plugins.losses.adversarial import NonSaturating
from plugins.partitions.split import Split
from plugins.regularizers.bcr import BalancedConsistency
from plugins.regularizers.gradient_penalty import R1
from stylenat.draws import normal
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator
from stylenat.training.settings import Training


class Pictures:
    resolution = 8

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)


class PathLength:
    """StyleGAN2's, without the running mean: a generator's regularizer that draws and differentiates twice."""

    name, network, own_step, interval = "path_length", "generator", True, 4

    def __call__(self, context):
        styles = context.generator.mapping(context.latents)[:, None].expand(-1, context.generator.num_styles, -1)
        images = context.generator.synthesis(styles)
        noise = normal(context.random, *images.shape[1:], len(images), dtype=images.dtype).movedim(-1, 0)
        (slope,) = torch.autograd.grad((images * noise).sum() / 8, styles, create_graph=True)
        return (slope.square().sum(dim=2).mean(dim=1).sqrt() - 0.1).square().mean()


def make_settings(accumulate=1, stddev_group=4, **changed):
    """Eight images of 8x8 an iteration, of thirty."""
    values = dict(
        generator=lambda: StyleGenerator(
            resolution=8,
            block=lambda **site: HydraBlock(partition=Split(3), mlp_ratio=1, gamma_bias=1.0, **site),
            channels=[16, 16],
            latent_dim=8,
            style_dim=8,
            mapping_layers=2,
            min_heads=2,
            to_rgb_gain=1.0,
        ),
        discriminator=lambda: WaveletDiscriminator(resolution=8, channels=[8], stddev_group=stddev_group),
        loss=NonSaturating(),
        augmentation=AdaptiveAugmentation(preset="bgcfnc", initial_p=0.6, target=0.0, interval=2, images_to_full=400),
        regularizers=[R1(interval=4), BalancedConsistency(), PathLength()],
        dataset=Pictures(),
        iterations=20,
        batch_size=8,
        accumulate=accumulate,
        generator_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        discriminator_clip=1.0,
    )
    return Training(**(values | changed))


@pytest.fixture(scope="session")
def experiment():
    """Called with what should be otherwise, it gives settings."""
    return make_settings
