"""``python -m stylenat.gpu_checks NAME DEVICE FILE``: one check in this process, each row a JSON line of FILE.

The first line is the device's name."""

import json
import math
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from stylenat.gpu_checks import CHECKS


def main(name: str, device: str, path: str) -> None:
    """Appends each row as soon as it is there: what runs out of time keeps its first ones."""
    import torch

    if device == "cpu":
        torch.set_num_threads(1)
    module = import_module(f"stylenat.gpu_checks.{CHECKS[name].module}")
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(torch.cuda.get_device_name() if device == "cuda" else "CPU") + "\n")
        file.flush()
        for row in module.rows(torch.device(device)):
            # JSON has no numbers that are not finite.
            values = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.values.items()}
            file.write(json.dumps(asdict(row) | {"values": values}, allow_nan=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
