"""Random numbers for a batch that is divided among processes and microbatches: each image gets the same ones.

Augmentations and regularizers draw with these functions. Networks, losses and pixels do not belong here.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def derived_seed(seed: int, *names: object) -> int:
    """A 63-bit seed that depends only on the run's seed and the names."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class Shard:
    """Every ``of``-th item of a batch from item ``index`` on: one microbatch of one process."""

    index: int = 0
    of: int = 1

    def __call__(self, batch: Tensor) -> Tensor:
        """The shard of [batch, ...]."""
        return batch[self.index :: self.of]


class ShardGenerator(torch.Generator):
    """The generator for one call on a shard of a batch.

    With this module's functions every shard draws for the complete batch and keeps its own part. Drawing from it
    directly gives each shard other numbers, which depend on the division of the batch.

    Args:
        key: the same for all shards of the batch; shard: this one.
    """

    def __new__(cls, key: int, shard: Shard) -> "ShardGenerator":
        return super().__new__(cls)

    def __init__(self, key: int, shard: Shard) -> None:
        self.key, self.shard = key, shard
        self.whole = torch.Generator().manual_seed(key)
        self.manual_seed(derived_seed(key, shard.index))
        self._fresh = self.get_state()

    @property
    def drawn_from_directly(self) -> bool:
        return not torch.equal(self.get_state(), self._fresh)

    def seeds(self, images: int) -> list[int]:
        """One for each image of the shard."""
        return _seeds(images * self.shard.of, self.whole)[self.shard.index :: self.shard.of]


def augmented(augment: Callable[[Tensor, torch.Generator], Tensor], images: Tensor, random: ShardGenerator) -> Tensor:
    """``augment(images, random)`` for a shard of a batch, [images, 3, side, side]. Each image gets the result that it
    would get in the complete batch, even if ``augment`` draws from the generator directly.

    That takes longer: ``augment`` is then called with the shard's images repeated to the full batch size.
    """
    out, shard = augment(images, random), random.shard
    if shard.of == 1 or not random.drawn_from_directly:
        return out
    whole = images.repeat_interleave(shard.of, dim=0)
    return shard(augment(whole, ShardGenerator(random.key, Shard())))


@dataclass(frozen=True)
class Draw:
    """A random tensor that a network declares for each sample, in its attribute ``draws``: a dictionary of Draw.

    Its ``forward`` takes the tensors [batch, *shape] under these names and draws nothing itself, so that results depend
    neither on the number of processes nor on a resume.

    Attributes:
        shape: of one sample's; law: normal, or uniform in [0, 1).
        shared: whether all samples of a batch get the same numbers, such as a decision for the whole batch.
    """

    shape: tuple[int, ...]
    law: Literal["normal", "uniform"] = "normal"
    shared: bool = False

    def __call__(self, count: int, random: torch.Generator) -> Tensor:
        """[count, *shape]."""
        draw = torch.randn if self.law == "normal" else torch.rand
        drawn = draw(1 if self.shared else count, *self.shape, generator=random)
        return drawn.expand(count, *self.shape) if self.shared else drawn


def declared_draws(declared: Mapping[str, Draw], count: int, random: ShardGenerator) -> dict[str, Tensor]:
    """What a network declares, for a shard of ``count`` images: each image gets what it gets in the complete batch."""
    shard = random.shard
    return {name: shard(draw(count * shard.of, random.whole)) for name, draw in declared.items()}


def conditions(labels: Tensor | None) -> tuple[Tensor, ...]:
    """Further arguments of a network: networks of unconditional experiments need not take labels."""
    return () if labels is None else (labels,)


def uniform(random: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform in [0, 1), of this shape. The LAST dimension is the size of the given shard."""
    return _drawn(lambda shape, source: torch.rand(shape, generator=source, dtype=dtype), random, shape)


def normal(random: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal, of this shape. The LAST dimension is the size of the given shard."""
    return _drawn(lambda shape, source: torch.randn(shape, generator=source, dtype=dtype), random, shape)


def generators(random: torch.Generator, batch: int) -> list[torch.Generator]:
    """One generator for each image of the given shard, for random numbers of pixels."""
    seeds = random.seeds(batch) if isinstance(random, ShardGenerator) else _seeds(batch, random)
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _seeds(count: int, source: torch.Generator) -> list[int]:
    return list(map(int, torch.randint(2**62, (count,), generator=source).tolist()))


def _drawn(
    draw: Callable[[tuple[int, ...], torch.Generator], Tensor], random: torch.Generator, shape: tuple[int, ...]
) -> Tensor:
    if not isinstance(random, ShardGenerator):  # Then the batch is whole.
        return draw(shape, random)
    shard = random.shard
    return draw((*shape[:-1], shape[-1] * shard.of), random.whole)[..., shard.index :: shard.of]
