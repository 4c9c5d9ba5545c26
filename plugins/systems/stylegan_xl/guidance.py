"""Regularizer ``classifier_guidance`` (arXiv 2202.00273, section 3.4): images must be recognised as their class."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from registry import NotNegative, UserError
from stylenat.interfaces import Microbatch
from stylenat.pixels import SPACES, Name


class ClassifierGuidance:
    """``weight`` times the cross-entropy of a fixed classifier on generated images and their labels.

    Args:
        backbone: a class with ``logits``, such as ``@guide/backbone.timm`` with ``classifies = True``. Class i of the
            data is its class i.
        weight: of the mean over the batch (published: 8, beside a loss that is summed over images).
        pixel_space: of the images, the same as ``train.pixel_space``.
    """

    name = "classifier_guidance"
    network = "generator"
    interval = 1
    own_step = False

    def __init__(
        self, backbone: Callable[..., nn.Module], weight: NotNegative = 8.0, pixel_space: Name = "symmetric"
    ) -> None:
        self.backbone, self.weight, self.pixel_space = backbone, weight, pixel_space
        self._classifier: nn.Module | None = None

    def check(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Raises UserError for an unconditional generator, or a backbone that knows fewer classes, such as none."""
        with torch.random.fork_rng(devices=[]):
            built = self.backbone()
        there, here = getattr(built, "num_classes", 0), getattr(generator, "num_classes", 0)
        if not here:
            raise UserError(
                "regularizer.classifier_guidance needs a conditional generator; remove it from train.regularizers, or "
                "bind num_classes"
            )
        if here > there:
            raise UserError(
                f"regularizer.classifier_guidance.backbone has {there} classes and the generator {here}; bind a "
                "classifier of these classes (backbone.timm needs classifies = True)"
            )
        self._classifier = built.eval().requires_grad_(False)

    def __call__(self, batch: Microbatch) -> Tensor:
        assert batch.fake is not None and batch.fake_labels is not None and self._classifier is not None
        space = SPACES[self.pixel_space]
        std, mean = (torch.tensor(values, device=batch.fake.device).view(3, 1, 1) for values in (space.std, space.mean))
        self._classifier.to(batch.fake.device)
        logits = self._classifier.logits(batch.fake * std + mean)
        return self.weight * F.cross_entropy(logits, batch.fake_labels.argmax(dim=1))
