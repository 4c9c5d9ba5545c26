"""Which keys a query sees, along one axis: the definition that every backend and picture shares.

Neighborhood attention (arXiv 2204.07143; dilation: 2209.15001) shifts a border query's window inwards rather
than shrinking it, inside the residue class that the dilation leaves.
"""


def window_start(position: int, size: int, kernel_size: int, dilation: int) -> int:
    """The first key's index within the residue class of ``position``, for an axis of ``size`` tokens."""
    residue, place = position % dilation, position // dilation
    class_size = -(-(size - residue) // dilation)
    return min(max(place - kernel_size // 2, 0), class_size - kernel_size)


def window(position: int, size: int, kernel_size: int, dilation: int) -> list[int]:
    """The ``kernel_size`` token positions that the query at ``position`` attends to, ascending."""
    first = window_start(position, size, kernel_size, dilation)
    return [position % dilation + dilation * (first + j) for j in range(kernel_size)]
