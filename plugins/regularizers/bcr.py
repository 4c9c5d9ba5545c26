"""Regularizer ``bcr``: balanced consistency (arXiv 2002.04724): penalizes changes of D's logits under augmentation."""

from torch import Tensor

from plugins.augmentations.bcr import BalancedConsistencyTransforms
from registry import NotNegative, Share
from stylenat.interfaces import Microbatch


class BalancedConsistency:
    """``weight * E[(D(T(x)) - D(x))²]`` on fakes and on reals, with gradients to both sides.

    T is ``augmentation.bcr``: flip, translation, brightness, saturation, contrast, cutout, in that order, in the
    networks' normalised space with zero fill (StyleSwin's transforms). No side's gradient is stopped.

    Args:
        real_weight, fake_weight: of the two terms.
        flip: probability; translation: largest shift as a share of the side.
        brightness: largest shift either way; saturation, contrast: largest relative change.
        cutout: side of the square set to 0, as a share of the image's.
    """

    name = "bcr"
    network = "discriminator"
    own_step = False
    interval = 1

    def __init__(
        self,
        real_weight: NotNegative = 10.0,
        fake_weight: NotNegative = 10.0,
        flip: Share = 0.5,
        translation: Share = 0.125,
        brightness: NotNegative = 0.5,
        saturation: NotNegative = 1.0,
        contrast: NotNegative = 0.5,
        cutout: Share = 0.5,
    ) -> None:
        self.real_weight, self.fake_weight = real_weight, fake_weight
        self.transform = BalancedConsistencyTransforms(flip, translation, brightness, saturation, contrast, cutout)

    def __call__(self, batch: Microbatch) -> Tensor:
        # Fakes before reals, each in a call of its own, as in the main step.
        fake = batch.discriminate(self.transform(batch.fake, batch.random), batch.fake_labels)
        real = batch.discriminate(self.transform(batch.images, batch.random), batch.labels)
        return (
            self.fake_weight * (fake - batch.fake_logits).square().mean()
            + self.real_weight * (real - batch.real_logits).square().mean()
        )
