"""What a command does not need it does not import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "aim", "numpy", "matplotlib", "kornia", "scipy", "natten", "lmdb", "PIL")


def imported(code: str, *arguments: str, cwd: Path = ROOT) -> tuple[set[str], str]:
    """The top-level modules that a fresh interpreter holds after the code, and what it printed."""
    report = "\nimport sys; print('MODULES', *sorted({m.split('.')[0] for m in sys.modules}))"
    command = [sys.executable, "-c", code + report, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=True)
    return set(done.stdout.rpartition("MODULES ")[2].split()), done.stdout


@pytest.mark.parametrize("tool", sorted(path.name for path in (ROOT / "tools").glob("*.py")))
def test_help_imports_nothing_heavy_and_has_examples(tool):
    code = f"""
import runpy, sys
sys.argv = [{tool!r}, "--help"]
sys.path.insert(0, "tools")
try:
    runpy.run_path("tools/{tool}", run_name="__main__")
except SystemExit as done:
    assert done.code == 0
"""
    modules, out = imported(code)
    assert not modules & set(HEAVY), modules & set(HEAVY)
    assert "examples:" in out


@pytest.mark.parametrize("arguments", [["--list", "partition"], ["--explain", "partition.split"]])
def test_asking_about_partitions_imports_no_torch(arguments):
    modules, out = imported(f"from stylenat.commands.run import main; assert main({arguments}) == 0")
    assert "partition.split" in out
    assert not modules & {"torch", "aim", "numpy", "matplotlib"}


def test_a_run_iterates_without_what_its_gin_file_does_not_use(tmp_path, tiny):
    arguments = [*tiny, "--bind", "train.metrics = []"]
    modules, _ = imported(f"from stylenat.commands.run import main; assert main({arguments}) == 0", cwd=tmp_path)
    assert "torch" in modules
    assert not modules & {"aim", "kornia", "natten", "torch_fidelity", "matplotlib"}
