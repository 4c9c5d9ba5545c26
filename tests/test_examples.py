"""The notebooks of examples/ run from top to bottom, without Jupyter: each cell in one namespace, as a kernel does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SHORT = {"ITERATIONS": 4, "SAMPLES": 16}
"""In place of the values of the cell tagged ``parameters``, papermill's convention."""

KERNEL = """
import json, sys
namespace = {"__name__": "__main__"}
for cell in json.load(sys.stdin):
    try:
        exec(compile(cell, "cell", "exec"), namespace)
    except BaseException:
        print(cell, file=sys.stderr)
        raise
"""


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def sources(path: Path) -> list[str]:
    """The code, with short values in place of the parameters'."""
    found = []
    for cell in cells(path):
        found.append("".join(cell["source"]))
        if "parameters" in cell["metadata"].get("tags", ()):
            defined: dict[str, object] = {}
            exec(found[-1], defined)
            found.append("\n".join(f"{name} = {value}" for name, value in SHORT.items() if name in defined))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in cells(path)) == 1
    # The quickstart takes two threads; one that waits for a core must not spin meanwhile.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        input=json.dumps(sources(path)),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("runs/*/checkpoints/step-*4"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_header_installs_where_the_package_is_missing_and_only_there(path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    header = "".join(cells(path)[0]["source"])
    assert header == "".join(cells(NOTEBOOKS[0])[0]["source"])
    exec(header, {})
    assert commands == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(header, names := {})
    assert commands == [[sys.executable, "-m", "pip", "install", "--quiet", names["SOURCE"]]]


def test_notebooks_are_kept_without_outputs():
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path)), path
