"""The statistics of a comparison, recomputed with SciPy."""

import numpy as np
import pytest
from scipy import stats

from stylenat.comparison.paired import Paired, corrected, holm, paired, what_n_can_show

SEEDS = range(5)
ONE = dict(zip(SEEDS, (3.1, 5.2, 4.0, 6.3, 5.5), strict=True))
OTHER = dict(zip(SEEDS, (3.0, 4.9, 3.8, 5.8, 5.3), strict=True))


def test_differences_are_taken_seed_by_seed():
    found = paired(ONE, OTHER)
    one, other = (np.array([values[seed] for seed in SEEDS]) for values in (ONE, OTHER))
    differences = one - other
    half = stats.t.ppf(0.975, 4) * differences.std(ddof=1) / np.sqrt(5)
    assert found.n == 5 and found.mean == pytest.approx(differences.mean())
    assert found.interval == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert found.p == pytest.approx(stats.ttest_rel(one, other).pvalue)
    # Seeds scatter far more than the variants differ: a test that does not pair them sees nothing.
    assert found.p < 0.05 < stats.ttest_ind(one, other, equal_var=False).pvalue


def test_only_seeds_that_both_have_are_compared():
    assert paired(ONE, {3: 5.8, 4: 5.3, 9: 1.0}).n == 2
    assert paired(ONE, {9: 1.0}) == Paired(0)
    assert paired({0: 2.0}, {0: 1.0}) == Paired(1, 1.0)


def test_differences_without_spread_give_no_test_unless_there_are_none():
    assert paired({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}) == Paired(2, 1.0)
    assert paired({0: 0.3, 1: 0.1 + 0.3}, {0: 0.2, 1: 0.1 + 0.2}).p is None  # Equal but for rounding.
    assert paired({0: 2.0, 1: 3.0}, {0: 2.0, 1: 3.0}) == Paired(2, 0.0, (0.0, 0.0), 1.0)


def test_holm_corrects_the_smallest_for_all_and_never_reorders():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.02]) == pytest.approx([0.6, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_significance_is_that_of_the_corrected_p():
    found = corrected(
        {"a": Paired(3, 1.0, (0.1, 1.9), 0.03), "b": Paired(3, 1.0, (0.1, 1.9), 0.04), "c": Paired(1, 1.0)}
    )
    assert found["a"].p_holm == pytest.approx(0.06) and not found["a"].significant
    assert found["c"].p_holm is None and not found["c"].significant
    assert corrected({"a": Paired(3, 1.0, None, 0.03)})["a"].significant


@pytest.mark.parametrize("n", [2, 3, 5])
def test_what_n_can_show_is_the_smallest_mean_that_reaches_5_percent(n):
    factor = float(what_n_can_show(n, 1).split("at least ")[1].split()[0])
    scattered = np.linspace(-1, 1, n) / np.linspace(-1, 1, n).std(ddof=1)
    for scale, significant in ((0.9, False), (1.1, True)):
        assert (stats.ttest_1samp(scattered + scale * factor, 0).pvalue < 0.05) == significant
    assert "does not mean that two variants are equal" in what_n_can_show(n, 4)
    assert "first of 4 comparisons" in what_n_can_show(n, 4)
    assert "no difference" in what_n_can_show(1, 4)
