"""``tools/evaluate.py --ablation``: every run of an ablation by one protocol, each once."""

import argparse
import copy
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from registry import UserError
from registry.wording import printable
from registry.wording import reason as said
from stylenat import checkpoint
from stylenat.commands._command import USER_ERROR, one_of_several
from stylenat.files import open_in_folder, read_bounded

DONE, DONE_BYTES = "evaluations.jsonl", 2**26
ASKED = (
    *("gin", "bind", "samples", "real_samples", "truncation_psi", "baselines", "number", "per_class", "average"),
    *("bootstrap", "plugin"),
)
"""Options that say what is measured. The others say with what: two commands that differ in them ask for the same."""


def evaluate_ablation(arguments: argparse.Namespace, evaluate: Callable[[argparse.Namespace], int]) -> int:
    """Evaluates the last checkpoint of each finished run, or that of ``--at``; the exit code.

    ``evaluations.jsonl`` in the ablation's folder records what is done, and the same command does not repeat it. A run
    that cannot be evaluated is reported, and the others continue.

    Args:
        evaluate: called with the options of one run, whose ``run`` is a checkpoint folder.

    Raises:
        UserError: no such ablation, or no run to evaluate.
    """
    folder = _folder(arguments.ablation)
    request, done = _request(arguments), _done(folder)
    there, without = _checkpoints(folder, arguments.at)
    if without:
        wanted = "is not finished" if arguments.at is None else f"has no checkpoint of iteration {arguments.at}"
        _say(f"note: {', '.join(without)} {wanted} and is left out")
    if not there:
        raise UserError(
            f"no run of {folder} can be evaluated: train it first, or name a checkpoint with --at ITERATION"
        )
    failed: list[int] = []
    for name, path in there.items():
        key = [name, checkpoint.step_of(path), request]
        if key in done:
            _say(f"{name}: evaluated already")
            continue
        _say(f"{name}: {path.name}")
        one = copy.copy(arguments)
        one.run, one.ablation = path, None
        try:
            evaluate(one)
        except UserError as error:
            _say(f"error: {name}: {error}")
            failed.append(USER_ERROR)
        except Exception as error:
            if one_of_several():  # The other processes wait for this one.
                raise
            traceback.print_exc()
            _say(f"error: {name}: {said(error)}")
            failed.append(1)
        else:
            _record(folder, key)
    if failed:
        _say(f"{len(failed)} of {len(there)} runs could not be evaluated")
    return max(failed, key=lambda code: code == 1, default=0)


def _folder(name: str) -> Path:
    """Of the ablation called so, or at that path."""
    from stylenat.ablation.plan import MANIFEST

    for folder in (Path("runs") / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    raise UserError(f"there is no ablation {name!r}: neither runs/{name} nor {name} has an {MANIFEST}")


def _checkpoints(folder: Path, at: int | None) -> tuple[dict[str, Path], list[str]]:
    """The checkpoint to evaluate by run, and the runs without one."""
    from stylenat.ablation.plan import manifest

    there: dict[str, Path] = {}
    for name in manifest(folder)["runs"]:
        found = {checkpoint.step_of(path): path for path in checkpoint.found(folder / name / "checkpoints")}
        step = _iterations(folder / name) if at is None else at
        if step in found:
            there[name] = found[step]
    return there, [name for name in manifest(folder)["runs"] if name not in there]


def _iterations(run: Path) -> int | None:
    """That the run should have, of its config; None where it has not begun. Raises UserError for a damaged config."""
    from registry import gintext
    from stylenat.training.run import CONFIG_BYTES

    try:
        text = read_bounded(run / "config.gin", CONFIG_BYTES).decode()
    except (OSError, ValueError):
        return None
    bound = gintext.read_text(text, str(run / "config.gin"))
    values = [s.value for s in bound if (s.selector.rpartition(".")[2], s.parameter) == ("train", "iterations")]
    return values[-1] if values and isinstance(values[-1], int) else None


def _request(arguments: argparse.Namespace) -> str:
    """A checksum of what is measured; gin files count by their text."""
    asked = {name: getattr(arguments, name) for name in ASKED}
    asked["data"] = None if arguments.data is None else str(arguments.data.resolve())
    asked["texts"] = [hashlib.sha256(p.read_bytes()).hexdigest() for p in map(Path, arguments.gin) if p.is_file()]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _done(folder: Path) -> list[list[object]]:
    try:
        lines = read_bounded(folder / DONE, DONE_BYTES).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / DONE}: {getattr(error, 'strerror', None) or error}") from error
    found = []
    for line in lines:
        try:
            record = json.loads(line)
            found.append([record["run"], record["step"], record["request"]])
        except (ValueError, KeyError, TypeError, RecursionError):  # Incomplete since a crash.
            continue
    return found


def _record(folder: Path, key: list[object]) -> None:
    from stylenat.ranks import rank

    if rank():
        return
    line = json.dumps(dict(zip(("run", "step", "request"), key, strict=True))) + "\n"
    with open(open_in_folder(folder / DONE, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8") as file:
        file.write(line)


def _say(line: str) -> None:
    from stylenat.ranks import rank

    if rank() == 0:
        print(printable(line), file=sys.stderr)
