"""Backend ``gathered`` computes what ``dense`` does, in one piece and row by row."""

import pytest
import torch

from stylenat.attention import gathered
from stylenat.attention.gathered import Gathered
from stylenat.attention.op import neighborhood_attention


@pytest.mark.parametrize("at_once", [0, 2**26])
@pytest.mark.parametrize(("kernel_size", "dilation", "size"), [(3, 1, (5, 7)), (3, 2, (7, 6)), (5, 1, (5, 5))])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_agrees_with_dense(kernel_size, dilation, size, with_bias, at_once, monkeypatch):
    monkeypatch.setattr(gathered, "AT_ONCE", at_once)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, *size, 3, 4, dtype=torch.float64)
    span = 2 * kernel_size - 1
    bias = torch.randn(3, span, span, dtype=torch.float64) if with_bias else None
    arguments = {"kernel_size": kernel_size, "dilation": dilation, "bias": bias}
    expected = neighborhood_attention(q, k, v, **arguments, backend="dense")
    torch.testing.assert_close(neighborhood_attention(q, k, v, **arguments, backend=Gathered()), expected)
