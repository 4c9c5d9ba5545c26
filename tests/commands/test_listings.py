"""``--dry-run``, ``--list``, ``--explain``: what can be known of an experiment before it starts."""

import pytest

from stylenat.commands.run import main


@pytest.mark.parametrize(
    "experiment, generator, discriminator",
    [("ffhq256", "48,921,000", "26,211,585"), ("ffhq1024", "49,452,934", "27,736,641")],
)
def test_a_dry_run_counts_the_published_networks(experiment, generator, discriminator, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--gin", f"{experiment}.gin", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert generator in out and discriminator in out and f"data/{experiment}.lmdb" in out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_every_group_and_its_reach(capsys):
    assert main(["--gin", "quickstart.gin", "--dry-run"]) == 0
    out = capsys.readouterr().out
    # 1 of 2 heads at dilation 2: a window of (7 - 1) x 2 + 1 = 13 of 16 pixels.
    assert "1 x k7 d1 (19.1%)  1 x k7 d2 (66%)" in out


def test_an_experiment_without_its_data_says_how_to_make_them(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--gin", "ffhq256.gin", "--bind", "generator.style.channel_multiplier = 1"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "tools/prepare.py" in line and "--resolution 256" in line
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_every_kind_with_its_parameters(capsys):
    assert main(["--list"]) == 0
    everything = capsys.readouterr().out
    assert main(["--list", "partition"]) == 0
    partitions = capsys.readouterr().out
    assert "partition.pyramid" in partitions and "partition.pyramid" in everything and "loss.hinge" in everything
    assert "kernel_size: int (at least 1) = 7" in partitions and "loss.hinge" not in partitions
    assert main(["--list", "partitions"]) == 2
    assert "partition" in capsys.readouterr().err


def test_a_name_is_explained_with_types_and_defaults(capsys):
    assert main(["--explain", "regularizer.r1"]) == 0
    out = capsys.readouterr().out
    assert "regularizer.r1.gamma" in out and "float" in out
    assert main(["--explain", "regularizer.r2"]) == 2
    assert "r1" in capsys.readouterr().err
