"""Metric ``spectrum``: whether generated images have the power of real ones at every spatial frequency."""

import functools
from typing import Any

import torch
from torch import Tensor

from stylenat.evaluation.frechet import GaussianStatistics


class AzimuthalPower:
    """Of each image, the logarithm of its mean power at each whole frequency (cycles an image), over all
    directions: the azimuthal average of the squared Fourier transform of its grey values (arXiv 2003.01826)."""

    name = "azimuthal_power"

    def protocol(self) -> dict[str, Any]:
        return {"name": self.name, "version": 1, "grey": "mean of R, G, B in 0..1", "window": "Hann"}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, side, side] to float32 [batch, frequencies]."""
        grey = images.double().mean(dim=1) / 255
        window, ring, count = _rings(images.shape[-1], images.device)
        grey = (grey - grey.mean(dim=(1, 2), keepdim=True)) * window
        power = torch.fft.fft2(grey).abs().square().flatten(1)
        total = power.new_zeros(len(images), len(count)).index_add_(1, ring, power)
        return (total / count + 1e-12).log().float()


@functools.lru_cache(maxsize=2)
def _rings(side: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The window [side, side]; of each frequency of a Fourier transform its ring [side * side]; the rings' sizes."""
    # Without a window, the jump between opposite edges would be most of what is seen at high frequencies.
    window = torch.hann_window(side, dtype=torch.float64)
    frequency = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64)
    # Up to the corners, side / √2, where checkerboards are.
    ring = torch.hypot(frequency, frequency[:, None]).round().long().flatten()
    return (window * window[:, None]).to(device), ring.to(device), torch.bincount(ring).to(device)


class Spectrum:
    """Root mean square difference, over frequencies, of two sets' mean logarithmic power, in decibels. Lower is better.

    Up-sampling changes the power at high frequencies (arXiv 2003.01826), to which Inception's features are insensitive.
    """

    name = "spectrum"

    def __init__(self) -> None:
        self.needs = AzimuthalPower()

    def protocol(self) -> dict[str, Any]:
        return {"version": 1}

    def accumulator(self) -> GaussianStatistics:
        return GaussianStatistics()

    def compare(self, real: GaussianStatistics, fake: GaussianStatistics) -> float:
        difference = real.mean() - fake.mean()
        decibels = 10 / torch.log(torch.tensor(10.0, dtype=torch.float64))
        return float(decibels * difference.square().mean().sqrt())
