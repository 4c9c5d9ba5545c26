"""The gin selector ``ablation``: which variants of an experiment there are. No torch in here."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from registry import CountOrZero, UserError
from registry.gintext import render

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True)
class Variant:
    """One line of the comparison: a name that can stand in a path, and the gin bindings that make it."""

    name: str
    bindings: tuple[str, ...]


@dataclass(kw_only=True)
class Ablation:
    """Selector ``ablation``: read by ``tools/ablate.py``; a run passes over it.

    Args:
        variants: gin bindings by the variant's name, such as ``{'hinge': ['train.loss = @loss.hinge()']}``. An empty
            list is the experiment as it stands.
        grid: values by parameter, such as ``{'train.generator_learning_rate': [1e-3, 5e-4]}``: every combination,
            with every one of ``variants`` if there are any. Text that begins with @ or % is gin's: ``'@loss.hinge()'``.
        seeds: every variant is trained once with each of these as ``train.seed``.
        about: parameters, or beginnings of them (``dataset.subset``), of data and budget that variants may change
            because the ablation is about them; no others may.
        quick: further bindings with ``--quick``, for all variants.

    Raises:
        UserError: no variant, a name that cannot stand in a path, an empty list, or a seed named twice.
    """

    variants: dict[str, Sequence[str]] = field(default_factory=dict)
    grid: dict[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[CountOrZero] = (0,)
    about: Sequence[str] = ()
    quick: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in self.variants:
            if not NAME.fullmatch(name):
                raise UserError(
                    f"ablation.variants: {name!r} cannot name a folder; use only letters, digits and _ . + -, "
                    "100 at most"
                )
        if not self.variants and not self.grid:
            raise UserError("no variant is named: bind ablation.variants or ablation.grid")
        for parameter, values in self.grid.items():
            if not values:
                raise UserError(f"ablation.grid: {parameter!r} has no values; give at least one, or leave it out")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"ablation.seeds must name each seed once, and at least one; got {list(self.seeds)}")

    def expanded(self) -> list[Variant]:
        """Every variant, in the order of the file; grids last parameter fastest.

        Raises UserError where two come out with one name.
        """
        axes = [[Variant(name, tuple(bindings)) for name, bindings in self.variants.items()]] if self.variants else []
        axes += [
            [Variant(_short(parameter, value), (f"{parameter} = {_text(value)}",)) for value in values]
            for parameter, values in self.grid.items()
        ]
        found = [
            Variant("-".join(part.name for part in parts), tuple(line for part in parts for line in part.bindings))
            for parts in itertools.product(*axes)
        ]
        names = [variant.name for variant in found]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"ablation.grid makes two variants of the name {name!r}; write them out in variants")
        return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value[:1] in ("@", "%") else render(value)


def _short(parameter: str, value: Any) -> str:
    """``kernel_size_3`` of ``partition.uniform.kernel_size = 3``; ``loss_hinge`` of ``train.loss = @loss.hinge()``."""
    text = re.sub(r"@(?:[\w/]+\.)*(\w+)(?:\(\))?", r"\1", _text(value))
    return f"{parameter.rpartition('.')[2]}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', text).strip('_') or 'none'}"
