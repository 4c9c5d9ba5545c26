"""Statistics of variants that share their seeds: differences seed by seed. Values and names only; knows no runs."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SIGNIFICANCE = 0.05
METHOD = "paired t-test over seeds, Holm's correction"
CHOSEN = "the best mean was chosen by the same numbers, which makes p too small"
"""Where no baseline was named beforehand."""


@dataclass(frozen=True)
class Paired:
    """A variant minus the reference over the seeds that both have.

    Attributes:
        n: seeds in common; mean: of the differences, None without any.
        interval: of the mean at 95 %, by Student's t; p: two-sided, of the paired t-test. None below two seeds, and
            where all differences are equal but not 0 (no spread to judge by).
        p_holm: p after Holm's correction over the variants that are compared with one reference.
    """

    n: int
    mean: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < SIGNIFICANCE


def paired(values: Mapping[int, float], reference: Mapping[int, float]) -> Paired:
    """Compares two variants. ``values``, ``reference``: a metric by seed."""
    seeds = sorted(values.keys() & reference.keys())
    differences = [values[seed] - reference[seed] for seed in seeds]
    if not differences:
        return Paired(0)
    n, mean = len(differences), statistics.fmean(differences)
    if n == 1:
        return Paired(n, mean)
    size = max(abs(value) for value in (*values.values(), *reference.values()))
    if statistics.stdev(differences) <= 1e-12 * size:  # Equal but for rounding.
        return Paired(n, mean, (0.0, 0.0), 1.0) if abs(mean) <= 1e-12 * size else Paired(n, mean)
    from scipy.stats import ttest_rel

    test = ttest_rel([values[seed] for seed in seeds], [reference[seed] for seed in seeds])
    low, high = test.confidence_interval(1 - SIGNIFICANCE)
    return Paired(n, mean, (float(low), float(high)), float(test.pvalue))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given."""
    corrected, largest = [0.0] * len(values), 0.0
    for done, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, (len(values) - done) * values[i])
        corrected[i] = min(largest, 1.0)
    return corrected


def corrected(found: Mapping[str, Paired]) -> dict[str, Paired]:
    """The same comparisons with ``p_holm``, the correction being over those that have a p."""
    tested = {name: one.p for name, one in found.items() if one.p is not None}
    new = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {name: Paired(one.n, one.mean, one.interval, one.p, new.get(name)) for name, one in found.items()}


def what_n_can_show(n: int, comparisons: int) -> str:
    """A sentence about the differences that ``n`` seeds can show, with so many comparisons."""
    if n < 2:
        return "with one seed in common no difference can be distinguished from chance"
    from scipy.stats import t

    one, first = (
        float(t.ppf(1 - SIGNIFICANCE / tests / 2, n - 1)) / math.sqrt(n) for tests in (1, max(comparisons, 1))
    )
    corrected = f" ({first:.1f} for the first of {comparisons} comparisons)" if comparisons > 1 else ""
    return (
        f"with {n} seeds a difference reaches 5 % only if its mean is at least {one:.1f} times the standard "
        f"deviation of the differences by seed{corrected}; no mark does not mean that two variants are equal"
    )
