"""A model of the FFHQ-256 training iteration on a GPU: the products and the memory traffic of every operator.

Nothing is measured. The operators are those that a GPU would be given: iterations run on the tests' pretended GPU, with
2 and with 4 images, and each operator's share that grows with the images is continued. Each takes the longer of its
products and its traffic, at those shares of the published rates that large operators reach; latency is left out.
Attention takes the time that ``triton_static.py`` models. Run it from the root:

    python benchmarks/iteration_model.py
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from math import lcm
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.pixels import to_networks
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "common"))
from pretended_gpu import pretended_gpu
from pretended_gpu.kernels import pretended_kernels


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
COUNTED = 2, 4
"""Images of the iterations that are counted."""


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


@dataclass(frozen=True)
class NoImages:
    resolution: int

    def __len__(self) -> int:
        return 30


@dataclass
class Modelled:
    """An iteration of so many images, every step by its share.

    Attributes:
        counted: by the images of an iteration: seconds by card and by what takes them, FLOP of products, bytes moved.
        messages: bytes of gradients that each step of an iteration sends, and the iterations from one to the next.
    """

    counted: dict[int, tuple[dict[str, Counter[str]], float, float]]
    messages: tuple[tuple[int, int], ...] = ()

    def _continued(self, of, images: int) -> float:
        few, many = (of(*self.counted[n]) for n in COUNTED)
        return few + (many - few) / (COUNTED[1] - COUNTED[0]) * (images - COUNTED[0])

    def seconds(self, card: str, what: str, images: int) -> float:
        return self._continued(lambda seconds, products, moved: seconds[card][what], images)

    def total(self, card: str, images: int) -> float:
        return sum(self.seconds(card, what, images) for what in ("attention", "products", "memory"))

    def products(self, images: int) -> float:
        return self._continued(lambda seconds, products, moved: products, images)

    def moved(self, images: int) -> float:
        return self._continued(lambda seconds, products, moved: moved, images)


def modelled(gin: str) -> Modelled:
    registry = load_plugins(core=CORE)
    found = Modelled({})
    for images in COUNTED:
        bindings = ["train.trackers = []", f"train.batch_size = {images}"]
        settings = load_experiment(registry, [gin], bindings, search_path=[experiments_folder()]).get("train")()
        with pretended_gpu(), pretended_kernels():
            settings.dataset = NoImages(settings.generator().resolution)
            state = TrainingState(settings, torch.device("cuda", 0))
            found.counted[images] = mean_iteration(state)
        found.messages = tuple(messages(state))
    return found


def mean_iteration(state: TrainingState) -> tuple[dict[str, Counter[str]], float, float]:
    """The mean of iterations over the period of the recipe's steps; each kind of iteration runs once."""
    settings = state.settings
    side = state.generator.resolution
    images = to_networks(torch.zeros(settings.batch_size, 3, side, side, dtype=torch.uint8)).to("cuda")

    def one(step: int) -> None:
        state.step = step
        iteration(state, iter([(images, None)] * len(settings.steps)))

    one(1)  # Makes the optimizers' moments.
    period = lcm(*(step.interval for step in settings.steps))
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for at in range(1, period + 1):
        kinds.setdefault(tuple(at % step.interval == 0 for step in settings.steps), []).append(at)
    seconds: dict[str, Counter[str]] = {name: Counter() for name in CARDS}
    products = moved = 0.0
    for same in kinds.values():
        share = len(same) / period
        with Costs() as costs:
            one(same[0])
        products, moved = products + share * costs.products, moved + share * costs.bytes
        for card, taken in costs.seconds.items():
            seconds[card].update({name: share * value for name, value in taken.items()})
    return seconds, products, moved


def messages(state: TrainingState):
    for step in state.settings.steps:
        for phase in step.phases:
            groups = state.optimizers[phase.network].param_groups
            yield sum(4 * p.numel() for group in groups for p in group["params"]), step.interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin", default="ffhq256.gin")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    found, batch = modelled(arguments.gin), arguments.batch
    work = f"{found.products(batch) / 1e12:.1f} TFLOP, {found.moved(batch) / 1e12:.2f} TB of traffic"
    print(f"{arguments.gin}, batch {batch}: {work}")
    print("| card | attention | products | memory | together, s | images/s |\n|---|---:|---:|---:|---:|---:|")
    for card in CARDS:
        total = found.total(card, batch)
        parts = " | ".join(f"{found.seconds(card, name, batch):.3f}" for name in ("attention", "products", "memory"))
        print(f"| {card} | {parts} | {total:.3f} | {batch / total:.0f} |")


if __name__ == "__main__":
    main()
