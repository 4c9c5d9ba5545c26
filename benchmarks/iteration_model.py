"""A model of the FFHQ-256 training iteration on a GPU: the products and the memory traffic of every operator.

Nothing is measured. Each operator takes the longer of its products and its traffic, at those shares of the published
rates that large operators reach; latency, optimizers and the average are left out. Attention takes the time that
``triton_static.py`` models. Run it from the root:

    python benchmarks/iteration_model.py
"""

import argparse
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.training.footprint import COUNTED, peak_of, without_data


@dataclass(frozen=True)
class Card:
    """Published peaks: FLOP/s of dense TF32 products, bytes/s. ``attention``: ns a token and head, forward and backward
    in TF32, by triton_static.py."""

    products: float
    memory: float
    attention: tuple[float, float]


TOKENS = 256 * 256
CARDS = {
    "A100": Card(156e12, 2.0e12, (57e3 / TOKENS, 122e3 / TOKENS)),
    "RTX 4090": Card(82.6e12, 1.01e12, (33e3 / TOKENS, 100e3 / TOKENS)),
    "H100": Card(495e12, 3.35e12, (33e3 / TOKENS, 72e3 / TOKENS)),
}
REACHED = 0.6, 0.75
"""Shares of the peaks: products, memory."""
READ_AGAIN = {"modulated_norm": 1, "modulated_norm_backward": 2}
"""Operators whose kernels read maps twice: how many of their first arguments these are."""
FREE = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}


class Costs(TorchDispatchMode):
    """Seconds by card, an operator at a time, and totals."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.bytes = 0.0
        self.seconds: dict[str, Counter[str]] = {name: Counter() for name in CARDS}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if function.is_view or function.namespace == "prim" or name in FREE:
            return out
        moved = sum(t.numel() * t.element_size() for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor))
        moved += sum(t.nbytes for t in args[: READ_AGAIN.get(name, 0)])
        if name.startswith("grouped_attention"):
            self._attention(name, args[1])
            return out
        count = flop_registry.get(function.overloadpacket)
        flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
        self.products, self.bytes = self.products + flops, self.bytes + moved
        for card, rates in CARDS.items():
            taken = max(flops / (REACHED[0] * rates.products), moved / (REACHED[1] * rates.memory))
            self.seconds[card]["products" if taken * REACHED[1] * rates.memory > moved * 1.001 else "memory"] += taken
        return out

    def _attention(self, name, inputs):
        batch, height, width = inputs[0].shape[:3]
        pairs = batch * height * width * inputs[0].shape[-2]
        for card, rates in CARDS.items():
            self.seconds[card]["attention"] += 1e-9 * pairs * rates.attention[name.endswith("backward")]


@dataclass
class Modelled:
    """An iteration of ``batch`` images, every step by its share.

    Attributes:
        seconds: by card and by what takes them; products: FLOP; moved: bytes.
        messages: bytes of gradients that each step of an iteration sends, and the iterations from one to the next.
    """

    batch: int
    seconds: dict[str, Counter[str]]
    products: float = 0.0
    moved: float = 0.0
    messages: tuple[tuple[int, int], ...] = ()


def modelled(gin: str, batch: int) -> Modelled:
    experiment = load_experiment(
        load_plugins(core=CORE), [gin], ["train.trackers = []"], search_path=[experiments_folder()]
    )
    found, messages = Modelled(batch, {name: Counter() for name in CARDS}), []
    scale = batch / COUNTED
    with without_data(experiment.get("train")(), "float32", False) as (state, one):
        for step in state.settings.steps:
            with Costs() as costs:
                peak_of(state, step, *one)
            share = scale / step.interval
            found.products += share * costs.products
            found.moved += share * costs.bytes
            for card, seconds in costs.seconds.items():
                found.seconds[card].update({name: share * value for name, value in seconds.items()})
            for phase in step.phases:
                groups = state.optimizers[phase.network].param_groups
                messages.append((sum(4 * p.numel() for group in groups for p in group["params"]), step.interval))
    found.messages = tuple(messages)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin", default="ffhq256.gin")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    found = modelled(arguments.gin, arguments.batch)
    work = f"{found.products / 1e12:.1f} TFLOP, {found.moved / 1e12:.2f} TB of traffic"
    print(f"{arguments.gin}, batch {found.batch}: {work}")
    print("| card | attention | products | memory | together, s | images/s |\n|---|---:|---:|---:|---:|---:|")
    for card, seconds in found.seconds.items():
        total = sum(seconds.values())
        parts = " | ".join(f"{seconds[name]:.3f}" for name in ("attention", "products", "memory"))
        print(f"| {card} | {parts} | {total:.3f} | {found.batch / total:.0f} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
