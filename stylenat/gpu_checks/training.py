"""Check ``training``: the iteration of FFHQ-256 on random images."""

from collections.abc import Iterator

import torch

from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.experiments import ffhq256
from stylenat.gpu_checks.measure import attempt, launches_and_waits, peak_gib, seconds
from stylenat.training.forward import use_tf32
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

# What fits 80 GB first. An image needs 1.4 GB in float32, counted.
CASES = (
    (8, "train.tf32 = True"),
    (8, "train.tf32 = True", "train.precision = 'bf16'"),
    (32, "train.tf32 = True", "train.accumulate = 4"),
    (32, "train.tf32 = True", "train.precision = 'bf16'", "train.accumulate = 2"),
    (8,),
    (4, "train.tf32 = True"),
    (8, "train.tf32 = True", "train.precision = 'fp16'"),
    (32, "train.tf32 = True"),
)


def rows(device: torch.device) -> Iterator[Row]:
    """One row a batch and setting, of iterations without R1; the fifteen others of sixteen are such."""
    for batch, *bindings in CASES if device.type == "cuda" else ((4,),):
        title = ", ".join([f"batch {batch}", *(text.removeprefix("train.") for text in bindings)])
        yield attempt(title, lambda batch=batch, bindings=bindings: measured(batch, bindings, device))


def measured(batch: int, bindings: list[str], device: torch.device) -> dict[str, Value]:
    """Speed, memory, launches and waits of the iteration with these bindings."""
    settings = ffhq256(device, f"train.batch_size = {batch}", *bindings).get("train")()
    use_tf32(settings.tf32)
    state = TrainingState(settings, device)
    side = state.generator.resolution
    real = torch.randn(batch, 3, side, side, device=device)

    def step() -> None:
        state.seed_iteration()
        iteration(state, iter([(real, None)]))

    state.step = 1
    peak = peak_gib(step, device)
    taken = seconds(step, device, repeats=3, warm_up=1)
    counts = launches_and_waits(step, device)
    state.step = 16  # R1 is due.
    peak_r1 = peak_gib(step, device)
    return {"images/s": batch / taken, "ms": 1e3 * taken, "peak GiB": peak, "peak GiB with R1": peak_r1, **counts}
