"""Loss ``projected_hinge``: the hinge loss as the projected discriminators' code sums it."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from registry import Count


class ProjectedHinge:
    """Loss ``projected_hinge``: the hinge loss, summed over a discriminator's networks and over images (arXiv
    2202.00273's code); a mean over the logits of one network and image.

    Where the discriminator does not say which logits are which network's (``logit_sizes``), they are one network's.

    Args:
        images: over how many images it is summed: the mean over the batch is multiplied by this. The code sums over the
            images that a GPU processes at once. It matters beside other terms (guidance, path lengths), which are
            means.
    """

    def __init__(self, images: Count = 1) -> None:
        self.images = images
        self._sizes: Sequence[int] | None = None

    def check(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Finds which logits are which network's."""
        # A dry run, on the meta device, computes no loss.
        known = hasattr(discriminator, "logit_sizes") and not any(p.is_meta for p in discriminator.parameters())
        self._sizes = discriminator.logit_sizes() if known else None

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return self._summed(F.relu(1 - real_logits)) + self._summed(F.relu(1 + fake_logits))

    def generator(self, fake_logits: Tensor) -> Tensor:
        return self._summed(-fake_logits)

    def _summed(self, values: Tensor) -> Tensor:
        parts = [values] if self._sizes is None else values.split(list(self._sizes), dim=1)
        return self.images * sum(part.mean() for part in parts)
