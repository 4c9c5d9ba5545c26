"""``tools/invert.py``: styles that draw a photo."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from weights_folders import weights_folder

import stylenat
from registry import UserError
from stylenat.commands.invert import main as invert
from stylenat.commands.sample import main as sample
from stylenat.inversion import invert as inverted
from stylenat.inversion import psnr


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights_folder(Path("model"))


def test_a_sample_comes_back_and_its_styles_draw_it(here):
    assert invert(["model", "--sample", "3", "--steps", "60", "--video", "gif", "--out", "out"]) == 0
    facts = json.loads(Path("out/inversion.json").read_text())
    assert facts["psnr_db"] > 30 and facts["loss"] == "pixels"
    target, found = (np.asarray(Image.open(f"out/{n}.png")) for n in ("target", "inverted"))
    assert np.array_equal(target, stylenat.load("model").sample(3)[0].permute(1, 2, 0).numpy())
    assert sample(["model", "--styles", "out/styles.npy", "--out", "drawn"]) == 0
    assert abs(np.asarray(Image.open("drawn/style-000000.png")).astype(int) - found).max() <= 1
    with Image.open("out/inversion.gif") as film:
        durations = []
        for i in range(film.n_frames):
            film.seek(i)
            durations.append(film.info["duration"])
    assert sum(durations) == 61 * 30  # Equal frames are one, shown longer.


@pytest.mark.parametrize("wide", [True, False])
def test_the_loss_falls_is_reproducible_and_takes_a_perceptual_term(here, wide):
    sampler = stylenat.load("model").opened.sampler(1.0)
    target = torch.randint(256, (3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    one, two = (inverted(sampler, target, 5, wide) for _ in range(2))
    assert one.history == two.history and min(one.history) == one.loss < one.history[0]
    assert len({tuple(s) for s in one.styles.tolist()}) == (6 if wide else 1)
    more = inverted(sampler, target, 0, wide, perceptual=lambda a, b: (a - b).abs().mean()[None] * 0 + 2)
    assert more.history[0] == pytest.approx(one.history[0] + 2)


def test_psnr_is_that_of_the_definition():
    zero = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert psnr(zero, zero) == float("inf")
    assert psnr(zero, zero + 1) == pytest.approx(20 * np.log10(255))


def test_a_video_that_fails_leaves_nothing_and_the_photo_may_come_last(here, monkeypatch, capsys):
    Image.new("RGB", (20, 30)).save("photo.png")
    before = sorted(Path.cwd().rglob("*"))

    def fails(path, frames, fps):
        raise UserError("no encoder")

    with monkeypatch.context() as patched:
        patched.setattr("stylenat.video.write", fails)
        assert invert(["model", "--steps", "1", "--video", "gif", "--out", "out", "photo.png"]) == 2
    assert "no encoder" in capsys.readouterr().err and sorted(Path.cwd().rglob("*")) == before


def test_bad_input_is_one_line_and_leaves_nothing(here, capsys):
    weights_folder(Path("r3gan"), "r3gan_quickstart.gin")
    Path("text.png").write_text("no image")
    Image.new("RGB", (20, 30)).save("photo.png")
    before = sorted(Path.cwd().rglob("*"))
    for argv, message in [
        (["model", "text.png"], "text.png cannot be used: does not decode"),
        (["model", "missing.png"], "missing.png cannot be used: No such file"),
        (["model", "photo.png", "--out", "photo.png/out"], "photo.png is not a folder"),
        (["model"], "give either a PHOTO or --sample SEED"),
        (["model", "photo.png", "--steps", "0"], "--steps must be"),
        (["model", "photo.png", "--vgg16-weights", "x"], "needs both"),
        (["model", "photo.png", "--vgg16-weights", "x", "--lpips-weights", "y"], "there is no file x"),
        (["model", "photo.png", "--class", "1"], "has no classes"),
        (["r3gan", "photo.png"], "inversion needs a generator with styles; R3Generator has none"),
    ]:
        assert invert(["--out", "out", *argv]) == 2, argv
        assert message in capsys.readouterr().err
    assert sorted(Path.cwd().rglob("*")) == before
