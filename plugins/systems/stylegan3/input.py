"""The input of StyleGAN3 (arXiv 2106.12423, section 3.2): Fourier features that w moves and turns."""

import math

import torch
from torch import Tensor, nn

from plugins.systems.stylegan3.schedule import Signal
from stylenat.networks.layers import EqualLinear, no_autocast


class FourierInput(nn.Module):
    """From styles [batch, style_dim] to features [batch, channels, size, size], sampled anywhere in the plane.

    Frequencies and phases are drawn once. w gives a rotation and a translation, the identity at the start.
    """

    def __init__(self, signal: Signal, style_dim: int) -> None:
        super().__init__()
        channels, size = signal.channels, signal.size
        self.rate, self.bandwidth = signal.rate, signal.cutoff
        frequencies = torch.randn(channels, 2)
        radius = frequencies.square().sum(dim=1, keepdim=True).sqrt()
        self.register_buffer("freqs", frequencies / (radius * radius.square().exp().pow(0.25)) * self.bandwidth)
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = EqualLinear(style_dim, 4, gain=0.0)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        # Samples lie in the middle of their cells; the image is the square from -1/2 to 1/2.
        self.register_buffer("positions", (torch.arange(size) + 0.5 - size / 2) / self.rate, persistent=False)

    def forward(self, style: Tensor, transform: Tensor | None = None) -> Tensor:
        """style: [batch, style_dim].

        Args:
            transform: where the features are sampled, in units of the image: homogeneous matrices [3, 3] or
                [batch, 3, 3] that are applied to positions before w's own. None for the identity.
        """
        with no_autocast(style):  # The phases of many periods.
            pose = self.affine(style.to(self.weight.dtype))
            pose = pose / pose[:, :2].norm(dim=1, keepdim=True)
            cos, sin, x, y = pose.unbind(dim=1)
            turn = torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)
            shift = turn @ -torch.stack([x, y], dim=1)[:, :, None]
            if transform is not None:
                transform = transform.to(turn)
                shift = turn @ transform[..., :2, 2:] + shift
                turn = turn @ transform[..., :2, :2]
            phases = self.phases[:, None] + self.freqs @ shift  # [batch, channels, 1]
            frequencies = self.freqs @ turn  # [batch, channels, 2]
            # What the grid cannot carry is damped.
            damping = (frequencies.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
            amplitudes = (1 - damping).clamp(0, 1)
            along_x = frequencies[:, :, :1] * self.positions
            along_y = frequencies[:, :, 1:] * self.positions + phases
            waves = torch.sin((along_y[:, :, :, None] + along_x[:, :, None]) * (2 * math.pi))
            mixed = self.weight / math.sqrt(len(self.weight)) * amplitudes[:, None]  # [batch, out, in]
            return (mixed @ waves.flatten(2)).view_as(waves)
