"""``tools/memorisation.py``: copies of training images are found, new images are not taken for copies."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from weights_folders import weights_folder

import stylenat
from stylenat.commands.memorisation import main as memorisation
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.evaluation.nearest import nearest, pixels, wavelets
from stylenat.sampling import Sampler
from stylenat.training.live_memory import LiveMemory
from stylenat.training.memorised import SMALL, nearest_training_images


def random_images(count, seed):
    return torch.randint(256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@pytest.mark.parametrize("embed", [pixels, wavelets])
def test_copies_and_mirrored_copies_are_found_and_new_images_are_not(embed):
    real = random_images(40, 0)
    copies = torch.cat([real[7:8], real[3:4].flip(-1)])
    found = nearest(copies, real, embed, lambda done: None)
    assert found.index.tolist() == [7, 3] and found.distance.max() < 1e-2 and found.closer == 1
    assert nearest(random_images(60, 1), real, embed, lambda done: None).closer < 0.2


def test_distances_are_computed_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr("stylenat.evaluation.nearest.ROWS", 7)
    samples, real = random_images(20, 1), random_images(500, 0)
    with LiveMemory() as memory:
        found = nearest(samples, real, lambda images: pixels(images)[:, :8].clone(), lambda done: None)
    assert memory.peak < 500 * 500 * 4  # Never all pairs.
    ours, theirs, mirrored = (pixels(images)[:, :8] for images in (samples, real, real.flip(-1)))
    both = [torch.minimum(torch.cdist(x, theirs), torch.cdist(x, mirrored)) for x in (ours, theirs)]
    assert torch.allclose(found.distance, both[0].min(1).values) and torch.equal(found.index, both[0].min(1).indices)
    assert torch.allclose(found.real, both[1].fill_diagonal_(torch.inf).min(1).values)


def test_wavelets_ignore_brightness():
    image = random_images(1, 0) // 2
    assert torch.allclose(wavelets(image), wavelets(image + 40), atol=1e-6)


def test_a_generator_whose_samples_are_the_data_has_memorised_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights_folder(Path("model"))
    assert sample(["model", "--seeds", "0-19", "--format", "lmdb", "--out", "data"]) == 0
    argv = ["model", "--data", "data/samples.lmdb", "--seeds", "5-9"]
    assert memorisation([*argv, "--out", "one"]) == 0
    assert "pixels: 100% of 5 samples" in capsys.readouterr().out
    facts = json.loads(Path("one/memorisation.json").read_text())
    assert [n["training_image"] for n in facts["spaces"]["pixels"]["nearest"]] == [5, 6, 7, 8, 9]
    assert memorisation([*argv, "--out", "two"]) == 0
    names = {"nearest.png", "distances.png", "memorisation.json"}
    assert {p.name for p in Path("one").iterdir()} == names
    assert all(Path("one", n).read_bytes() == Path("two", n).read_bytes() for n in names)
    assert stylenat.load("model").resolution == 16
    for extra, message in [
        (["--features", "nothing"], "nothing"),
        (["--seeds", "a"], "--seeds takes numbers"),
        (["--data", "nowhere.lmdb"], "nowhere.lmdb"),
        (["--extractor-weights", "w.pth"], "--extractor-weights: there is no file w.pth"),
        (["--extractor-weights", "model/ema.safetensors"], "holds weights of none of the extractors that are used"),
    ]:
        assert memorisation([*argv, *extra, "--out", "out"]) == 2
        assert message in capsys.readouterr().err
    assert memorisation(["model", "--out", "out"]) == 2
    assert "does not exist; give the training images with --data" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_report_of_a_training_on_few_images_says_what_its_samples_are_near_to(tiny, capsys):
    assert run([*tiny, "--run-dir", "trained"]) == 0
    out = capsys.readouterr().out
    assert "of 64 samples are nearer to a training image than 95 % of training images to another" in out
    picture = np.asarray(Image.open("trained/nearest.png"))
    assert picture.std() > 10


def test_copies_are_reported_and_large_data_sets_are_not_compared(tmp_path):
    real = random_images(40, 0)

    class Copies(Sampler):
        def at(self, indices):
            return real[torch.tensor(indices) % 40]

    settings = SimpleNamespace(dataset=list(real))
    sampler = Copies(torch.nn.Identity(), seed=0)
    said = nearest_training_images(settings, sampler, tmp_path / "nearest.png")
    assert said.startswith("100% of 64 samples are nearer") and (tmp_path / "nearest.png").exists()
    settings.dataset = [real[0]] * (SMALL + 1)
    assert nearest_training_images(settings, sampler, tmp_path / "other.png") is None
