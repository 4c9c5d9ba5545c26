import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.partitions.drawn import Random
from plugins.partitions.largest import Global
from plugins.partitions.pyramid import Pyramid
from plugins.partitions.split import Split
from plugins.partitions.table import Table
from plugins.partitions.uniform import Uniform
from registry import AttentionSite, HeadGroup, UserError

resolutions = st.sampled_from([8, 16, 32, 64, 128, 256, 512, 1024])


@pytest.mark.parametrize("partition", [Split(), Pyramid(), Global(), Random(), Random(3, kernel_size=3)])
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


def test_global_looks_as_far_as_fits_and_nowhere_near():
    assert [Global()(AttentionSite(r, 4, 128))[0].dilation for r in (8, 16, 64, 256)] == [1, 2, 9, 36]


@given(st.integers(0, 10**6), resolutions, st.integers(1, 32))
def test_a_random_partition_depends_on_its_seed_and_site_alone(seed, resolution, heads):
    site = AttentionSite(resolution, heads, 32 * heads)
    assert Random(seed)(site) == Random(seed)(site)


def test_random_partitions_of_other_seeds_and_blocks_differ():
    sites = [AttentionSite(64, 16, 512, block) for block in (0, 1)]
    drawn = [tuple(Random(seed)(site)) for seed in range(5) for site in sites]
    assert len(set(drawn)) > 5


def test_a_capped_uniform_partition_takes_the_largest_dilation_that_fits():
    sites = [AttentionSite(side, 4, 128) for side in (8, 16, 32)]
    assert [Uniform(3, 4, capped=True)(site)[0].dilation for site in sites] == [2, 4, 4]
    assert [Uniform(3, 4)(site)[0].dilation for site in sites] == [4, 4, 4]
