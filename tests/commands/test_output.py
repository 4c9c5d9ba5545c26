"""Mistakes in a command line are one line; a reader that leaves early ends nothing."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from stylenat.commands.main import COMMANDS
from stylenat.commands.main import main as console

ROOT = Path(__file__).parents[2]


def to_a_reader_that_left(code, *arguments, streams=("stdout",), cwd=None):
    """Runs the code with pipes of which nobody reads; the exit code and the other stream's text."""
    read, write = os.pipe()
    os.close(read)
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | dict.fromkeys(streams, write)
    done = subprocess.run([sys.executable, "-c", code, *arguments], **outputs, text=True, cwd=cwd or ROOT)
    os.close(write)
    return done.returncode, done.stderr


def test_help_ends_silently_when_its_reader_has_left():
    code = f"""
from contextlib import suppress
from importlib import import_module
for command in {list(COMMANDS)}:
    with suppress(SystemExit):
        import_module(f"stylenat.commands.{{command}}").main(["--help"])
"""
    assert to_a_reader_that_left(code) == (0, "")


def test_a_command_finishes_its_work_when_its_reader_has_left(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / f"{i}.png")
    arguments = [str(tmp_path / "in"), str(tmp_path / "out.lmdb"), "--resolution", "8", "--workers", "1"]
    code = f"import sys; from stylenat.commands.prepare import main; sys.exit(main({arguments}))"
    exit_code, _ = to_a_reader_that_left(code, streams=("stdout", "stderr"))
    assert exit_code == 0 and (tmp_path / "out.lmdb" / "data.mdb").exists()


def test_a_long_table_ends_silently_too():
    code = "import sys; from stylenat.commands.run import main; sys.exit(main(['--list']))"
    assert to_a_reader_that_left(code) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["runs"], []])
def test_the_console_script_survives_its_reader_too(arguments, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    code = f"import sys; from stylenat.commands.main import main; sys.exit(main({arguments}))"
    exit_code, _ = to_a_reader_that_left(code, streams=("stdout", "stderr"))
    assert exit_code == (0 if arguments == ["--help"] else 2)


def test_text_and_files_are_written_as_before(tmp_path):
    code = "import sys; from stylenat.commands.main import main; main(['--help']); print('\\udcff\\u00e9')"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    with open(tmp_path / "out", "wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, cwd=ROOT, check=True)
    assert piped.stdout == (tmp_path / "out").read_bytes() and piped.stdout.startswith(b"usage: stylenat COMMAND")
    assert piped.stdout.splitlines()[-1] == "\\udcffé".encode()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line_with_what_to_do(command, capsys):
    assert import_module(f"stylenat.commands.{command}").main(["--halp\x1b[31m", "a", "b", "c"]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == "" and line.startswith("error: ") and "\x1b" not in line
    assert f"`python tools/{command}.py --help`" in line


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["prepare"], "the following arguments are required: SOURCE, OUT.lmdb, --resolution"),
        (["prepare", "a", "b", "--resolution", "x"], "argument --resolution: invalid int value: 'x'"),
        (["prepare", "a", "b", "--resolution", "8", "--fit", "squash"], "argument --fit: invalid choice: 'squash'"),
        (["run", "--gni", "a.gin"], "unknown argument --gni a.gin; did you mean '--gin'?"),
        (["run", "--max-hour=x"], "argument --max-hours: invalid float value: 'x'"),
        (["sample", "run", "--seeds"], "argument --seeds: expected one argument"),
        (["sampel"], "there is no command sampel; did you mean 'sample'?"),
    ],
)
def test_what_does_not_fit_is_named(arguments, said, capsys):
    assert console(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
