import torch
from torch.nn import functional as F

from plugins.blocks.convolution import EPS, ConvolutionBlock
from registry import AttentionSite


def by_definition(block, x, style):
    """StyleGAN2's equations 1 and 3, each image with a kernel of its own."""
    out = []
    for image, scales in zip(x, block.style(style), strict=True):
        kernel = block.scale * block.weight * scales[None, :, None, None]
        kernel = kernel / (kernel.square().sum(dim=(1, 2, 3), keepdim=True) + EPS).sqrt()
        y = F.conv2d(image.permute(2, 0, 1)[None], kernel, padding=1)[0].permute(1, 2, 0) + block.bias
        out.append(F.leaky_relu(y, 0.2) * 2**0.5)
    return torch.stack(out)


def test_the_block_is_stylegan2s_modulated_convolution():
    torch.manual_seed(0)
    block = ConvolutionBlock(site=AttentionSite(8, 2, 12), style_dim=6).double()
    torch.nn.init.normal_(block.bias)
    x, style = torch.randn(3, 8, 8, 12, dtype=torch.double), torch.randn(3, 6, dtype=torch.double)
    torch.testing.assert_close(block(x, style), by_definition(block, x, style), rtol=1e-10, atol=1e-10)


def test_demodulation_keeps_the_variance_whatever_the_style():
    torch.manual_seed(0)
    block = ConvolutionBlock(site=AttentionSite(32, 2, 64), style_dim=6)
    y = block(torch.randn(4, 32, 32, 64), 10 * torch.randn(4, 6))
    # leaky ReLU of N(0, 1) with gain sqrt(2) has mean square 1 + 0.2 ** 2.
    assert abs(y[:, 2:-2, 2:-2].square().mean() - 1.04) < 0.05
