"""The plugins of one command: the installed ones, those named with ``--plugin``, and those that a run was made with.

A run folder may come from someone else. A plugin file that it names is loaded only if this user has run that very file
before, or names it now.
"""

import hashlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from registry import PluginFile, Registry, UserError, load_plugins
from stylenat.commands._command import ASIDE, CORE
from stylenat.commands._remembered import remember, remembered
from stylenat.commands._torch_settings import torch_settings
from stylenat.files import read_bounded
from stylenat.training.run import recorded_plugins

PLUGIN_BYTES = 2**24


def loaded_plugins(
    given: Sequence[str], runs: Iterable[Path] = (), prog: str = "", argv: Sequence[str] | None = None
) -> Registry:
    """Loads the plugins and remembers the files among them.

    Args:
        given: with ``--plugin``.
        runs: folders with an ``environment.json`` whose plugins are needed too; others are passed over.
        prog, argv: the command, to print it with what it lacks.

    Raises:
        UserError: a plugin does not load; or a run needs one that is not installed, not named and not known.
    """
    needed: dict[str, PluginFile] = {}
    for run in runs:
        needed |= {_module(file.name): file for file in _needed(run, given, prog, argv)}
    registry = load_plugins([*given, *needed.values()], core=CORE, aside=ASIDE, watched=torch_settings)
    remember(registry.plugin_files)
    return registry


def _needed(run: Path, given: Sequence[str], prog: str, argv: Sequence[str] | None) -> list[PluginFile]:
    """What to load for a run beside what is given. Raises UserError where the user has to decide."""
    distributions, files = recorded_plugins(run)
    for name, version in distributions.items():
        try:
            metadata.distribution(name)
        except (metadata.PackageNotFoundError, ValueError):
            command = shlex.join([f"tools/{prog}.py", *(sys.argv[1:] if argv is None else argv)])
            raise UserError(
                f"{run} uses the plugin distribution {name} {version}, which is not installed; install it, or load its "
                f"module or file: python {command} --plugin MODULE_OR_FILE.py"
            ) from None
    modules, known = {_module(name) for name in given}, set(remembered())
    found, unknown = [], []
    for file in files:
        if _module(file.name) in modules:
            continue
        # A module in a package would run the package's own code unchecked.
        if file.argument == file.path and (file.path, file.sha256) in known and _digest(file.path) == file.sha256:
            found.append(file)
        else:
            unknown.append(file)
    if unknown:
        command = [f"tools/{prog}.py", *(sys.argv[1:] if argv is None else argv)]
        options = " ".join(f"--plugin {shlex.quote(file.argument)}" for file in unknown)
        reasons = ", ".join(f"{file.argument} ({_why(file)})" for file in unknown)
        raise UserError(
            f"{run} was made with --plugin {reasons}; a plugin runs code, so it is loaded when you name it: "
            f"python {shlex.join(command)} {options}"
        )
    return found


def _module(name: str) -> str:
    return Path(name).stem if name.endswith(".py") else name


def _why(file: PluginFile) -> str:
    if not file.sha256:
        return "its file is not recorded"
    digest = _digest(file.path)
    if digest is None:
        return f"not at {file.path} now"
    return "not run by you before" if digest == file.sha256 else "changed since"


def _digest(path: str) -> str | None:
    try:
        return hashlib.sha256(read_bounded(Path(path), PLUGIN_BYTES)).hexdigest()
    except (OSError, ValueError):
        return None
