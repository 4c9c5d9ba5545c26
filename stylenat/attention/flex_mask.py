"""Which keys a query sees, as the block mask that FlexAttention takes: in memory linear in the tokens.

FlexAttention's own ``create_block_mask`` evaluates every pair of tokens, 80 GB at 256x256.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stylenat.attention.window import window_start

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128
"""Tokens in one block of a mask, FlexAttention's default."""


def block_mask(
    batch: int, height: int, width: int, kernel_size: int, dilation: int, device: torch.device
) -> "BlockMask":
    """The mask of ``batch`` images of this size, whose residue classes are images of their own in the batch.

    Args:
        height, width: of the image; a class is padded to the size of the largest.
    """
    from torch.nn.attention.flex_attention import BlockMask

    d = dilation
    class_height, class_width = -(-height // d), -(-width // d)
    tokens = class_height * class_width
    # Where the side does not divide by the dilation, the later residues' classes are one shorter.
    ragged = bool(height % d or width % d)

    def seen(b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        rows = (height - b // d % d + d - 1) // d if ragged else class_height
        columns = (width - b % d + d - 1) // d if ragged else class_width
        first_y = _window_start(query // class_width, rows, kernel_size)
        first_x = _window_start(query % class_width, columns, kernel_size)
        y, x = key // class_width - first_y, key % class_width - first_x
        return (y >= 0) & (y < kernel_size) & (x >= 0) & (x < kernel_size)

    # Blocks without a masked key are not treated separately: only a map of one window has any.
    return BlockMask(
        (tokens, tokens),
        *block_tables(batch, height, width, kernel_size, dilation, device),
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=seen,
    )


def block_tables(
    batch: int, height: int, width: int, kernel_size: int, dilation: int, device: torch.device
) -> tuple[Tensor, Tensor, None, None, Tensor, Tensor, None, None]:
    """A block mask's tables in the order of ``BlockMask``'s arguments: keys by query block, queries by key block.

    Each is a count int32 [masks, 1, blocks] and block numbers int32 [masks, 1, blocks, most of any block]. There is
    one mask for all, or one for each class where the classes differ.
    """
    if height % dilation == 0 == width % dilation:
        batch = 1
    return _tables(batch, height, width, kernel_size, dilation, device)


# ``torch.compiler.assume_constant_result`` does no more, but imports PyTorch's compiler.
block_tables._dynamo_marked_constant = True  # type: ignore[attr-defined]


@lru_cache(maxsize=64)
def _tables(
    batch: int, height: int, width: int, kernel_size: int, dilation: int, device: torch.device
) -> tuple[Tensor, Tensor, None, None, Tensor, Tensor, None, None]:
    d = dilation
    classes = [(-(-(height - y) // d), -(-(width - x) // d)) for y in range(d) for x in range(d)]
    masks = classes * batch if height % d or width % d else classes[:1]
    sizes = sorted(set(masks))
    which = torch.tensor([sizes.index(size) for size in masks])
    blocks = [_key_blocks(*size, *classes[0], kernel_size) for size in sizes]
    keys, queries = _ordered(blocks), _ordered([_transposed(rows) for rows in blocks])
    keys_of, keys_in, queries_of, queries_in = (table[which].to(device) for table in (*keys, *queries))
    return keys_of, keys_in, None, None, queries_of, queries_in, None, None


def _window_start(position: Tensor, size: Tensor | int, kernel_size: int) -> Tensor:
    """``window.window_start`` of tensors, without dilation."""
    first = (position - kernel_size // 2).clamp(min=0)
    return first.clamp(max=size - kernel_size) if isinstance(size, int) else first.minimum(size - kernel_size)


def _key_blocks(height: int, width: int, class_height: int, class_width: int, kernel_size: int) -> list[list[int]]:
    """For each block of queries the blocks with a key that one of them sees, ascending.

    Args:
        height, width: of the class; the padded class, in which tokens are counted, is class_height x class_width.
    """
    tokens, found = class_height * class_width, []
    for begin in range(0, tokens, BLOCK):
        keys: set[int] = set()
        end = min(begin + BLOCK, tokens)
        for y in range(begin // class_width, (end - 1) // class_width + 1):
            # The windows of neighbouring queries overlap: in each row of keys they leave no gap.
            leftmost, rightmost = max(begin - y * class_width, 0), min(end - y * class_width, class_width) - 1
            first = window_start(leftmost, width, kernel_size, 1)
            last = window_start(rightmost, width, kernel_size, 1) + kernel_size - 1
            top = window_start(y, height, kernel_size, 1)
            for row in range(top, top + kernel_size):
                keys.update(range((row * class_width + first) // BLOCK, (row * class_width + last) // BLOCK + 1))
        found.append(sorted(keys))
    return found


def _transposed(rows: list[list[int]]) -> list[list[int]]:
    """For each block of keys the blocks of queries that see one, ascending."""
    columns: list[list[int]] = [[] for _ in rows]
    for row, seen in enumerate(rows):
        for column in seen:
            columns[column].append(row)
    return columns


def _ordered(masks: list[list[list[int]]]) -> tuple[Tensor, Tensor]:
    """int32 counts [masks, 1, blocks] and block numbers [masks, 1, blocks, most of any block], padded with 0."""
    most = max(len(seen) for rows in masks for seen in rows)
    counts = [[[len(seen) for seen in rows]] for rows in masks]
    numbers = [[[seen + [0] * (most - len(seen)) for seen in rows]] for rows in masks]
    return torch.tensor(counts, dtype=torch.int32), torch.tensor(numbers, dtype=torch.int32)
