"""Partition ``table``: an explicit table of neighborhoods by resolution."""

from registry import AttentionSite, Count, HeadGroup, UserError, even_groups


class Table:
    """Neighborhoods by resolution. Heads are split evenly; the last groups take the remainder.

    Args:
        dilations: resolution to the dilations of its groups, such as ``{8: [1], 16: [1, 2]}``.
        kernel_sizes: resolution to the kernel sizes of its groups, one for each dilation; or one size for all.
    """

    def __init__(self, dilations: dict[int, list[Count]], kernel_sizes: dict[int, list[Count]] | int = 7) -> None:
        self.dilations, self.kernel_sizes = dilations, kernel_sizes

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        dilations = self._row(self.dilations, "dilations", site.resolution)
        if isinstance(self.kernel_sizes, int):
            kernel_sizes = [self.kernel_sizes] * len(dilations)
        else:
            kernel_sizes = self._row(self.kernel_sizes, "kernel_sizes", site.resolution)
        if len(kernel_sizes) != len(dilations):
            raise UserError(
                f"partition.table has {len(kernel_sizes)} kernel_sizes but {len(dilations)} dilations at "
                f"{site.resolution}x{site.resolution}; give one of each a group"
            )
        if len(dilations) > site.num_heads:
            raise UserError(
                f"partition.table asks for {len(dilations)} groups at {site.resolution}x{site.resolution}, which has "
                f"only {site.num_heads} heads"
            )
        return even_groups(site.num_heads, list(zip(kernel_sizes, dilations, strict=True)))

    def _row(self, table: dict[int, list[Count]], name: str, resolution: int) -> list[int]:
        if resolution not in table:
            raise UserError(f"partition.table.{name} has no row for {resolution}x{resolution}; it has {sorted(table)}")
        return table[resolution]
