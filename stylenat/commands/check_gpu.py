"""``tools/check_gpu.py``: what works on this machine's GPU, how exact it is and how fast."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from registry import UserError
from registry.wording import did_you_mean, printable
from stylenat import __version__
from stylenat.commands._arguments import Parser
from stylenat.commands._command import command
from stylenat.files import whole_file
from stylenat.gpu_checks import CHECKS

if TYPE_CHECKING:
    from stylenat.gpu_checks.schedule import Outcome

EXAMPLES = """examples:
  python tools/check_gpu.py
  python tools/check_gpu.py --only exactness,sampling --seconds 200 --out h100.json
  python tools/check_gpu.py --list
  python tools/check_gpu.py --device cpu                  # tries the command, with small checks

Exit codes: 0 done, 1 an attention backend or the norm is inexact, 2 invalid input (such as no GPU), 75 interrupted.
"""
INEXACT = 1
FORMAT = 1
"""Of the JSON file."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="check_gpu",
        description="Check exactness, speed and memory on a GPU in less than ten minutes, important checks first.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--only", metavar="A,B", help="checks to run (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=540, metavar="N", help="time for all checks (default: %(default)g)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("check_gpu.json"), metavar="FILE.json", help="file for the results"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: small versions of all checks")
    parser.add_argument("--list", action="store_true", help="list the checks")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.list:
        for name, check in CHECKS.items():
            print(f"{name:<12}{check.seconds:>5.0f} s  {check.what}")
        return 0
    names = _chosen(arguments.only)
    if not (math.isfinite(arguments.seconds) and arguments.seconds > 0):
        raise UserError(f"--seconds must be positive and finite; got {arguments.seconds}")
    if arguments.device == "cuda":
        _must_have_a_gpu()
    _must_be_writable(arguments.out)

    from stylenat.gpu_checks.schedule import outcomes

    found: dict[str, Outcome] = {}
    try:
        for name, outcome in outcomes(names, arguments.device, arguments.seconds, _say):
            found[name] = outcome
            _write(arguments.out, arguments.device, found)
    finally:
        print(table(found))
        devices = sorted({outcome.device for outcome in found.values()} - {""})
        print(printable(f"on {', '.join(devices) or 'nothing'}; results in {arguments.out}"))
    inexact = any(row.exact is False for outcome in found.values() for row in outcome.rows)
    return INEXACT if inexact else 0


def table(found: Mapping[str, "Outcome"]) -> str:
    """A line for each row of each check, and one for each check that did not end by itself."""
    lines = []
    for name, outcome in found.items():
        lines += [(name, row.case, str(row)) for row in outcome.rows]
        if outcome.status != "done":
            lines.append((name, outcome.status, _last_line(outcome.log) if outcome.status == "failed" else ""))
    shown = [tuple(printable(cell, 400) for cell in line) for line in (("check", "case", "result"), *lines)]
    widths = [max(len(line[column]) for line in shown) for column in (0, 1)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in shown)


def _last_line(log: str) -> str:
    return next((line for line in reversed(log.splitlines()) if line.strip()), "")


def _chosen(only: str | None) -> list[str]:
    if only is None:
        return list(CHECKS)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in CHECKS:
            raise UserError(
                f"--only: there is no check {name!r}{did_you_mean(name, CHECKS)}; there are {', '.join(CHECKS)}"
            )
    if not wanted:
        raise UserError(f"--only names no check; there are {', '.join(CHECKS)}")
    return [name for name in CHECKS if name in wanted]


def _must_have_a_gpu() -> None:
    import torch

    from stylenat.devices import why_no_gpu

    if not torch.cuda.is_available():
        raise UserError(f"PyTorch sees no GPU: {why_no_gpu()}; --device cpu tries the command with small checks")


def _must_be_writable(path: Path) -> None:
    """Before the minutes that end with writing it; an earlier file stays until there are results."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: it is a folder, or its folder is not writable")


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _write(path: Path, device: str, found: Mapping[str, "Outcome"]) -> None:
    """Raises UserError where the file cannot be written."""
    content = {
        "format": FORMAT,
        "stylenat": __version__,
        "device": device,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "checks": {name: asdict(outcome) for name, outcome in found.items()},
    }
    try:
        with whole_file(path) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --out") from error
