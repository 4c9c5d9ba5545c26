"""The layers of StyleGAN3 (arXiv 2106.12423, section 3): modulated convolution and a filtered leaky ReLU."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plugins.systems.stylegan3.filtered import filtered_leaky_relu
from plugins.systems.stylegan3.filters import low_pass
from plugins.systems.stylegan3.schedule import FILTER_SIZE, Plan
from stylenat import ranks
from stylenat.networks.layers import GAIN, SLOPE, EqualLinear, no_autocast

EPS = 1e-8


def modulated(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor | None = None,
    demodulate: bool = True,
    input_gain: Tensor | None = None,
) -> Tensor:
    """A full convolution (the side grows by the kernel's less 1) whose input channels are scaled by styles.

    Both factors are drawn out of the sum: one convolution serves the whole batch. An image's result does not depend on
    the others (the code divides all styles of a batch by one number, which demodulation cancels).

    Args:
        x: [batch, in, height, width]; weight: [out, in, side, side]; styles: [batch, in]; bias: [out].
        input_gain: scales the input, [] or [in], after demodulation.
    """
    into, out = styles, None
    if demodulate:
        with no_autocast(x):
            styles = styles.to(torch.promote_types(styles.dtype, torch.float32))
            # Demodulation cancels both factors. They keep all numbers near 1, also for half precision.
            into = styles * torch.rsqrt(styles.square().mean(dim=1, keepdim=True) * weight[0].numel())
            squares = weight.square().sum(dim=(2, 3))
            eps = EPS * squares.sum(dim=1) / weight[0].numel() ** 2
            out = torch.rsqrt(into.square() @ squares.t() + eps)
    into = into if input_gain is None else into * input_gain
    pad = weight.shape[-1] - 1
    by_weight = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if by_weight and weight.numel() * len(x) < x.numel():
        # Fewer numbers to scale than in the images; a traced graph would be of this batch size alone.
        weight = weight * into[:, None, :, None, None] * (1 if out is None else out[:, :, None, None, None])
        every = None if bias is None else bias.repeat(len(x)).to(x.dtype)
        image = x.reshape(1, -1, *x.shape[2:])
        y = F.conv2d(image, weight.flatten(0, 1).to(x.dtype), every, padding=pad, groups=len(x))
        return y.view(len(x), -1, *y.shape[2:])
    y = F.conv2d(x * into.to(x.dtype)[:, :, None, None], weight, padding=pad)
    shift = None if bias is None else bias.to(y.dtype)[:, None, None]
    if out is None:
        return y if shift is None else y + shift
    length = out.to(y.dtype)[:, :, None, None]
    return y * length if shift is None else torch.addcmul(shift, y, length)


class SynthesisLayer(nn.Module):
    """Modulated convolution, bias, and leaky ReLU between the low-pass filters of a plan.

    Args:
        kernel_size: 3 in T, 1 in R; ToRGB always has 1.
        radial: a downsampling filter that is radially symmetric, where the layer is not critically sampled (R).
        clamp: bound on features.
        magnitude_decay: of the running mean square of the input, which it is divided by; None where it never moves. It
            moves in training, where there is no graph: in the discriminator's pass of the generator.
        oversampling: of the activation.
    """

    means_over_images = ("magnitude_ema",)
    """Of microbatches and processes the training step takes the mean."""

    def __init__(
        self,
        plan: Plan,
        style_dim: int,
        kernel_size: int = 3,
        radial: bool = False,
        clamp: float | None = 256.0,
        magnitude_decay: float | None = 0.999,
        oversampling: int = 2,
    ) -> None:
        super().__init__()
        source, target = plan.source, plan.target
        side = 1 if plan.to_rgb else kernel_size
        self.plan, self.clamp, self.magnitude_decay = plan, clamp, magnitude_decay
        self.affine = EqualLinear(style_dim, source.channels)
        nn.init.ones_(self.affine.bias)
        self.weight = nn.Parameter(torch.randn(target.channels, source.channels, side, side))
        self.bias = nn.Parameter(torch.zeros(target.channels))
        self.register_buffer("magnitude_ema", torch.ones([]))
        between = max(source.rate, target.rate) * (1 if plan.to_rgb else oversampling)
        self.up, self.down = between // source.rate, between // target.rate
        taps = [FILTER_SIZE * factor if factor > 1 and not plan.to_rgb else 1 for factor in (self.up, self.down)]
        up_taps = low_pass(taps[0], source.cutoff, source.half_width * 2, between)
        radial = radial and not plan.critical
        down_taps = low_pass(taps[1], target.cutoff, target.half_width * 2, between, radial)
        self.register_buffer("up_filter", up_taps, persistent=False)
        self.register_buffer("down_filter", down_taps, persistent=False)
        grown = source.size + side - 1
        pad = (target.size - 1) * self.down + 1 - grown * self.up + sum(taps) - 2
        low = (pad + self.up) // 2
        self.padding = low, pad - low, low, pad - low

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, in, size, size]; style: [batch, style_dim]."""
        if self.training and self.magnitude_decay is not None and not torch.is_grad_enabled():
            self._observe(x)
        styles, to_rgb = self.affine(style), self.plan.to_rgb
        if to_rgb:
            styles = styles / math.sqrt(x.shape[1])
        x = modulated(x, self.weight, styles, self.bias, not to_rgb, self.magnitude_ema.rsqrt())
        slope, gain = (1.0, 1.0) if to_rgb else (SLOPE, GAIN)
        return filtered_leaky_relu(
            x, self.up_filter, self.down_filter, self.up, self.down, self.padding, slope, gain, self.clamp
        )

    def _observe(self, x: Tensor) -> None:
        """Moves the magnitude by a batch that may be divided among processes."""
        magnitude = ranks.mean_over_ranks(x.float().square().mean())
        self.magnitude_ema = magnitude.lerp(self.magnitude_ema, self.magnitude_decay)
