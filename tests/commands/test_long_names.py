"""Paths whose names are longer than a file system takes."""

import pytest

from stylenat.commands import compare, export_weights, prepare, run, sample

LONG = "n" * 300


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (run, ["--explain", "partition.split", "--picture", f"{LONG}.png"]),
        (run, ["--gin", "quickstart.gin", "--run-dir", LONG]),
        (sample, [LONG, "--seeds", "0", "--out", "images"]),
        (compare, [LONG]),
        (export_weights, [LONG, "x.pt"]),
        (prepare, [LONG, "x.lmdb", "--resolution", "16"]),
    ],
)
def test_a_name_that_is_too_long_is_one_line(command, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "too long" in lines[0]
