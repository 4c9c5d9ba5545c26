"""One run: its description for trackers and plugins, and its folder."""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry import AttentionSite, HeadGroup, PluginFile, UserError
from stylenat.files import open_in_folder, partial, read_bounded, whole_file

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1
PREEMPTED = "PREEMPTED"
CONFIG_BYTES = 2**20
"""The longest ``config.gin`` of a run folder that is read; the paper's have 5,000 bytes."""
CHANGES_BYTES = 2**26
ENVIRONMENT, ENVIRONMENT_BYTES = "environment.json", 2**20
OPTION = "--plugin "
"""How the origin of a name begins in ``environment.json`` where it is not a distribution."""

PACKAGES = (
    "stylenat", "torch", "torchvision", "triton", "natten", "gin-config", "kornia", "numpy", "scipy", "pillow",
    "torch-fidelity",
)  # fmt: skip
"""Packages that a result depends on."""


@dataclass
class Run:
    """What the lifecycle hooks are given.

    Attributes:
        name: of the run, its folder's name.
        experiment: of the experiment, the gin file's stem.
        directory: the run folder.
        iterations, batch_size: planned iterations; images an iteration over all processes.
        config_text: the operative gin config; hparams: the same as nested plain values.
        environment: versions, git revision, machine, command line, plugin versions, seed.
        neighborhoods: the head groups of each attention layer of the generator, with its site.
        step, images: iterations done, and the real images seen in them over all processes.
        resumed: whether this process continues an earlier one.
        networks: generator, discriminator and averages by their names in checkpoints, uncompiled; for hooks to read,
            not to change. Empty where no training is at hand.
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
    networks: Mapping[str, "nn.Module"] = field(default_factory=dict, repr=False)
    notes: dict[str, Any] = field(default_factory=dict)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def versions() -> dict[str, str | None]:
    """Of the packages that a result depends on; None for one that is not installed."""
    # By name: to look through all that is installed takes a third of a second.
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment(seed: int, plugins: Mapping[str, str], files: Sequence[PluginFile]) -> dict[str, Any]:
    """What a result depends on beside its config: versions, revision, machine, processes, command line, plugins, seed.

    Args:
        plugins: version by distribution, of whatever is in use; files: plugins named with ``--plugin``.
    """
    from stylenat.ranks import world_size  # Here, since they import PyTorch.
    from stylenat.training.hardware import hardware

    return {
        "format_version": FORMAT_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        **revision(),
        "hardware": hardware(),
        "processes": world_size(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "plugins": dict(plugins),
        "plugin_files": [asdict(file) for file in files],
        "seed": seed,
    }


def revision(package: Path = Path(__file__).parents[1]) -> dict[str, str | None]:
    """``git`` (short, with ``-dirty``) and ``commit`` of a checkout; None for a package that was installed.

    A package that lies in someone else's checkout, as in a virtual environment there, has no revision of its own.
    """

    def said(*command: str) -> str:
        try:
            done = subprocess.run(["git", *command], cwd=package, capture_output=True, text=True, check=False)
        except FileNotFoundError:  # Git is not installed.
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    tracked = said("ls-files", "__init__.py")
    return {
        "git": said("describe", "--always", "--dirty") or None if tracked else None,
        "commit": said("rev-parse", "HEAD") or None if tracked else None,
    }


ELSEWHERE = "choose another --run-dir"
ONWARD = "continue in this one with --resume-with-changes (--resume CHECKPOINT continues from there in another folder)"


def recognise(
    directory: Path,
    differences: Callable[[str], list[str]],
    with_changes: bool = False,
    elsewhere: str = ELSEWHERE,
    onward: str = ONWARD,
) -> list[str] | None:
    """Whether the folder is a run's already; nothing is written.

    Args:
        differences: called with the folder's config text; returns lines that say what differs.
        with_changes: the user wants to go on there although the experiment differs.
        elsewhere, onward: how to get another folder, and how to go on in this one: advice for the errors.

    Returns:
        What differs, none for this very experiment; None where there is no run yet.

    Raises:
        UserError: the folder belongs to another experiment, or to no run at all.
    """
    config = directory / "config.gin"
    if config.exists():
        try:
            lines = differences(read_bounded(config, CONFIG_BYTES).decode())
        except (OSError, ValueError) as error:
            raise UserError(f"{config} cannot be read ({error}); {elsewhere}") from error
        if lines and not with_changes:
            shown = "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
            raise UserError(f"{directory} holds another experiment ({shown}); {elsewhere}, or {onward}")
        return lines
    # A process that was killed as it began leaves an empty folder, or the beginning of a config.
    begun = {partial(config)}
    if directory.exists() and (not directory.is_dir() or set(directory.iterdir()) - begun):
        raise UserError(f"{directory} exists and is not a run folder; {elsewhere}")
    return None


def record_changes(directory: Path, config_text: str, step: int, lines: list[str]) -> None:
    """Makes ``config.gin`` the config in use from ``step`` on, and adds a line to ``changes.jsonl`` with what differs.

    A config that differs from the new one stays as ``config-to-step-...gin``.
    """
    config, changes = directory / "config.gin", directory / "changes.jsonl"
    earlier = directory / f"config-to-step-{step:09d}.gin"
    try:
        config_before = read_bounded(config, CONFIG_BYTES).decode()
        # Changed again before an iteration was made, the first is the one that trained.
        if config_before != config_text and not earlier.exists():
            write_text(earlier, config_before)
        before = read_bounded(changes, CHANGES_BYTES).decode() if changes.exists() else ""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        write_text(changes, before + json.dumps({"step": step, "time": time, "changes": lines}) + "\n")
        write_text(config, config_text)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {directory}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def only_process(directory: Path) -> Iterator[None]:
    """Keeps a second process from training in the same folder.

    Raises UserError when another one does. The lock goes with its process, however that ends: forked loader processes,
    which outlive a killed parent for seconds, do not inherit this kind.
    """
    with open(open_in_folder(directory / ".lock", os.O_RDWR), "r+b") as file:
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
    write_text(directory / PREEMPTED, f"stopped on request after iteration {step}; the same command continues\n")


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
        for folder in (directory / "checkpoints", directory / "samples"):
            if folder.exists() and not folder.is_dir():
                raise UserError(f"{folder} is not a folder; move it away and run the same command again")
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise UserError(
                    f"{folder} is a link, so nothing is written through it; make it a folder, or link the run folder"
                )
    except OSError as error:
        raise UserError(f"cannot write the run folder {directory}: {error.strerror}") from error


def write_environment(directory: Path, values: dict[str, Any]) -> None:
    write_text(directory / ENVIRONMENT, json.dumps(values, indent=2) + "\n")


def record_plugins(directory: Path, files: Sequence[PluginFile]) -> None:
    """Replaces the files of ``--plugin`` in an ``environment.json`` that ``recorded_plugins`` could read."""
    held = json.loads(read_bounded(directory / ENVIRONMENT, ENVIRONMENT_BYTES))
    write_environment(directory, held | {"plugin_files": [asdict(file) for file in files]})


def recorded_environment(directory: Path) -> dict[str, Any]:
    """A run's ``environment.json``, of any version; empty where there is none that can be read."""
    try:
        held = json.loads(read_bounded(directory / ENVIRONMENT, ENVIRONMENT_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def recorded_plugins(directory: Path) -> tuple[dict[str, str], list[PluginFile]]:
    """What a run's ``environment.json`` names: distributions with their versions, and files of ``--plugin``.

    Returns nothing for a folder without one. A run of before files were recorded names them without path and digest.

    Raises:
        UserError: the file cannot be read.
    """
    path = directory / ENVIRONMENT
    try:
        held = json.loads(read_bounded(path, ENVIRONMENT_BYTES))
        plugins = {str(name): str(version) for name, version in held.get("plugins", {}).items()}
        files = held.get("plugin_files")
        if files is None:
            files = [{"name": name.removeprefix(OPTION)} for name in plugins if name.startswith(OPTION)]
        named = [PluginFile(*(str(file.get(key, "")) for key in ("name", "path", "sha256"))) for file in files]
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); restore it, or remove it if the run needs no plugin"
        ) from error
    return {name: version for name, version in plugins.items() if not name.startswith(OPTION)}, named
