"""Loss ``relativistic``: the relativistic pairing loss (RpGAN, arXiv 2501.05441, section 2)."""

from torch import Tensor
from torch.nn import functional as F


class Relativistic:
    """softplus(D(fake) - D(real)) for the discriminator and softplus(D(real) - D(fake)) for the generator.

    Real image i is paired with fake image i of the same microbatch; in a conditional experiment both have one class.
    It is not the relativistic *average* loss, which compares with the mean of the other side's logits.
    """

    paired = True

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return F.softplus(fake_logits - real_logits).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        return F.softplus(real_logits - fake_logits).mean()
