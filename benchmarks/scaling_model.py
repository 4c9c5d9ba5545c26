"""A model of training on 8 and 64 GPUs: the iteration of ``iteration_model.py`` and the messages that it sends.

Nothing is measured. An iteration takes the longer of the device's time (``iteration_model.py``) and the host's, which
starts OPERATORS of them. Then it sends the gradients of each phase as one message, summed within a node and then
between nodes, each in a ring of n members: 2 (n - 1) steps of an n-th of the bytes. Three variants: as it is, sending
after the backward pass; in buckets during the backward pass, which hide what fits into HIDES of the computation; and
those with gradients of half the size (bf16). Run it from the root:

    python benchmarks/scaling_model.py [--gin ffhq256.gin] [--images 4]
"""

import argparse
from dataclasses import dataclass

from iteration_model import CARDS, Modelled, modelled

OPERATORS, SECONDS_EACH = 5153, 5e-6
"""Of an iteration, counted (benchmarks/README.md, "Operators of an iteration on a GPU"); of the host's time."""
REACHED = 0.75
"""Share of the published rates of links."""
HIDES = 0.5
"""Share of an iteration during which gradients come and can be sent: the backward passes of parameters."""
BUCKET = 25e6
"""Bytes: the last bucket of a phase is sent when there is nothing left to compute (DistributedDataParallel's)."""
LINK_LATENCY = 5e-6


@dataclass(frozen=True)
class Link:
    """Bytes/s each way, seconds of latency of a step."""

    rate: float
    latency: float

    def seconds(self, size: float, members: int) -> float:
        """Of an all-reduce in a ring."""
        return 2 * (members - 1) * (self.latency + size / members / (REACHED * self.rate))


WITHIN = {
    "A100": Link(300e9, LINK_LATENCY),
    "RTX 4090": Link(32e9, LINK_LATENCY),  # PCIe 4.0 x16.
    "H100": Link(450e9, LINK_LATENCY),
}
SLOW, FAST = Link(10e9 / 8, 100e-6), Link(100e9 / 8, 10e-6)
LAYOUTS = {  # name: (nodes, GPUs of each, the network between nodes)
    "8 in one node": (1, 8, SLOW),
    "8 nodes of 1, 10 Gbit/s and 100 µs": (8, 1, SLOW),
    "8 nodes of 8, 10 Gbit/s and 100 µs": (8, 8, SLOW),
    "8 nodes of 8, 100 Gbit/s and 10 µs": (8, 8, FAST),
    "8 nodes of 8, 8 x 400 Gbit/s and 5 µs": (8, 8, Link(400e9, 5e-6)),
}
FIXED = 1, 2, 4, 8, 16, 32
"""GPUs that share the published batch of 32."""


def computing(found: Modelled, card: str, images: int) -> float:
    """Seconds of an iteration with so many images on a GPU."""
    return max(found.total(card, images), OPERATORS * SECONDS_EACH)


def sending(found: Modelled, card: str, layout: tuple[int, int, Link], size: float = 1.0) -> float:
    """Seconds an iteration; ``size``: of a gradient, relative to float32."""
    nodes, gpus, network = layout
    return sum(
        (WITHIN[card].seconds(size * message, gpus) + network.seconds(size * message, nodes)) / interval
        for message, interval in found.messages
    )


def exposed(found: Modelled, card: str, layout: tuple[int, int, Link], compute: float, size: float) -> float:
    """Seconds that an iteration waits, where buckets are sent during the backward passes."""
    whole = sending(found, card, layout, size)
    last = sum(min(1.0, BUCKET / message) / interval for message, interval in found.messages)
    last /= sum(1 / interval for _, interval in found.messages)
    return max(last * whole, whole - HIDES * compute)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gin", default="ffhq256.gin")
    parser.add_argument("--images", type=int, default=4, help="a GPU, in the first table")
    arguments = parser.parse_args()
    found = modelled(arguments.gin)
    megabytes = sum(size / interval for size, interval in found.messages) / 1e6
    print(f"{arguments.gin}: a model, not a measurement; {megabytes:.0f} MB of gradients an iteration\n")
    print(f"{arguments.images} images on each GPU, images/s and the share of waiting for messages:\n")
    print(
        "| card | GPUs | as it is | buckets during the backward pass | and half the bytes |\n|---|---|---:|---:|---:|"
    )
    for card in CARDS:
        compute = computing(found, card, arguments.images)
        for name, layout in LAYOUTS.items():
            gpus = layout[0] * layout[1]
            waits = [
                sending(found, card, layout),
                exposed(found, card, layout, compute, 1.0),
                exposed(found, card, layout, compute, 0.5),
            ]
            cells = [
                f"{gpus * arguments.images / (compute + wait):.0f} ({100 * wait / (compute + wait):.0f} %)"
                for wait in waits
            ]
            print(f"| {card}, {1000 * compute:.0f} ms | {name} | {' | '.join(cells)} |")
    print("\nThe published batch of 32, divided among the GPUs of one node, or of nodes with 8 each at 100 Gbit/s;")
    print("images/s as it is:\n")
    print("| card | " + " | ".join(f"{gpus} GPUs" for gpus in FIXED) + " |\n|---" + "|---:" * len(FIXED) + "|")
    for card in CARDS:
        cells = []
        for gpus in FIXED:
            layout = (max(1, gpus // 8), min(gpus, 8), FAST)
            cells.append(f"{32 / (computing(found, card, 32 // gpus) + sending(found, card, layout)):.0f}")
        print(f"| {card} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
