import pytest
import torch

from plugins.blocks.windowed import AttentionBlock, WindowAttention
from registry import AttentionSite, UserError


def by_definition(layer, x):
    """Attention query by query: who shares a window with whom, and by which bias."""
    side, window, heads = layer.resolution, layer.window, layer.num_heads
    q, k, v = layer.qkv(x).unflatten(-1, (3, heads, -1)).unbind(3)
    out = torch.zeros_like(q)

    def window_of(i):  # Shifted windows start at shift; what lies before is one more.
        return (i - layer.shift) // window

    for head in range(heads):
        table = layer.relative_position_bias[head]
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


@pytest.mark.parametrize("side, window, shift", [(4, 4, False), (8, 4, False), (8, 4, True), (6, 2, True)])
def test_window_attention_is_what_its_definition_says(side, window, shift):
    torch.manual_seed(0)
    layer = WindowAttention(AttentionSite(side, 2, 8), window, shift).double()
    torch.nn.init.normal_(layer.relative_position_bias)
    x = torch.randn(2, side, side, 8, dtype=torch.double)
    torch.testing.assert_close(layer(x), by_definition(layer, x), rtol=1e-10, atol=1e-10)


def test_up_to_the_stated_resolution_every_token_sees_every_other():
    block = AttentionBlock(site=AttentionSite(16, 2, 8), style_dim=4, full_resolution=16)
    x = torch.randn(1, 16, 16, 8, requires_grad=True)
    block.attention(x)[0, 0, 0].sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()
    above = AttentionBlock(site=AttentionSite(16, 2, 8), style_dim=4, full_resolution=8, window=8)
    x.grad = None
    above.attention(x)[0, 0, 0].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    assert seen[:8, :8].all() and seen.sum() == 64


def test_the_second_block_of_a_resolution_looks_across_the_firsts_windows():
    first, second = (
        AttentionBlock(site=AttentionSite(16, 2, 8, block), style_dim=4, full_resolution=8).attention.shift
        for block in (0, 1)
    )
    assert (first, second) == (0, 4)


def test_an_impossible_window_is_refused_in_one_line():
    with pytest.raises(UserError, match="block.attention.window = 5 does not divide"):
        AttentionBlock(site=AttentionSite(64, 2, 8), style_dim=4, window=5)
