"""The adversarial losses of the field. Logits are [batch, 1]; every loss is a mean over the batch."""

from torch import Tensor
from torch.nn import functional as F


class NonSaturating:
    """The non-saturating logistic loss (Goodfellow et al., arXiv 1406.2661, section 3)."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return F.softplus(-fake_logits).mean()


class Hinge:
    """The hinge loss (Lim and Ye, arXiv 1705.02894; as in SAGAN and BigGAN)."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Wasserstein:
    """The Wasserstein critic's loss (arXiv 1701.07875). Needs a Lipschitz constraint: spectral norm, or R1."""

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator(self, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()
