"""Check ``quickstart``: a shortened run of gin/quickstart.gin, from its data to its metrics."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from registry import UserError
from stylenat.commands.run import main as run
from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.experiments import quickstart_arguments
from stylenat.gpu_checks.measure import attempt


def rows(device: torch.device) -> Iterator[Row]:
    """One row: iterations a second with start, sampling and evaluation, and the metrics at the end."""
    yield attempt("quickstart", lambda: _measured(device))


def _measured(device: torch.device) -> dict[str, Value]:
    iterations = 200 if device.type == "cuda" else 2
    few: dict[str, Value] = {"evaluation_samples": 256} if device.type == "cuda" else {"batch_size": 4}
    began = time.perf_counter()
    finished(run([*quickstart_arguments(device, iterations=iterations, **few), "--run-dir", "quickstart"]))
    taken = time.perf_counter() - began
    last = json.loads(Path("quickstart/metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {"iterations": iterations, "seconds": taken, **last["metrics"]}


def finished(code: int) -> None:
    """Raises UserError for an exit code of ``run`` that is not 0."""
    if code:
        raise UserError(f"the run ended with exit code {code}; its messages are in the log")
