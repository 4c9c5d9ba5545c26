import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.partitions.pyramid import Pyramid
from plugins.partitions.split import Split
from plugins.partitions.table import Table
from registry import AttentionSite, HeadGroup, UserError

resolutions = st.sampled_from([8, 16, 32, 64, 128, 256, 512, 1024])


@pytest.mark.parametrize("partition", [Split(), Pyramid()])
@given(resolutions, st.integers(2, 32))
def test_groups_hold_all_heads_and_fit_the_resolution(partition, resolution, heads):
    groups = partition(AttentionSite(resolution, heads, 32 * heads))
    assert sum(g.num_heads for g in groups) == heads and all(g.num_heads > 0 for g in groups)
    assert all(g.kernel_size * g.dilation <= resolution for g in groups)


def test_split_is_the_published_table():
    dilations = {r: [g.dilation for g in Split()(AttentionSite(r, 16, 512))] for r in (8, 16, 64, 1024)}
    assert dilations == {8: [1], 16: [1, 2], 64: [1, 8], 1024: [1, 128]}


def test_a_remainder_of_heads_goes_to_the_last_groups():
    groups = Table({16: [1, 2]}, kernel_sizes={16: [3, 5]})(AttentionSite(16, 3, 96))
    assert groups == [HeadGroup(1, 3, 1), HeadGroup(2, 5, 2)]


def test_pyramid_keeps_the_smallest_and_the_largest_when_heads_are_few():
    groups = Pyramid()(AttentionSite(256, 4, 128))
    assert [g.dilation for g in groups][0] == 1 and [g.dilation for g in groups][-1] == 32


def test_table_names_the_missing_row():
    with pytest.raises(UserError, match="no row for 32x32"):
        Table({16: [1]})(AttentionSite(32, 4, 128))
