"""Check ``resume``: whether a run that goes on from a checkpoint ends with the bits of one that was not interrupted."""

from collections.abc import Iterator

import torch
from safetensors.torch import load_file

from stylenat.commands.run import main as run
from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.experiments import quickstart_arguments
from stylenat.gpu_checks.measure import attempt
from stylenat.gpu_checks.quickstart import finished


def rows(device: torch.device) -> Iterator[Row]:
    """One row for the continued run, one for the same run from the start again (it differs where kernels do)."""
    # Half of this is no multiple of 4, over which ADA averages.
    iterations = 60 if device.type == "cuda" else 4
    never = 10 * iterations
    arguments = [
        *quickstart_arguments(
            device,
            iterations=iterations,
            checkpoint_every=iterations // 2,
            sample_every=never,
            evaluate_every=never,
            evaluation_samples=16,
            batch_size=4,
        ),
        *("--bind", "train.metrics = []", "--bind", "augmentation.ada.initial_p = 0.3"),
    ]

    def compared(name: str, *more: str) -> dict[str, Value]:
        finished(run([*arguments, "--run-dir", name, *more]))
        nets = [load_file(f"{folder}/checkpoints/step-{iterations:09d}/ema.safetensors") for folder in ("whole", name)]
        differences = [float((a - nets[1][key]).abs().max()) for key, a in nets[0].items()]
        equal = all(torch.equal(a, nets[1][key]) for key, a in nets[0].items())
        return {"equal bits": equal, "largest difference of a weight": max(differences)}

    half = f"whole/checkpoints/step-{iterations // 2:09d}"
    yield attempt("uninterrupted", lambda: {"equal bits": compared("whole")["equal bits"]})
    yield attempt("continued from half", lambda: compared("continued", "--resume", half))
    yield attempt("from the start again", lambda: compared("again"))
