"""R3GAN's shipped experiments, a short training, and weights of its own code there and back, by the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from persistent_pickles import network, pickled
from PIL import Image

from registry import load_plugins
from stylenat import checkpoint, weights
from stylenat.commands.export_weights import main as export_weights
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.reference import layouts, to_theirs

PUBLISHED = {
    "cifar10": ("20,781,952", "21,280,512"),
    "ffhq64": ("22,429,824", "22,381,440"),
    "ffhq256": ("23,057,952", "23,009,568"),
    "imagenet32": ("82,914,304", "86,548,992"),
    "imagenet64": ("103,570,432", "107,205,120"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_dry_run_prints_the_published_numbers_of_parameters(name, capsys):
    assert run(["--gin", f"r3gan_{name}.gin", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert all(number in out for number in PUBLISHED[name])
    assert "attention" not in out


def test_the_unconditional_variant_of_cifar10_has_the_published_numbers_too(capsys):
    assert run(["--gin", "r3gan_cifar10.gin", "--bind", "CLASSES = 0", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "20,732,160" in out and "20,683,776" in out


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Arguments of a small experiment with R3GAN's recipe on eight images of two classes."""
    monkeypatch.chdir(tmp_path)
    for i in range(8):
        folder = Path("images") / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    from stylenat.commands.prepare import main as prepare

    assert prepare(["images", "images.lmdb", "--resolution", "8", "--workers", "1", "--labels"]) == 0
    bindings = {
        "SIDE": 8, "CLASSES": 2, "BURN_IN": 16, "generator.r3gan.channels": [8], "discriminator.r3gan.channels": [8],
        "generator.r3gan.latent_dim": 4, "generator.r3gan.label_dim": 4, "generator.r3gan.bf16_resolutions": 0,
        "discriminator.r3gan.bf16_resolutions": 0, "dataset.lmdb.path": "images.lmdb", "train.iterations": 4,
        "train.batch_size": 4, "train.workers": 0, "train.evaluation_samples": 8, "train.sample_count": 4,
        "train.checkpoint_every": 2, "train.evaluate_every": 4, "train.sample_every": 4, "train.metrics": [],
        "half_life/schedule.cosine.end": 8.0,
    }  # fmt: skip
    lines = [f"{name} = {value!r}" for name, value in bindings.items()]
    arguments = ["--gin", "r3gan_cifar10.gin", *(word for line in lines for word in ("--bind", line))]
    return [*arguments, "--bind", "train.trackers = [@tracker.jsonl()]"]


def test_its_recipe_trains_and_takes_two_real_batches_an_iteration(tiny, capsys):
    assert run([*tiny, "--run-dir", "run"]) == 0
    state = checkpoint.state(Path("run/checkpoints/step-000000004"))
    assert (state["images"], state["drawn"]) == (16, 32)
    assert sample(["run", "--seeds", "0-3", "--class", "1", "--out", "samples"]) == 0
    assert len(list(Path("samples").glob("*.png"))) >= 4


def test_bfloat16_networks_train_and_are_sampled(tiny):
    low = [word for kind in ("generator", "discriminator") for word in ("--bind", f"{kind}.r3gan.bf16_resolutions = 1")]
    assert run([*tiny, *low, "--run-dir", "run"]) == 0
    assert sample(["run", "--seeds", "0-1", "--out", "samples"]) == 0


def test_truncation_and_path_length_need_styles(tiny, capsys):
    assert run([*tiny, "--run-dir", "run"]) == 0
    assert sample(["run", "--seeds", "0-1", "--truncation-psi", "0.7", "--out", "samples"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1 and not Path("samples").exists()


def theirs(folder, prefix=""):
    """The run's networks in the names of R3GAN's code, constants included."""
    from registry import load_experiment
    from stylenat.commands._command import CORE, experiments_folder

    registry = load_plugins(core=CORE)
    experiment = load_experiment(registry, ["run/config.gin"], [], search_path=[experiments_folder()])
    found, known = {}, layouts(registry)
    for kind, entry, layout in (
        ("ema", "G_ema", "r3gan"), ("generator", "G", "r3gan"), ("discriminator", "D", "r3gan_discriminator")
    ):  # fmt: skip
        built = experiment.value(f"train.{'generator' if kind == 'ema' else kind}")()
        chosen = known[layout + ("_pickle" if prefix else "")]
        state = checkpoint.weights(folder, kind)
        found[entry] = to_theirs(state, built, chosen) | chosen.constants(built)
    return found


def test_a_training_pickle_is_imported_sampled_and_exported_bit_for_bit(tiny, capsys):
    assert run([*tiny, "--run-dir", "run"]) == 0
    states = theirs(Path("run/checkpoints/step-000000004"), "Model.")
    modules = {
        name: network(state, tuple(key for key in state if key.endswith("Kernel")), name, c_dim=2, img_resolution=8)
        for name, state in states.items()
    }
    Path("theirs.pkl").write_bytes(pickled(modules | {"cur_nimg": 16}))
    assert import_weights(["theirs.pkl", *tiny, "--out", "imported"]) == 0
    out = capsys.readouterr().out
    assert "ema: layout r3gan_pickle" in out and "discriminator: layout r3gan_discriminator_pickle" in out
    report = json.loads(Path("imported/report.json").read_text())
    assert report["modules"]["ema"][""] == {"class_name": "G_ema", "arguments": {"c_dim": 2, "img_resolution": 8}}
    assert report["skipped"] == ["cur_nimg"]
    assert json.loads(Path("imported/manifest.json").read_text())["pixel_space"] == "symmetric"
    assert sample(["imported", "--seeds", "0-1", "--out", "samples"]) == 0
    assert export_weights(["imported", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)
    assert "pixel_space" not in back
    for ours, entry in (("g_ema", "G_ema"), ("g", "G"), ("d", "D")):
        assert back[ours].keys() == states[entry].keys()
        assert all(torch.equal(back[ours][key], value) for key, value in states[entry].items())


@pytest.mark.parametrize("binding, said", [
    ("SIDE = 16", "resolution 8, num_classes 2, and the experiment's network resolution 16, num_classes 2"),
    ("CLASSES = 3", "resolution 8, num_classes 2, and the experiment's network resolution 8, num_classes 3"),
    ("train.pixel_space = 'imagenet'", "pixel space 'symmetric'"),
])  # fmt: skip
def test_weights_of_another_size_class_count_or_space_are_one_line_with_both(tiny, capsys, binding, said):
    assert run([*tiny, "--run-dir", "run"]) == 0
    torch.save(theirs(Path("run/checkpoints/step-000000004")), "theirs.pt")
    assert weights.read(Path("theirs.pt")).states.keys() == {"ema", "generator", "discriminator"}
    capsys.readouterr()
    assert import_weights(["theirs.pt", *tiny, "--bind", binding, "--out", "imported"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and said in error[0] and not Path("imported").exists()
