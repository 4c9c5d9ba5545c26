"""The contract of kind ``partition``: a pure function of the site, whose groups can stand there."""

from collections.abc import Iterable

from registry import AttentionSite, HeadGroup, UserError
from stylenat.interfaces import Partition
from stylenat.testing.contract import CannotCheck, require, untouched

SITES = tuple(
    AttentionSite(resolution, heads, 32 * heads, block)
    for resolution in (8, 16, 32, 64, 128, 256, 512)
    for heads in (1, 2, 3, 4, 5, 8, 16)
    for block in (0, 1)
)
"""Both blocks of every resolution from 8x8 to 512x512. Heads may be odd, and fewer than the groups wanted."""


def check_partition(partition: Partition, sites: Iterable[AttentionSite] = SITES) -> None:
    """Checks the groups at every site.

    A site that the partition refuses with ``registry.UserError`` is passed over, but it must take one.

    Raises:
        ContractError: heads lost or invented, even or tiny kernels, kernel_size x dilation beyond the
            resolution, an answer that is not a list of ``HeadGroup`` or changes from call to call, randomness.
    """
    sites = tuple(sites)
    found: dict[AttentionSite, list[HeadGroup]] = {}
    refusals: list[str] = []
    with untouched():
        for site in sites:
            try:
                groups = partition(site)
            except UserError as error:
                refusals.append(str(error))
                continue
            _check_groups(groups, site)
            found[site] = list(groups)
        for site in reversed(list(found)):
            require(
                list(partition(site)) == found[site],
                f"{_at(site)} its answer changes from call to call; it must depend only on the site",
            )
    if not found:
        raise CannotCheck(f"it refuses every site: {refusals[0]}")


def _at(site: AttentionSite) -> str:
    return f"at {site.resolution}x{site.resolution}, {site.num_heads} heads, block {site.block}:"


def _check_groups(groups: object, site: AttentionSite) -> None:
    at = _at(site)
    ours = isinstance(groups, list) and bool(groups) and all(isinstance(g, HeadGroup) for g in groups)
    require(ours, f"{at} it must return a list of HeadGroup; got {groups!r}")
    assert isinstance(groups, list)
    for g in groups:
        whole = all(type(number) is int for number in (g.num_heads, g.kernel_size, g.dilation))
        require(whole, f"{at} {g} must be integers")
        require(g.num_heads >= 1, f"{at} {g} has no head; leave the group out")
        require(g.kernel_size >= 3 and g.kernel_size % 2 == 1, f"{at} {g}: kernel_size must be odd and at least 3")
        require(g.dilation >= 1, f"{at} {g}: dilation must be at least 1")
        extent = g.kernel_size * g.dilation
        require(
            extent <= site.resolution,
            f"{at} {g}: kernel_size x dilation = {extent} exceeds the resolution {site.resolution}",
        )
    heads = sum(g.num_heads for g in groups)
    require(heads == site.num_heads, f"{at} its groups hold {heads} of the {site.num_heads} heads")
