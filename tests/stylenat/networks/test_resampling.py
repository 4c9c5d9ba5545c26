"""Resampling against its definition: zeros inserted, padding, a sum of products for each sample."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from stylenat.networks.resampling import blur, convolve, downsample, filter_taps, upfirdn, upsample


def by_definition(x, taps, up, down, padding, gain, correlate):
    """One pixel after the other, with a two-dimensional filter."""
    (up_x, up_y), (down_x, down_y), (left, right, top, bottom) = up, down, padding
    batch, channels, height, width = x.shape
    wide = x.new_zeros(batch, channels, height * up_y, width * up_x)
    wide[:, :, ::up_y, ::up_x] = x
    wide = F.pad(wide, [left, right, top, bottom])
    kernel = gain * (taps if correlate else taps.flip((0, 1)))
    rows, columns = (size - side + 1 for size, side in zip(wide.shape[2:], kernel.shape, strict=True))
    out = x.new_zeros(batch, channels, rows, columns)
    for y, x_ in itertools.product(range(rows), range(columns)):
        out[:, :, y, x_] = (wide[:, :, y : y + kernel.shape[0], x_ : x_ + kernel.shape[1]] * kernel).sum((2, 3))
    return out[:, :, ::down_y, ::down_x]


@pytest.mark.parametrize("up", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("down", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("padding", [(2, 1, 2, 1), (1, 1, 1, 1), (-1, 3, 4, -2), (0, -1, 0, -1)])
@pytest.mark.parametrize("correlate", [False, True])
def test_upfirdn_inserts_zeros_pads_convolves_and_keeps_every_nth(up, down, padding, correlate):
    x, taps = torch.randn(2, 3, 6, 7).double(), torch.randn(3, 4).double()
    found = upfirdn(x, taps, up, down, padding, 1.5, correlate)
    torch.testing.assert_close(found, by_definition(x, taps, up, down, padding, 1.5, correlate))


@pytest.mark.parametrize("correlate", [False, True])
def test_a_separable_filter_is_its_outer_product(correlate):
    x, taps = torch.randn(2, 3, 6, 7).double(), torch.randn(9).double()
    options = {"up": 2, "down": 3, "padding": (4, 5, 6, 3), "gain": 4.0, "correlate": correlate}
    torch.testing.assert_close(upfirdn(x, taps, **options), upfirdn(x, torch.outer(taps, taps), **options))


def test_taps_sum_to_one_and_stay_separable_from_eight_on():
    assert filter_taps([1, 2, 1]).shape == (3, 3) and filter_taps(range(1, 9)).shape == (8,)
    assert float(filter_taps([[1.0, 2.0], [3.0, 4.0]]).sum()) == float(filter_taps([1, 3, 3, 1]).sum()) == 1
    assert torch.equal(filter_taps(None), torch.ones(1, 1))


def test_a_constant_keeps_its_value_inside():
    flat, taps = torch.ones(1, 2, 8, 8), filter_taps()
    for out, side in ((upsample(flat, taps), 16), (downsample(flat, taps), 4), (blur(flat, taps), 8)):
        assert out.shape == (1, 2, side, side)
        torch.testing.assert_close(out[:, :, 2:-2, 2:-2], torch.ones(1, 2, side - 4, side - 4))


@pytest.mark.parametrize("side, padding", [(1, 0), (3, 1), (3, [0, 2, 1, 1])])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("correlate", [False, True])
def test_a_convolution_at_another_resolution_is_resampling_and_a_convolution(side, padding, up, down, correlate):
    """By the definition all padding happens once, before the upsampling's filter."""
    x, weight, taps = torch.randn(2, 4, 8, 8).double(), torch.randn(6, 4, side, side).double(), filter_taps().double()
    left, right, top, bottom = [padding] * 4 if isinstance(padding, int) else padding
    before, after = 0, 0
    if up > 1:
        before, after = before + (4 + up - 1) // 2, after + (4 - up) // 2
    if down > 1:
        before, after = before + (4 - down + 1) // 2, after + (4 - down) // 2
    wide = left + before, right + after, top + before, bottom + after
    filtered = upfirdn(x, taps if up > 1 else torch.ones(1, 1).double(), up=up, padding=wide, gain=up**2)
    filtered = upfirdn(filtered, taps) if down > 1 and up == 1 else filtered
    expected = F.conv2d(filtered, weight if correlate else weight.flip((2, 3)))
    expected = upfirdn(expected, taps) if down > 1 and up > 1 else expected
    found = convolve(x, weight, taps, up, down, padding, correlate=correlate)
    torch.testing.assert_close(found, expected[:, :, ::down, ::down])


@pytest.mark.parametrize("function", [upsample, downsample, blur])
def test_resampling_is_twice_differentiable(function):
    x = torch.randn(1, 2, 4, 4, dtype=torch.double, requires_grad=True)
    taps = filter_taps().double()
    assert torch.autograd.gradcheck(lambda x: function(x, taps), x)
    assert torch.autograd.gradgradcheck(lambda x: function(x, taps).square(), x)


def test_every_resampling_is_one_grouped_convolution_of_its_size():
    """No filter is applied channel by channel or to inserted zeros, which would take several times as long."""
    from torch.utils.flop_counter import FlopCounterMode

    x, taps = torch.randn(2, 3, 8, 8), filter_taps()
    for function, outputs in ((upsample, 64), (downsample, 16), (lambda x, f: upfirdn(x, f, padding=(2, 1, 2, 1)), 64)):
        with FlopCounterMode(display=False) as counter:
            function(x, taps)
        assert counter.get_total_flops() // 2 == 2 * 3 * outputs * 16
