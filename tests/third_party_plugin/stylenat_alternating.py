"""A third-party plugin: a partition that no bundled one can express, since it asks which of the two blocks it is in."""

from registry import AttentionSite, HeadGroup, even_groups, hookimpl

STYLENAT_API = 2


class Alternating:
    """A resolution's first block sees near (dilations 1 and 2), its second as far as the map goes.

    Args:
        kernel_size: side of every neighborhood; odd, at least 3.
    """

    def __init__(self, kernel_size: int = 3) -> None:
        self.kernel_size = kernel_size

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        farthest = site.resolution // self.kernel_size
        near, far = (1, min(2, farthest)), (max(farthest // 2, 1), farthest)
        dilations = sorted(set(near if site.block == 0 else far))[: site.num_heads]
        return even_groups(site.num_heads, [(self.kernel_size, dilation) for dilation in dilations])


@hookimpl
def stylenat_register(register):
    register("partition", "alternating", Alternating)
