"""``tools/mix.py`` and ``tools/interpolate.py``: mixtures and walks have the samples' own images at their ends."""

import json
from math import nan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from weights_folders import weights_folder

import stylenat
from stylenat.commands.export import main as export
from stylenat.commands.interpolate import main as interpolate
from stylenat.commands.invert import main as invert
from stylenat.commands.mix import main as mix
from stylenat.commands.sample import main as sample
from stylenat.networks.generator import StyleGenerator
from stylenat.video import tiled


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    weights_folder(folder / "style")
    weights_folder(folder / "hit", "hit_quickstart.gin")
    return folder


@pytest.fixture
def here(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return str(models / "style")


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def images(model, *seeds, **options):
    return stylenat.load(model).sample(seeds, **options).permute(0, 2, 3, 1).numpy().astype(int)


def line_of(capsys):
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_mixture_is_the_rows_image_with_the_columns_styles_in_the_chosen_layers(here):
    argv = [here, "--rows", "5,2", "--columns", "5,9,2"]
    assert mix([*argv, "--layers", "0-1", "--out", "two"]) == 0
    model = stylenat.load(here)
    w = model.mapping(model.latents([2, 9]))
    styles = w[:1, None].repeat(1, 6, 1)
    styles[:, :2] = w[1]
    expected = model.synthesis(styles)[0].round().clamp(0, 255).permute(1, 2, 0).int().numpy()
    assert abs(pixels("two/mix-000002-000009.png") - expected).max() <= 1
    for seed, own in zip((5, 2), images(here, 5, 2), strict=True):
        assert abs(pixels(f"two/mix-{seed:06d}-{seed:06d}.png") - own).max() <= 1
    grid = pixels("two/grid.png")  # Images enlarged fourfold, two pixels apart, behind a row and a column of sources.
    assert grid.shape == (3 * 66 + 2, 4 * 66 + 2, 3)
    assert np.array_equal(
        grid[2 + 2 * 66 : 66 + 2 * 66 : 4, 2 + 2 * 66 : 66 + 2 * 66 : 4], pixels("two/mix-000002-000009.png")
    )
    assert abs(grid[2:66:4, 2 + 2 * 66 : 66 + 2 * 66 : 4] - images(here, 9)[0]).max() <= 1
    assert abs(grid[2 + 66 : 66 + 66 : 4, 2:66:4] - images(here, 5)[0]).max() <= 1

    assert mix([*argv, "--layers", "0-5", "--out", "every"]) == 0
    assert abs(pixels("every/mix-000002-000009.png") - images(here, 9)[0]).max() <= 1
    note = json.loads(Path("two/samples.json").read_text())
    assert note["rows"] == [5, 2] and note["layers"] == [0, 1] and note["weights_sha256"]


@pytest.mark.parametrize("options", [[], ["--space", "z"], ["--method", "spherical"], ["--layers", "0-5"]])
def test_a_walk_has_the_samples_at_its_seeds_and_is_reproducible(here, options):
    argv = [here, "--seeds", "4,8", "--frames", "3", "--truncation-psi", "0.7", *options]
    assert interpolate([*argv, "--out", "first"]) == 0
    assert interpolate([*argv, "--out", "second"]) == 0
    files = sorted(Path("first").iterdir())
    assert [p.name for p in files] == [f"frame-{i:06d}.png" for i in range(6)]
    assert all(p.read_bytes() == Path("second", p.name).read_bytes() for p in files)
    for frame, own in zip((0, 3), images(here, 4, 8, psi=0.7), strict=True):
        assert abs(pixels(files[frame]) - own).max() <= 1
    assert len({p.read_bytes() for p in files}) > 3


def test_only_the_chosen_styles_move(here):
    argv = [here, "--seeds", "4,8", "--frames", "2", "--layers", "4-5"]
    assert interpolate([*argv, "--out", "out"]) == 0
    model = stylenat.load(here)
    w = model.mapping(model.latents([4, 8]))
    styles = w[:1, None].repeat(1, 6, 1)
    styles[:, 4:] = w[1]
    expected = model.synthesis(styles)[0].round().clamp(0, 255).permute(1, 2, 0).int().numpy()
    assert abs(pixels("out/frame-000002.png") - expected).max() <= 1


def test_a_grid_has_a_walk_in_each_cell(here):
    argv = [here, "--seeds", "0-5", "--grid", "3x1", "--frames", "2", "--open"]
    assert interpolate([*argv, "--out", "out"]) == 0
    assert len(list(Path("out").iterdir())) == 3
    first, last = pixels("out/frame-000000.png"), pixels("out/frame-000002.png")
    assert first.shape == (16, 48, 3)
    for cell in range(3):
        at = slice(16 * cell, 16 * cell + 16)
        assert abs(first[:, at] - images(here, 2 * cell)[0]).max() <= 1
        assert abs(last[:, at] - images(here, 2 * cell + 1)[0]).max() <= 1


def test_a_gif_has_every_frame_enlarged(here):
    assert interpolate([here, "--seeds", "0,1", "--frames", "4", "--out", "walk.gif"]) == 0
    with Image.open("walk.gif") as gif:
        assert gif.n_frames == 8 and gif.size == (256, 256)
    assert [p.name for p in Path.cwd().iterdir()] == ["walk.gif"]


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_a_video_has_every_frame_and_both_sides_even(here, suffix):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg, which writes videos, is not installed")
    assert interpolate([here, "--seeds", "0,1", "--frames", "4", "--out", f"walk.{suffix}"]) == 0
    frames = ffmpeg.read_frames(f"walk.{suffix}")
    facts = next(frames)
    assert facts["size"] == (256, 256) and len(list(frames)) == 8
    assert [p.name for p in Path.cwd().iterdir()] == [f"walk.{suffix}"]


@pytest.mark.parametrize("out", ["frames", "new/frames", "walk.gif"])
def test_an_interrupted_walk_leaves_nothing(here, monkeypatch, out):
    frames = []

    def interrupted(frame, columns):
        frames.append(frame)
        if len(frames) == 3:
            raise KeyboardInterrupt
        return tiled(frame, columns)

    if out == "walk.gif":
        Path("new").mkdir()
    before = sorted(Path.cwd().rglob("*"))
    monkeypatch.setattr("stylenat.video.tiled", interrupted)
    assert interpolate([here, "--seeds", "0,1", "--frames", "4", "--out", out]) == 75
    assert len(frames) == 3 and sorted(Path.cwd().rglob("*")) == before


def test_images_that_are_not_finite_are_one_line_with_the_remedy_and_leave_nothing(here, monkeypatch, capsys):
    diverged = lambda self, styles: styles.new_full((styles.shape[0], 3, 16, 16), nan)  # noqa: E731
    monkeypatch.setattr(StyleGenerator, "synthesis", diverged)
    for main, argv in [
        (mix, ["--out", "out"]),
        (interpolate, ["--out", "out"]),
        (interpolate, ["--out", "walk.gif"]),
        (sample, ["--out", "out"]),
        (sample, ["--out", "out", "--format", "npy"]),
        (invert, ["--sample", "3", "--out", "out"]),
    ]:
        assert main([here, *argv]) == 2, argv
        line = line_of(capsys)
        assert "images are not finite (NaN or infinite pixels); use weights from before it diverged" in line
    assert export([here, "out"]) == 2
    assert "synthesis: differs from the network by nan" in line_of(capsys)
    assert not list(Path.cwd().iterdir())


def test_a_video_without_imageio_ffmpeg_is_one_line(here, monkeypatch, capsys):
    monkeypatch.setattr("stylenat.video.find_spec", lambda name: None)
    assert interpolate([here, "--out", "walk.mp4"]) == 2
    assert "pip install 'stylenat[video]'" in line_of(capsys)


def test_generators_without_styles_walk_in_z_and_do_not_mix(models, here, capsys):
    hit = str(models / "hit")
    assert interpolate([hit, "--seeds", "4,8", "--frames", "2", "--out", "out"]) == 0
    for frame, own in zip((0, 2), images(hit, 4, 8), strict=True):
        assert abs(pixels(f"out/frame-{frame:06d}.png") - own).max() <= 1
    for argv, message in [
        (["--layers", "0"], "--layers needs a generator with styles; HiT has none"),
        (["--space", "w"], "--space w needs a generator with styles; HiT has none"),
        (["--truncation-psi", "0.5"], "has no styles to truncate"),
    ]:
        assert interpolate([hit, "--out", "other", *argv]) == 2
        assert message in line_of(capsys)
    assert mix([hit, "--out", "other"]) == 2
    assert "style mixing needs a generator with styles" in line_of(capsys)
    assert not Path("other").exists()


def test_bad_input_is_one_line_and_leaves_nothing(here, capsys):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    Path("there.gif").write_text("mine")
    before = sorted(Path.cwd().rglob("*"))
    for argv, message in [
        (["--out", "walk.gif", "--frames", "0"], "--frames must be 1 to"),
        (["--out", "walk.gif", "--seeds", "1"], "has 1 walks, and --seeds 1"),
        (["--out", "walk.gif", "--seeds", "one"], "--seeds takes numbers"),
        (["--out", "walk.gif", "--fps", "0"], "--fps must be"),
        (["--out", "walk.gif", "--grid", "2"], "--grid takes columns and rows"),
        (["--out", "walk.gif", "--grid", "4x1", "--seeds", "0-5"], "give a multiple, at least two each"),
        (["--out", "walk.gif", "--frames", "99999"], "ask for at most"),
        (["--out", "walk.gif", "--layers", "6"], "styles 0 to 5"),
        (["--out", "walk.gif", "--layers", "0", "--space", "z"], "leave out --space z"),
        (["--out", "walk.gif", "--class", "0"], "has no classes"),
        (["--out", "walk.avi"], "must end in .mp4, .webm, .gif, or be a name without a suffix for a folder"),
        (["--out", "there.gif"], "there.gif exists"),
        (["--out", "nowhere/walk.gif"], "there is no folder nowhere"),
        (["--out", "full"], "full exists and is not an empty folder"),
    ]:
        assert interpolate([here, *argv]) == 2, argv
        assert message in line_of(capsys)
    for argv, message in [
        (["--out", "mix", "--rows", "x"], "--rows takes numbers"),
        (["--out", "mix", "--columns", "3-1"], "--columns takes numbers"),
        (["--out", "mix", "--rows", "0-99", "--columns", "0-99"], "make 10000 images"),
        (["--out", "mix", "--layers", "2-6"], "styles 0 to 5"),
        (["--out", "mix", "--truncation-psi", "inf"], "must be finite"),
        (["--out", "mix.png"], "--out mix.png: a folder is made, not a .png file; name it without .png"),
        (["--out", "full"], "full exists and is not an empty folder"),
    ]:
        assert mix([here, *argv]) == 2, argv
        assert message in line_of(capsys)
    assert sorted(Path.cwd().rglob("*")) == before
