import pytest
import torch

from plugins.blocks.swin import DoubleAttention, SwinBlock, from_windows, to_windows
from registry import AttentionSite, UserError


def by_definition(layer, x):
    """Double attention written out query by query: who may attend to whom, and by which bias."""
    side, window, heads = layer.resolution, layer.window, layer.num_heads
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in layer.qkv(x).chunk(3, dim=-1))
    out = torch.zeros_like(q)
    for head in range(heads):
        second = head >= heads // 2
        shift = layer.shift if second else 0
        table = layer.relative_position_bias[int(second)][head % (heads // 2)]

        def window_of(i, shift=shift):  # Windows of the shifted half start at shift; what lies before is one more.
            return (i - shift) // window

        for y in range(side):
            for x_ in range(side):
                keys = [
                    (i, j)
                    for i in range(side)
                    for j in range(side)
                    if window_of(i) == window_of(y) and window_of(j) == window_of(x_)
                ]
                logits = torch.stack(
                    [
                        layer.scale * (q[:, y, x_, head] * k[:, i, j, head]).sum(-1)
                        + table[i - y + window - 1, j - x_ + window - 1]
                        for i, j in keys
                    ],
                    dim=-1,
                )
                values = torch.stack([v[:, i, j, head] for i, j in keys], dim=1)
                out[:, y, x_, head] = (logits.softmax(-1)[..., None] * values).sum(1)
    return layer.proj(out.flatten(3))


@pytest.mark.parametrize("side, window", [(4, 4), (8, 4), (12, 4), (6, 2)])
def test_double_attention_is_what_its_definition_says(side, window):
    torch.manual_seed(0)
    layer = DoubleAttention(AttentionSite(side, 4, 8), window, True, None).double()
    for table in layer.relative_position_bias:
        torch.nn.init.normal_(table)
    x = torch.randn(2, side, side, 8, dtype=torch.double)
    torch.testing.assert_close(layer(x), by_definition(layer, x), rtol=1e-10, atol=1e-10)


def test_windows_and_back_is_the_identity():
    x = torch.randn(3, 12, 12, 5)
    assert to_windows(x, 4).shape == (27, 16, 5)
    assert torch.equal(from_windows(to_windows(x, 4), 4, 12), x)


@pytest.mark.parametrize(
    "site, window, message", [((16, 3, 12), 8, "even number of heads"), ((16, 4, 16), 5, "divide")]
)
def test_impossible_windows_are_refused_in_one_line(site, window, message):
    with pytest.raises(UserError, match=message):
        SwinBlock(site=AttentionSite(*site), style_dim=8, window=window)
