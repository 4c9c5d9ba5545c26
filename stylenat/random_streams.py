"""Named random streams. Every draw of a run comes from one of them, and their states are in the checkpoint."""

import random
from collections.abc import Mapping

import torch
from torch import Tensor

from stylenat.draws import Draw, Shard, ShardGenerator, derived_seed

# Latents by index are drawn in blocks, so that the i-th is the same however many are asked for at once.
BLOCK = 16


def blocks_of(count: int) -> int:
    """Blocks of 16 that hold so many."""
    return -(-count // BLOCK)


def seed_everything(seed: int) -> None:
    """Seeds the generators that Python, NumPy and PyTorch shard among all code.

    Nothing here draws from them. A plugin may, with dropout for one: called before every iteration with a seed that
    depends on its number, this makes such draws the same whatever happened before, with no state to keep.
    """
    import numpy as np  # Here: exported models are sampled without it.

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class RandomStreams:
    """CPU generators by name, made on first use from the run's seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        if name not in self._streams:
            self._streams[name] = torch.Generator().manual_seed(derived_seed(self.seed, name))
        return self._streams[name]

    def for_call(self, name: str, shard: Shard) -> ShardGenerator:
        """For one call of somebody else's code on a shard of the batch: whatever it draws, the stream moves by one."""
        return ShardGenerator(int(torch.randint(2**63 - 1, (), generator=self[name])), shard)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: stream.get_state() for name, stream in self._streams.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._streams = {}  # One that is not in the state had not been drawn from.
        for name, value in state.items():
            self[name].set_state(value)


def latents_by_index(seed: int, start: int, count: int, latent_dim: int) -> Tensor:
    """Latents number ``start`` to ``start + count``, [count, latent_dim]: each depends on (seed, its index) alone."""
    return draw_by_index(Draw((latent_dim,)), seed, "sample", start, count)


def draw_by_index(draw: Draw, seed: int, name: str, start: int, count: int) -> Tensor:
    """[count, *shape]: the draws of those sample indices, each from (seed, name, its index) alone."""
    blocks = range(start // BLOCK, -(-(start + count) // BLOCK))
    drawn = [draw(BLOCK, torch.Generator().manual_seed(derived_seed(seed, name, block))) for block in blocks]
    skip = start - blocks.start * BLOCK
    return torch.cat(drawn)[skip : skip + count] if drawn else torch.empty(0, *draw.shape)
