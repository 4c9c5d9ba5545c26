"""How long training waits for a checkpoint: the copy of its state, against writing it before going on.

python benchmarks/checkpoint.py [--repeats 5]
"""

import argparse
import tempfile
from pathlib import Path

import torch
from measure import Times, alternating, gflops, product

from registry import load_experiment, load_plugins
from stylenat import checkpoint
from stylenat.commands._command import CORE, experiments_folder
from stylenat.training.saving import Writer
from stylenat.training.state import TrainingState


def state_of(gin: str) -> TrainingState:
    """As after some training: Adam's moments are there."""
    registry = load_plugins([], core=CORE)
    experiment = load_experiment(registry, [gin], search_path=[experiments_folder()])
    state = TrainingState(experiment.get("train")(), torch.device("cpu"))
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                moments = {"exp_avg": torch.rand_like(p), "exp_avg_sq": torch.rand_like(p)}
                optimizer.state[p] = {"step": torch.tensor(1.0)} | moments
    return state


def measured(state: TrainingState, folder: Path, repeats: int) -> tuple[dict[str, Times], int]:
    """Times of both sides, and the bytes of a checkpoint. A checkpoint is written to its end before the next begins."""
    networks = {name: network.state_dict() for name, network in state.networks().items()}
    values = state.state_dict()
    multiply = product()
    with Writer(folder) as writer:

        def copied() -> None:
            writer.save(1, networks, values)

        def settled() -> None:
            writer.drained()

        def written() -> None:
            checkpoint.save(folder, 2, networks, values)

        sides = {
            "copied": copied,
            "the rest, behind": settled,
            "written before going on": written,
            "(reference)": multiply,
        }
        times = alternating(sides, repeats)
    size = sum(path.stat().st_size for path in checkpoint.checkpoint_path(folder, 2).iterdir())
    return times, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="on the disk to measure; default: the one for temporary files")
    arguments = parser.parse_args()
    print("| | MB | copied: training waits | written meanwhile | written before going on | reference |")
    print("|---|---|---|---|---|---|")
    for gin in ("quickstart.gin", "ffhq256.gin"):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            times, size = measured(state_of(gin), Path(folder), arguments.repeats)
        *columns, reference = times.values()
        cells = " | ".join(map(str, columns))
        print(f"| {gin} | {size / 1e6:.0f} | {cells} | {gflops(reference):.0f} GFLOP/s |", flush=True)


if __name__ == "__main__":
    main()
