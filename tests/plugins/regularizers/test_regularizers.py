import torch
from torch import nn

from plugins.regularizers.bcr import BalancedConsistency
from plugins.regularizers.gradient_penalty import R1
from stylenat.interfaces import Microbatch, Time


def context(discriminate, **tensors):
    random = torch.Generator().manual_seed(0)
    return Microbatch(nn.Identity(), nn.Identity(), discriminate, Time(0, 0, 10, 4), random, **tensors)


def test_r1_of_a_linear_discriminator_is_its_squared_weight():
    weight = torch.randn(3, 4, 4)
    value = R1(gamma=10, interval=16)(
        context(lambda x, labels: (x * weight).sum(dim=(1, 2, 3)), images=torch.randn(5, 3, 4, 4))
    )
    torch.testing.assert_close(value, 5 * 16 * weight.square().sum())


def test_consistency_is_zero_for_a_constant_and_asks_fakes_first():
    seen = []

    def discriminate(images, labels):
        seen.append(images)
        return images.new_full((len(images), 1), 3.0)

    real, fake = torch.zeros(4, 3, 8, 8) + 1, torch.zeros(4, 3, 8, 8) + 2
    logits = torch.full((4, 1), 3.0)
    neutral = BalancedConsistency(brightness=0, saturation=0, contrast=0, cutout=0, translation=0)
    value = neutral(context(discriminate, images=real, fake=fake, real_logits=logits, fake_logits=logits))
    assert value == 0 and torch.equal(seen[0], fake) and torch.equal(seen[1], real)


def test_the_transforms_fill_with_zeros_and_cut_half_the_side():
    x = torch.ones(200, 3, 16, 16)
    still = dict.fromkeys(("flip", "translation", "brightness", "saturation", "contrast", "cutout"), 0.0)
    draw = torch.Generator().manual_seed(0)
    moved = BalancedConsistency(**(still | {"translation": 0.125})).transform(x, draw)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert moved[:, 0].amax(dim=1).sum(dim=1).min() == 14 and (moved == x).flatten(1).all(dim=1).any()
    cut = BalancedConsistency(**(still | {"cutout": 0.5})).transform(x, draw)
    holes = (cut[:, 0] == 0).sum(dim=(1, 2))
    assert holes.max() == 64 and holes.min() >= 16
    flipped = BalancedConsistency(**(still | {"flip": 1.0})).transform(torch.arange(16.0).expand(2, 3, 16, 16), draw)
    assert torch.equal(flipped, torch.arange(16.0).flip(0).expand(2, 3, 16, 16))
