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


SILENT = '''
from plugins.blocks.hydra import HydraBlock
from registry import AttentionSite, hookimpl
from torch import nn

class Silent(nn.Module):
    """A block without attention, and without a description."""
    def __init__(self, *, site: AttentionSite, style_dim: int):
        super().__init__()
        self.linear = nn.Linear(site.channels, site.channels)
    def forward(self, x, style):
        return x + self.linear(x)

class Speaking(Silent):
    """A block that says what it is."""
    def describe(self):
        return "[bold]a linear layer\x1b[31m"

@hookimpl
def stylenat_register(register):
    register("block", "silent", Silent)
    register("block", "speaking", Speaking)
'''


def test_a_dry_run_says_of_a_plugins_block_what_it_says_of_itself_or_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "silent.py").write_text(SILENT)
    shown = {}
    for name in ("silent", "speaking"):
        bind = ["--bind", f"generator.style.block = @block.{name}"]
        assert main(["--gin", "quickstart.gin", "--plugin", "silent.py", "--dry-run", *bind]) == 0
        shown[name] = capsys.readouterr().out
    assert "over all tokens" not in shown["silent"] + shown["speaking"]
    assert shown["speaking"].count("[bold]a linear layer\\x1b[31m") == 3 and "\x1b" not in shown["speaking"]


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("hydra", "2 heads over all tokens (100%)"),
        ("hydra", "1 x k7 d1 (19.1%)  1 x k7 d2 (66%)"),
        ("swin", "1 x window 8 (25%)  1 x window 8 shifted by 4"),
        ("attention", "2 heads over all tokens (100%)"),
        ("convolution", "modulated 3x3 convolution"),
    ],
)
def test_every_bundled_block_describes_itself(block, line, capsys):
    bind = ["--bind", f"generator.style.block = @block.{block}"]
    assert main(["--gin", "quickstart.gin", "--dry-run", *bind]) == 0
    assert line in capsys.readouterr().out


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
    assert main(["--explain", "regularizer.r3"]) == 2
    assert "r1" in capsys.readouterr().err
