"""One run: what trackers and plugins are told about it, and the folder that it owns."""

import errno
import fcntl
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from registry import AttentionSite, HeadGroup, UserError
from stylenat.files import partial, whole_file

FORMAT_VERSION = 1
PREEMPTED = "PREEMPTED"


@dataclass
class Run:
    """What the lifecycle hooks are given.

    Attributes:
        name: of the run, its folder's name.
        experiment: of the experiment, the gin file's stem.
        directory: the run folder.
        iterations, batch_size: planned iterations; images an iteration over all processes.
        config_text: the operative gin config; hparams: the same as nested plain values.
        environment: versions, git revision, command line, plugin versions, seed.
        neighborhoods: the head groups of each attention layer of the generator, with its site.
        step, images: iterations done, and the real images seen in them over all processes.
        resumed: whether this process continues an earlier one.
    """

    name: str
    experiment: str
    directory: Path
    iterations: int
    batch_size: int
    config_text: str
    hparams: dict[str, Any]
    environment: dict[str, Any]
    step: int = 0
    images: int = 0
    resumed: bool = False
    neighborhoods: Sequence[tuple[AttentionSite, Sequence[HeadGroup]]] = ()
    notes: dict[str, Any] = field(default_factory=dict)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def environment(seed: int, plugins: dict[str, str]) -> dict[str, Any]:
    """What a result depends on beside its config: versions, revision, command line, plugins, seed."""
    packages = ["stylenat", "torch", "natten", "gin-config", "kornia", "numpy"]
    installed = {d.metadata["Name"].lower(): d.version for d in metadata.distributions() if d.metadata["Name"]}
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "format_version": FORMAT_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: installed.get(name) for name in packages},
        "git": git.stdout.strip() or None,
        "command": sys.argv,
        "plugins": plugins,
        "seed": seed,
    }


def recognise(directory: Path, differences: Callable[[str], list[str]], with_changes: bool = False) -> list[str] | None:
    """Whether the folder is a run's already; nothing is written.

    Args:
        differences: called with the folder's config text; returns lines that say what differs.
        with_changes: the user wants to go on there although the experiment differs.

    Returns:
        What differs, none for this very experiment; None where there is no run yet.

    Raises:
        UserError: the folder belongs to another experiment, or to no run at all.
    """
    config = directory / "config.gin"
    if config.exists():
        try:
            lines = differences(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{config} cannot be read ({error}); choose another --run-dir") from error
        if lines and not with_changes:
            shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
            raise UserError(
                f"{directory} holds another experiment ({shown}); choose another --run-dir, or go on in this one with "
                "--resume-with-changes (--resume CHECKPOINT goes on from there in a folder of its own)"
            )
        return lines
    # A process that was killed as it began leaves an empty folder, or the beginning of a config.
    begun = {partial(config)}
    if directory.exists() and (not directory.is_dir() or set(directory.iterdir()) - begun):
        raise UserError(f"{directory} exists and is not a run folder; choose another --run-dir")
    return None


def record_changes(directory: Path, config_text: str, step: int, lines: list[str]) -> None:
    """Makes ``config.gin`` the config in use from ``step`` on.

    The one before stays as ``config-to-step-...gin``, and ``changes.jsonl`` gets a line with what differs.
    """
    config, changes = directory / "config.gin", directory / "changes.jsonl"
    earlier = directory / f"config-to-step-{step:09d}.gin"
    try:
        if not earlier.exists():  # Changed again before an iteration was made, the first is the one that trained.
            write_text(earlier, config.read_text(encoding="utf-8"))
        before = changes.read_text(encoding="utf-8") if changes.exists() else ""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(changes, before + json.dumps({"step": step, "time": time, "changes": lines}) + "\n")
        write_text(config, config_text)
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror}") from error


@contextmanager
def only_process(directory: Path) -> Iterator[None]:
    """Keeps a second process from training in the same folder.

    Raises UserError when one is at it. The lock goes with its process, however that ends: forked loader processes,
    which outlive a killed parent for seconds, do not inherit this kind.
    """
    with open(directory / ".lock", "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(f"another process is training in {directory}; wait for it or stop it") from None
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # No locks on this file system.
                raise
        yield


def mark_preempted(directory: Path, step: int) -> None:
    """Leaves word that the run was stopped on request and can go on, for schedulers that see no exit code of ours."""
    write_text(directory / PREEMPTED, f"stopped on request after iteration {step}; the same command goes on\n")


def make_folder(directory: Path, config_text: str | None) -> None:
    """Completes a run's folder; a new one begins with its config, without which it is no run's.

    Args:
        config_text: of a new run; None for one that has its config.

    Raises:
        UserError: it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if config_text is not None:
            write_text(directory / "config.gin", config_text)
        for name in ("checkpoints", "samples"):
            (directory / name).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the run folder {directory}: {error.strerror}") from error


def write_environment(directory: Path, values: dict[str, Any]) -> None:
    write_text(directory / "environment.json", json.dumps(values, indent=2) + "\n")
