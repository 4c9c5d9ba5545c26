"""Labels from the data set through training, sampling and evaluation; and what is refused of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylenat import checkpoint
from stylenat.classes import Classes, classes_of
from stylenat.commands.compare import main as compare
from stylenat.commands.evaluate import main as evaluate
from stylenat.commands.prepare import main as prepare
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.evaluation.one_class import OneClass

CONDITIONAL = """
include 'quickstart.gin'
generator.style.channels = [16, 16, 16]
generator.style.latent_dim = 8
generator.style.style_dim = 8
discriminator.wavelet.channels = [8, 8]
generator.style.num_classes = 3
discriminator.wavelet.num_classes = 3
train.dataset = @dataset.lmdb()
dataset.lmdb.path = 'colours.lmdb'
dataset.lmdb.resolution = 16
train.metrics = [@metric.frechet_random_features()]
train.trackers = [@tracker.jsonl()]
train.iterations = 2
train.batch_size = 4
train.checkpoint_every = 1
train.evaluate_every = 2
train.evaluation_samples = 4
train.sample_count = 9
train.threads = 1
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve images: six red, four green, two blue; a class a folder."""
    folder = tmp_path_factory.mktemp("colours")
    for number, (name, count) in enumerate({"red": 6, "green": 4, "zinc": 2}.items()):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., number] = 200 + i
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
    source, out = str(folder / "images"), str(folder / "colours.lmdb")
    assert prepare([source, out, "--resolution", "16", "--labels", "--workers", "1"]) == 0
    plain = str(folder / "plain.lmdb")
    assert prepare([source, plain, "--resolution", "16", "--workers", "1"]) == 0
    return folder


@pytest.fixture
def here(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("colours.lmdb", "plain.lmdb"):
        Path(name).symlink_to(data / name)
    Path("colours.gin").write_text(CONDITIONAL)
    return ["--gin", "colours.gin", "--run-dir", "run"]


def test_a_conditional_run_trains_resumes_samples_a_class_and_measures_each(here, capsys):
    assert run(here) == 0
    state = checkpoint.state(Path("run/checkpoints/step-000000002"))
    assert state["classes"] == {"counts": [4, 6, 2], "names": ["green", "red", "zinc"]}
    whole = {name: checkpoint.weights(Path("run/checkpoints/step-000000002"), name) for name in ("generator", "ema")}
    for path in Path("run/checkpoints/step-000000002").iterdir():
        path.unlink()
    Path("run/checkpoints/step-000000002").rmdir()
    assert run(here) == 0
    for name, weights in whole.items():
        again = checkpoint.weights(Path("run/checkpoints/step-000000002"), name)
        assert all(torch.equal(weights[key], again[key]) for key in weights)

    assert sample(["run", "--seeds", "0-2", "--out", "any"]) == 0
    assert sample(["run", "--seeds", "0-2", "--out", "second", "--class", "1"]) == 0
    assert json.loads(Path("second/samples.json").read_text())["labels"] == "class 1"
    assert sample(["run", "--seeds", "0-2", "--out", "second", "--class", "2"]) == 2
    assert sample(["run", "--seeds", "0", "--out", "no", "--class", "3"]) == 2
    assert "the classes are 0 to 2" in capsys.readouterr().err

    assert evaluate(["run", "--class", "0", "--out", "one.jsonl"]) == 0
    [one] = map(json.loads, Path("one.jsonl").read_text().splitlines())
    assert one["protocol"]["generated"]["labels"] == "class 0" and one["protocol"]["real"]["count"] == 4
    assert evaluate(["run", "--per-class", "--out", "each.jsonl"]) == 0
    *each, mean = map(json.loads, Path("each.jsonl").read_text().splitlines())
    assert [line["protocol"]["real"]["count"] for line in each] == [4, 6, 2]
    assert each[0]["metrics"] == one["metrics"] and mean["protocol"]["generated"]["labels"] == "mean over 3 classes"
    for name, value in mean["metrics"].items():
        assert value == pytest.approx(np.mean([line["metrics"][name] for line in each]))


def test_chosen_classes_of_conditional_variants_are_drawn_in_a_row_each(here, capsys):
    for name, rate in (("slow", 1e-4), ("fast", 1e-2)):
        bind = ["--bind", f"train.generator_learning_rate = {rate}"]
        assert run([*here[:2], "--run-dir", name, *bind]) == 0
    draw = ["--draw", "1,4", "--draw-classes", "0,2"]
    assert compare(["slow", "fast", "--out", "report", *draw]) == 0
    assert "Chosen samples 1, 4 of class 0, 2 (columns) of" in Path("report/captions.txt").read_text()
    assert Path("report/chosen-samples.pdf").read_bytes().startswith(b"%PDF")
    sheet = np.asarray(Image.open("report/chosen-samples.png"))
    for name in ("slow", "fast"):
        assert sample([name, "--seeds", "4", "--class", "2", "--out", f"{name}-2"]) == 0
        single = np.asarray(Image.open(f"{name}-2/seed-000004.png")).repeat(4, 0).repeat(4, 1)
        places = np.lib.stride_tricks.sliding_window_view(sheet, single.shape)[:, -3:, 0]  # The last column.
        assert any((place == single).all() for row in places for place in row)
    assert compare(["slow", "fast", "--out", "other", "--draw", "1", "--draw-classes", "3"]) == 2
    assert "the classes are 0 to 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("binds", "said"),
    [
        (["generator.style.num_classes = 2"], "numbers of classes differ: generator 2, discriminator 3"),
        (["dataset.lmdb.path = 'plain.lmdb'"], "has no classes; prepare it with --labels"),
        (["generator.style.num_classes = 4", "discriminator.wavelet.num_classes = 4"], "bind num_classes = 3"),
    ],
)
def test_classes_that_do_not_fit_are_refused_before_the_run_folder_is_made(here, binds, said, capsys):
    assert run([*here, *(word for bind in binds for word in ("--bind", bind))]) == 2
    assert said in capsys.readouterr().err and not Path("run").exists()


def test_an_unconditional_run_has_no_labels_and_says_so_where_one_is_asked_for(here, capsys):
    binds = ["generator.style.num_classes = 0", "discriminator.wavelet.num_classes = 0"]
    assert run([*here, *(word for bind in binds for word in ("--bind", bind))]) == 0
    assert sample(["run", "--seeds", "0", "--out", "no", "--class", "0"]) == 2
    assert "trained without labels" in capsys.readouterr().err


def test_a_checkpoint_of_another_pixel_space_is_refused(here, capsys):
    assert run(here) == 0
    other = ["--bind", "train.pixel_space = 'symmetric'"]
    assert run([*here, *other, "--resume-with-changes", "--bind", "train.iterations = 3"]) == 2
    assert "pixel space 'imagenet'" in capsys.readouterr().err
    tuned = [*here[:3], "tuned", *other, "--bind", "train.initial_weights = 'run'"]
    assert run(tuned) == 2
    assert "pixel space 'imagenet'" in capsys.readouterr().err and not Path("tuned").exists()


def test_labels_are_drawn_as_often_as_in_the_data_and_by_index():
    classes = Classes((1, 0, 3), ("a", "b", "c"))
    numbers = classes.drawn(4000, torch.Generator().manual_seed(0))
    assert torch.bincount(numbers, minlength=3).tolist()[1] == 0
    assert (numbers == 2).float().mean() == pytest.approx(0.75, abs=0.03)
    of = classes.as_in_the_data(5)
    assert torch.equal(of(0, 100)[37:52], of(37, 15)) and len(of(3, 0)) == 0
    assert classes.in_rows(2)(0, 8).tolist() == [0, 0, 1, 1, 2, 2, 0, 0]


def test_classes_are_counted_at_once_where_a_data_set_gives_all_labels():
    class Large:
        num_classes, resolution = 3, 8

        def __len__(self):
            return 5

        def labels(self):
            return torch.tensor([2, 0, 2, 2, 0])

        def label(self, index):
            pytest.fail("asked for one label after the other")

    assert classes_of(Large()).counts == (2, 0, 3)
    assert OneClass(Large(), 2)._indices == [0, 2, 3]


def test_a_label_that_is_no_class_is_refused():
    class Wrong:
        num_classes = 2

        def __len__(self):
            return 3

        def label(self, index):
            return index

        def describe(self):
            return "wrong"

    from registry import UserError

    with pytest.raises(UserError, match="the label of image 2 is 2"):
        classes_of(Wrong())
