"""Low-pass filters of StyleGAN3 (arXiv 2106.12423, appendix C.1): Kaiser windows, along the axes or radial."""

import numpy as np
import scipy.signal
import scipy.special
import torch
from torch import Tensor


def low_pass(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> Tensor | None:
    """Taps that sum to 1, designed in float64: float32 [taps], or [taps, taps] of a radial filter. None for one tap.

    Args:
        taps: even, so that a radial filter has none in its centre.
        cutoff: frequency of half amplitude; width: of the transition band; rate: samples, in the same unit.
    """
    if taps == 1:
        return None
    if not radial:
        return torch.from_numpy(scipy.signal.firwin(taps, cutoff, width=width, fs=rate)).float()
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(*np.meshgrid(x, x))
    found = scipy.special.j1(2 * cutoff * (np.pi * radius)) / (np.pi * radius)
    window = np.kaiser(taps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2))))
    found = found * np.outer(window, window)
    return torch.from_numpy(found / found.sum()).float()
