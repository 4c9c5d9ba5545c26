"""The scripts in ``tools/`` and the console script: thin, quick to answer, usable from any folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from stylenat.commands.main import COMMANDS
from stylenat.commands.main import main as console

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))


def test_there_is_a_tool_for_every_command():
    assert {path.stem for path in TOOLS} == set(COMMANDS)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_help_shows_examples_without_torch_or_aim(tool, tmp_path):
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'aim', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tool)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout


def test_the_console_script_runs_the_same_commands(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert console(["run", "--gin", "quickstart.gin", "--dry-run"]) == 0
    assert "quickstart at 16x16" in capsys.readouterr().out
    assert console(["--help"]) == 0
    assert console([]) == 2
    assert console(["runs"]) == 2
    assert "run" in capsys.readouterr().err
