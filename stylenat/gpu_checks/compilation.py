"""Check ``compilation``: the FFHQ-256 iteration with compiled networks, and with CUDA graphs of them."""

from collections.abc import Iterator

import torch

from stylenat.gpu_checks import Row
from stylenat.gpu_checks.measure import attempt
from stylenat.gpu_checks.training import measured

CASES: tuple[tuple[str, ...], ...] = (
    ("train.compile = 'inductor'",),
    ("train.compile = 'inductor'", "train.cuda_graphs = True"),
)
BATCH = 8


def rows(device: torch.device) -> Iterator[Row]:
    """One row a setting, in TF32. ``training`` has the same without compiling."""
    for bindings in CASES if device.type == "cuda" else (("train.compile = 'aot_eager'",),):
        title = ", ".join([f"batch {BATCH}", *(text.removeprefix("train.") for text in bindings)])
        yield attempt(title, lambda bindings=bindings: measured(BATCH, ["train.tf32 = True", *bindings], device))
