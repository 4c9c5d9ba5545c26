"""One run: what trackers and plugins are told about it, and the folder that it owns."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from registry import UserError
from stylenat.files import whole_file

FORMAT_VERSION = 1


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
        step: iterations done; resumed: whether this process continues an earlier one.
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
    resumed: bool = False
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


def recognise(directory: Path, differences: Callable[[str], list[str]]) -> bool:
    """Whether the folder is this experiment's own already; nothing is written.

    Args:
        differences: called with the folder's config text; returns lines that say what differs.

    Raises:
        UserError: the folder belongs to another experiment, or to no run at all.
    """
    config = directory / "config.gin"
    if config.exists():
        try:
            lines = differences(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{config} cannot be read ({error}); choose another --run-dir") from error
        if lines:
            raise UserError(
                f"{directory} holds another experiment ({'; '.join(lines[:5])}); choose another --run-dir "
                "(with --resume CHECKPOINT it goes on from there under the new settings)"
            )
        return True
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is not a run folder; choose another --run-dir")
    return False


def make_folder(directory: Path, config_text: str) -> None:
    """A new run's folder with its config. Raises UserError when it cannot be written."""
    try:
        (directory / "checkpoints").mkdir(parents=True)
        (directory / "samples").mkdir()
        write_text(directory / "config.gin", config_text)
    except OSError as error:
        raise UserError(f"cannot write the run folder {directory}: {error.strerror}") from error


def write_environment(directory: Path, values: dict[str, Any]) -> None:
    write_text(directory / "environment.json", json.dumps(values, indent=2) + "\n")
