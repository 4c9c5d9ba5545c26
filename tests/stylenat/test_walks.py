"""Ways between latents and styles."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stylenat.walks import linear, mixed, spherical, walk


@given(st.floats(0, 1), st.integers(0, 2**32))
def test_a_spherical_way_turns_evenly_and_keeps_lengths(t, seed):
    a, b = torch.randn(2, 1, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    point = spherical(a, b, torch.full((1, 1), t, dtype=torch.float64))

    def angle(x, y):
        return math.acos(max(-1, min(1, float((x * y).sum() / x.norm() / y.norm()))))

    assert angle(a, point) == pytest.approx(t * angle(a, b), abs=1e-6)
    assert float(point.norm()) == pytest.approx(float((1 - t) * a.norm() + t * b.norm()))


def test_equal_and_opposite_points_have_a_straight_way():
    a = torch.tensor([[3.0, 4.0]])
    for b in (a, -a, 2 * a):
        half = spherical(a, b, torch.full((1, 1), 0.5))
        assert torch.allclose(half, (a + b) / 2) and half.isfinite().all()


@pytest.mark.parametrize("between", [linear, spherical])
def test_a_walk_passes_its_points_and_returns_only_if_closed(between):
    points = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    closed, opened = (walk(points, 4, way, between) for way in (True, False))
    assert len(closed) == 12 and len(opened) == 9
    assert torch.allclose(closed[[0, 4, 8]], points, atol=1e-6) and torch.allclose(opened[[0, 4, 8]], points, atol=1e-6)
    assert torch.allclose(closed[10], between(points[2], points[0], torch.tensor([0.5])), atol=1e-6)
    wide = walk(points[:, None].expand(-1, 2, -1), 4, True, between)
    assert torch.equal(wide[:, 0], wide[:, 1]) and torch.allclose(wide[:, 0], closed)


def test_a_mixture_has_the_named_styles_of_the_other():
    base, other = torch.zeros(2, 4, 3), torch.ones(2, 4, 3)
    assert mixed(base, other, [1, 3])[0, :, 0].tolist() == [0, 1, 0, 1]
