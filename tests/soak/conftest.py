"""Processes to kill, and disks to fill."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KILLS = int(os.environ.get("STYLENAT_SOAK_KILLS", "3"))
"""Of each test; the long form takes 30."""


@pytest.fixture
def kills() -> int:
    return KILLS


class Forge:
    """Starts commands through ``forge.py``."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command: str, arguments: list[str], **how: Any) -> dict[str, Any]:
        request = {"command": command, "arguments": arguments, "log": str(self.log), "folder": os.getcwd(), **how}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def said(self) -> str:
        """All that was printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="session")
def forge(tmp_path_factory) -> Iterator[Forge]:
    forge = Forge(tmp_path_factory.mktemp("forge") / "log.txt")
    yield forge
    forge.close()


class Disk:
    """A small disk of its own, or where none can be mounted a folder whose processes may write no long files.

    Attributes:
        folder: where to work.
    """

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder, self.mounted = folder, mounted
        self._ballast = folder / "ballast"

    def fill(self) -> dict[str, Any]:
        """What to tell the forge of a process that shall find the disk full."""
        if not self.mounted:
            return {"file_bytes": 100_000}
        with open(self._ballast, "ab", buffering=0) as file:
            for size in (2**20, 2**12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        return {}

    def relieve(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        print("no small disk can be mounted here: files may not grow instead")
    yield Disk(folder, mounted)
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def survived(capsys, request) -> Iterator[Counter]:
    """How often a process was ended in which way; printed at the end."""
    counts: Counter = Counter()
    yield counts
    with capsys.disabled():
        print(f"\n{request.node.name}: {dict(sorted(counts.items()))}")
