"""``tools/attention_maps.py`` and ``tracker.attention``: maps and statistics of a generator's layers."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from weights_folders import weights_folder

import stylenat
from plugins.trackers.attention import AttentionStatistics
from registry import UserError
from stylenat.commands.attention_maps import main as attention_maps
from stylenat.commands.run import main as run
from stylenat.testing import check_tracker
from stylenat.training.run import Run

SWIN = ["generator.style.block = @block.swin", "block.swin.window = 4"]
FULL = ["generator.style.block = @block.attention", "block.attention.full_resolution = 8", "block.attention.window = 4"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("gin", "bindings", "groups"),
    [
        ("quickstart.gin", (), ["full", "k7 d1", "k7 d1", "k7 d2"]),
        ("quickstart.gin", SWIN, ["full", "w4 s0", "w4 s2"]),
        ("quickstart.gin", FULL, ["full", "w4 s0", "w4 s2"]),
        ("hit_quickstart.gin", (), ["4x4 blocks", "stride 4"]),
    ],
    ids=["neighborhood", "shifted windows", "full", "multi-axis"],
)
def test_every_group_has_a_row_and_a_map(gin, bindings, groups, here):
    weights_folder(Path("model"), gin, *bindings)
    argv = ["model", "--seeds", "3", "--query", "5,9", "--overlays"]
    assert attention_maps([*argv, "--out", "one"]) == 0
    assert attention_maps([*argv, "--out", "two"]) == 0
    rows = json.loads(Path("one/attention.json").read_text())
    assert {row["group"] for row in rows} == set(groups)
    assert [row["side"] for row in rows] == sorted(row["side"] for row in rows)
    assert all(0 < row["distance"] < row["side"] and 0 < row["entropy"] for row in rows)
    heads = sum(len(row["heads"]) for row in rows)
    overlays = sorted(Path("one").glob("seed-000003-layer*-head*.png"))
    assert len(overlays) == heads and Path("one/seed-000003.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(overlays[0]).size == (256, 256)
    for path in Path("one").iterdir():
        assert path.read_bytes() == Path("two", path.name).read_bytes(), path
    model = stylenat.load("model")
    before = model.sample(3)
    assert torch.equal(before, stylenat.load("model").sample(3))


def test_bad_input_is_one_line(here, capsys):
    weights_folder(Path("model"))
    weights_folder(Path("r3gan"), "r3gan_quickstart.gin")
    for argv, message in [
        (["model", "--query", "16,0"], "--query takes a pixel X,Y, each 0 to 15"),
        (["model", "--query", "middle"], "--query takes a pixel"),
        (["model", "--query", "1,1", "--mean"], "contradict each other"),
        (["model", "--seeds", "x"], "--seeds takes numbers"),
        (["r3gan"], "R3Generator has no attention layer that shows its maps"),
    ]:
        assert attention_maps([*argv, "--out", "out"]) == 2
        assert message in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_tracker_adds_scalars_of_the_average_and_leaves_the_run_as_it_is(tmp_path):
    model = stylenat.load(weights_folder(tmp_path / "model")).generator
    tracker = AttentionStatistics(every=2)
    made = Run("run", "run", tmp_path, 4, 4, "", {}, {}, networks={"ema": model})
    state = torch.get_rng_state()
    tracker.run_started(run=made)
    scalars = {"loss/generator": torch.tensor(1.0)}
    tracker.step_ended(run=made, step=1, scalars=scalars)
    assert list(scalars) == ["loss/generator"]
    tracker.step_ended(run=made, step=2, scalars=scalars)
    assert len(scalars) == 1 + 2 * 8 and scalars["attention/16x16 layer 4/1 k7 d2/entropy"] > 0
    assert torch.equal(torch.get_rng_state(), state)
    again = {}
    tracker.step_ended(run=made, step=4, scalars=again)
    assert all(scalars[name] == value for name, value in again.items())
    check_tracker(AttentionStatistics(), tmp_path / "checked")
    r3gan = stylenat.load(weights_folder(tmp_path / "r3gan", "r3gan_quickstart.gin")).generator
    with pytest.raises(UserError, match="leave @tracker.attention"):
        tracker.run_started(run=Run("run", "run", tmp_path, 4, 4, "", {}, {}, networks={"ema": r3gan}))


def test_a_run_with_the_tracker_trains_to_the_same_weights(tiny, everything):
    assert run([*tiny, "--run-dir", "plain"]) == 0
    trackers = "train.trackers = [@tracker.jsonl(), @tracker.attention()]"
    assert run([*tiny, "--bind", trackers, "--bind", "tracker.attention.every = 1", "--run-dir", "tracked"]) == 0
    plain, tracked = everything(Path("plain")), everything(Path("tracked"))
    assert plain["networks"] == tracked["networks"] and plain["metrics"] == tracked["metrics"]
