"""Whether the processes of one run were started alike: same experiment, code, plugins and data on every machine.

Processes that differ would train on without an error and give a result that no config describes, or wait for each
other.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from registry import Experiment, PluginFile, UserError
from stylenat import ranks
from stylenat.training.run import versions

PACKAGES = ("registry", "stylenat", "plugins")
SHOWN, ABSENT = 5, "not in use"
SEEN_WITHIN, BETWEEN = 20.0, 0.2
"""Seconds until a file that one machine made must be seen on another, and between two looks."""


def must_agree(facts: Mapping[str, str]) -> None:
    """Compares the facts of all processes; returns in all of them or in none.

    Raises:
        UserError: in every process alike, naming the first process that differs from process 0.
    """
    first, *others = (json.loads(text) for text in ranks.gathered_text(json.dumps(dict(facts))))
    for number, other in enumerate(others, start=1):
        names = [name for name in sorted(first | other) if first.get(name) != other.get(name)]
        if names:
            lines = [f"{n}: {other.get(n, ABSENT)} there, {first.get(n, ABSENT)} in process 0" for n in names]
            more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
            raise UserError(
                f"process {number} of this run was started differently: {'; '.join(lines[:SHOWN])}{more}; give every "
                "process the same gin files, plugins, data and versions"
            )


def facts_of(experiment: Experiment, plugins: Sequence[PluginFile]) -> dict[str, str]:
    """What has to be the same in every process, by a name that a user knows."""
    return (
        experiment.settings()
        | {f"version of {name}": str(version) for name, version in versions().items()}
        | {f"version of {name}": version for name, version in experiment.plugins.items()}
        | {f"plugin {file.name}": file.sha256[:12] for file in plugins}
        | {"source code of stylenat": code_digest()[:12]}
    )


def must_share(directory: Path) -> None:
    """Whether all machines see the same run folder; nothing is left behind. One machine always does.

    Process 0 writes an empty file where the folder is, or the deepest folder above that is there; the others look.

    Raises:
        UserError: in every process alike, where a machine has a folder of that name of its own, or none; in process 0
            where nothing can be written.
    """
    if (size := ranks.world_size()) == 1 or size == int(os.environ["LOCAL_WORLD_SIZE"]):
        return
    above = [directory.absolute(), *directory.absolute().parents]
    level = next(number for number, folder in enumerate(above) if folder.is_dir())
    level, host, name = json.loads(ranks.as_first(json.dumps([level, socket.gethostname(), f".seen-{uuid4().hex}"])))
    path = above[level] / name if level < len(above) else None
    try:
        if ranks.rank() == 0 and path is not None:
            _touch(path)
        ranks.wait_for_all()
        deadline = time.monotonic() + SEEN_WITHIN
        while not (seen := path is not None and path.exists()) and time.monotonic() < deadline:
            time.sleep(BETWEEN)
        blind = ranks.gathered_text("" if seen else socket.gethostname())
    finally:
        if ranks.rank() == 0 and path is not None:
            path.unlink(missing_ok=True)
    ranks.wait_for_all()  # Nobody finds the file in the folder later.
    for number, where in enumerate(blind):
        if where:
            raise UserError(
                f"process {number} on {where} does not see the run folder of process 0 on {host}, {directory}; name a "
                "folder that all machines share with --run-dir, and give its whole path"
            )


def _touch(path: Path) -> None:
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}; choose another --run-dir") from error


def code_digest() -> str:
    """SHA-256 of this project's own source files, wherever they lie."""
    root, total = Path(__file__).parents[2], hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                total.update(f"{path.relative_to(root)} {path.stat().st_size}".encode())
                total.update(path.read_bytes())
    return total.hexdigest()
