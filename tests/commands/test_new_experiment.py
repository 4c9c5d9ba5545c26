"""``tools/new_experiment.py``: photographs cut from scikit-image's to a gin file that loads and trains."""

from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image

from registry import load_experiment, load_plugins
from stylenat.commands import _pace
from stylenat.commands._choices import Machine, Pace, budget, networks, wrapped
from stylenat.commands._command import CORE, experiments_folder
from stylenat.commands.new_experiment import _settings, _template, main
from stylenat.commands.run import main as run
from stylenat.training.settings import Training

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png")
TINY = ["train.iterations = 2", "train.batch_size = 2", "train.evaluation_samples = 4", "train.sample_count = 4",
        "train.trackers = [@tracker.jsonl()]", "train.threads = 1", "schedule.linear_decay.start = 1"]  # fmt: skip


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """24 squares cut from three photographs, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("Our photos")
    folder.mkdir()
    for name in PHOTOS:
        image = Image.open(Path(skimage.__file__).parent / "data" / name)
        for number in range(8):
            left, top = (image.width - 100) * (number % 4) // 3, (image.height - 100) * (number // 4)
            image.crop((left, top, left + 100, top + 100)).save(folder / f"{Path(name).stem}{number}.png")
    return folder


@pytest.fixture
def quick(monkeypatch):
    """As if an iteration had taken two seconds."""
    monkeypatch.setattr(_pace, "pace", lambda *_: Pace(2.0, 0.05))


def new(*arguments):
    return main([*map(str, arguments), "--workers", "1", "--device", "cpu"])


def test_photos_become_an_experiment_that_trains(photos, quick, capsys):
    Image.new("RGB", (100, 100)).save(photos / "a.png")
    Image.new("RGB", (100, 100)).save(photos / "b.png")
    (photos / "broken.png").write_bytes(b"no image")
    assert new(photos, "--resolution", 64, "--hours", 5) == 0
    out = capsys.readouterr().out
    assert "26 images at 64x64, written" in out and "skipped 1" in out and "1 are exact copies" in out
    assert "26 images are few" in out and "hours for" in out and "python tools/run.py --gin our_photos64.gin" in out
    text = Path("our_photos64.gin").read_text()
    assert max(map(len, text.splitlines())) <= 120 and "$" not in text
    for block in text.strip().split("\n\n")[2:]:
        assert "# " in block or block.startswith("train.discriminator"), block  # Each choice has its reason.
    settings = load_experiment(load_plugins(core=CORE), ["our_photos64.gin"]).get("train")()
    assert len(settings.dataset) == 26 and settings.batch_size == 16
    # Five hours of two seconds are 9,000 iterations; a tenth is for samples.
    assert 8000 <= settings.iterations <= 9000
    binds = [part for bind in TINY for part in ("--bind", bind)]
    assert run(["--gin", "our_photos64.gin", *binds, "--run-dir", "run"]) == 0
    assert list(Path("run/samples").glob("*.png"))


def test_the_time_of_an_iteration_is_measured_with_the_penalty_by_its_share(tiny, monkeypatch):
    taken = iter([9.0, 2.0, 3.0, 10.0, 0.4])
    monkeypatch.setattr(_pace, "_seconds", lambda work, device: (work(), next(taken))[1])
    experiment = load_experiment(
        load_plugins(core=CORE), tiny[1::2][:1], tiny[3::2], search_path=[experiments_folder()]
    )
    found = _pace.pace(experiment.get("train")(), 8, torch.device("cpu"))
    assert found.iteration == 2.0 + (10.0 - 2.0) / 8 and found.sample == 0.1


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize("count", [40, 5_000, 70_000])
def test_every_choice_loads_and_fits_the_hours(count, side, gpu, tmp_path):
    machine, pace = Machine("a machine", gpu, 20.0), Pace(0.5, 0.01)
    values = networks(count, side, machine)
    values |= budget(count, values["batch"], 24, pace)
    others = dict(data="'d'", data_reason="", workers=0, workers_reason="", file="f.gin", accumulate=1,
                  recompute=False, batch_reason="")  # fmt: skip
    settings = _settings(load_plugins(core=CORE), wrapped(_template().substitute(values | others)))
    assert isinstance(settings, Training)
    samples = 10 * settings.evaluation_samples + 20 * 64
    assert settings.iterations * pace.iteration + samples * pace.sample <= 24 * 3600
    assert float(values["hours"]) <= 24 and settings.iterations >= 10_000
    ada = type(settings.augmentation).__name__ == "AdaptiveAugmentation"
    assert ada == (count < 50_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--resolution", 64], "there is nothing at nowhere"),
        (["PHOTOS", "--resolution", 100], "invalid choice: 100"),
        (["PHOTOS", "--resolution", 64, "--hours", 0], "--hours must be above 0"),
        (["PHOTOS", "--resolution", 64, "--hours", "nan"], "--hours must be above 0"),
        (["PHOTOS", "--resolution", 64, "--name", "../x"], "name the experiment with --name"),
        (["PHOTOS", "--resolution", 64, "--out", "nowhere"], "nowhere is not a folder"),
        (["PHOTOS", "--resolution", 64, "--name", "taken"], "taken64.gin exists"),
        (["PHOTOS", "--resolution", 64, "--data", "taken64.gin"], "taken64.gin exists and is no data set"),
        (["few", "--resolution", 64], "few has 1 usable image(s)"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_gin_file(photos, quick, arguments, message, capsys):
    Path("taken64.gin").write_text("")
    Path("few").mkdir()
    Image.new("RGB", (64, 64)).save("few/one.png")
    assert new(*[photos if part == "PHOTOS" else part for part in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0], error
    assert [path.name for path in Path(".").glob("*.gin")] == ["taken64.gin"]
    assert not Path("data/few64.lmdb").exists()  # More photos may come into the folder.
