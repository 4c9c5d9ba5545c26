"""Whether the processes of one run were started alike: same experiment, code, plugins and data on every machine.

Processes that differ would train on without an error and give a result that no config describes, or wait for each
other.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry import Experiment, PluginFile, UserError
from stylenat import ranks
from stylenat.training.run import versions

PACKAGES = ("registry", "stylenat", "plugins")
SHOWN, ABSENT = 5, "not in use"


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


def code_digest() -> str:
    """SHA-256 of this project's own source files, wherever they lie."""
    root, total = Path(__file__).parents[2], hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                total.update(f"{path.relative_to(root)} {path.stat().st_size}".encode())
                total.update(path.read_bytes())
    return total.hexdigest()
