"""Check ``sampling``: images a second of the FFHQ-256 generator. No truncation, random weights, images stay there."""

from collections.abc import Iterator

import torch

from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.experiments import ffhq256
from stylenat.gpu_checks.measure import attempt, peak_gib, precision, seconds


def rows(device: torch.device) -> Iterator[Row]:
    """One row a precision and batch."""
    generator = ffhq256(device).value("train.generator")().eval().to(device)
    batches = (32, 1, 8, 64, 2, 4, 16) if device.type == "cuda" else (1, 2)

    def measured(name: str, batch: int) -> dict[str, Value]:
        latents = torch.randn(batch, generator.latent_dim, device=device)
        with torch.no_grad(), precision(name, device):
            taken = seconds(lambda: generator(latents), device, repeats=5)
            return {"images/s": batch / taken, "peak GiB": peak_gib(lambda: generator(latents), device)}

    for batch in batches:
        for name in ("TF32", "bf16", "float32"):
            yield attempt(f"batch {batch}, {name}", lambda name=name, batch=batch: measured(name, batch))
