"""``tools/export.py``: what is written draws the network's images, without this package's dependencies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from weights_folders import weights_folder

import stylenat
from stylenat import exporting
from stylenat.classes import Classes
from stylenat.commands.export import main as export
from stylenat.commands.sample import main as sample
from stylenat.exported import ExportedModel

CONDITIONAL = ["generator.style.num_classes = 3", "discriminator.wavelet.num_classes = 3"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_an_export_draws_the_same_images_with_torch_alone(here, capsys):
    model = stylenat.load(
        weights_folder(Path("model"), *["quickstart.gin", *CONDITIONAL], classes=Classes((1, 1, 1), ("a", "b", "c")))
    )
    assert export(["model", "out", "--licence", "CC0"]) == 0
    assert "differs from the network by" in capsys.readouterr().out
    exported = stylenat.load("out")
    for seeds in ([4], [9, 4, 30]):
        ours = model.sample(seeds, psi=0.7, classes=2)
        assert (exported.sample(seeds, psi=0.7, classes=2).int() - ours.int()).abs().max() <= 1
    with pytest.raises(ValueError, match="give classes"):
        exported.sample([1])
    card = Path("out/README.md").read_text()
    assert "| licence | CC0 |" in card and model.opened.sha256 in card
    code = (
        "import sys, stylenat; stylenat.load('out').sample([1, 2], classes=0)\n"
        "print(*sorted({'gin', 'pluggy', 'registry', 'kornia', 'aim', 'PIL', 'lmdb', 'plugins'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_fixed_batch_serves_any_number_of_a_generator_without_styles(here):
    model = stylenat.load(weights_folder(Path("model"), "r3gan_quickstart.gin"))
    assert export(["model", "out", "--batch", "3"]) == 0
    exported = stylenat.load("out")
    seeds = [0, 1, 2, 7]
    assert (exported.sample(seeds).int() - model.sample(seeds).int()).abs().max() <= 1
    with pytest.raises(ValueError, match="has no styles"):
        exported.sample([0], psi=0.5)


def test_weights_with_a_card_are_a_model_again(here):
    model = stylenat.load(weights_folder(Path("model")))
    assert export(["model", "out", "--format", "safetensors"]) == 0
    assert torch.equal(stylenat.load("out").sample(range(4)), model.sample(range(4)))
    assert "not stated" in Path("out/README.md").read_text()


def test_onnx_has_standard_operators_and_agrees_for_any_batch(here):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, which writes ONNX, is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime, which runs ONNX, is not installed")
    weights_folder(Path("model"), "quickstart.gin", "generator.style.resolution = 8",
                   "discriminator.wavelet.resolution = 8", "dataset.lfw_faces.resolution = 8")  # fmt: skip
    assert export(["model", "out", "--format", "onnx"]) == 0
    graph = onnx.load("out/synthesis.onnx").graph
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param and json.loads(Path("out/model.json").read_text())


def test_bad_input_is_one_line_and_leaves_nothing(here, monkeypatch, capsys):
    weights_folder(Path("model"))
    Path("there").mkdir()
    before = sorted(Path.cwd().rglob("*"))
    monkeypatch.setattr("stylenat.commands.export.find_spec", lambda name: None)
    for argv, message in [
        (["model", "there"], "there exists; choose another folder"),
        (["nowhere", "out"], "nowhere does not exist"),
        (["model", "out", "--batch", "0"], "--batch must be 1 to"),
        (["model", "out", "--batch", "2", "--format", "safetensors"], "--batch applies to graphs"),
        (["model", "out", "--format", "onnx"], "pip install 'stylenat[onnx]'"),
    ]:
        assert export(argv) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    assert export(["model", "out"]) == 2
    assert "nothing is written" in capsys.readouterr().err
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_damaged_export_is_one_line_that_names_the_file(here, capsys):
    weights_folder(Path("model"), "r3gan_quickstart.gin")
    assert export(["model", "out"]) == 0
    for main in (sample, export):
        assert main(["out", "--out", "drawn"] if main is sample else ["out", "again"]) == 2
        assert "out is an export for stylenat.load and other programs" in capsys.readouterr().err
    text, program = Path("out/model.json").read_text(), Path("out/generator.pt2").read_bytes()
    facts = json.loads(text)
    without = {name: value for name, value in facts.items() if name != "seed"}
    for damaged, message in [
        (without, "seed"),
        (facts | {"format_version": 99}, "it has format 99; this version reads up to"),
        (facts | {"resolution": "16"}, "not numbers"),
        (facts | {"batch": 0}, "not numbers"),
        (facts | {"class_names": 3}, "cannot be read"),
        (facts | {"num_styles": 6, "style_dim": 4, "mean_style": [[1.0]]}, "mean style does not fit"),
        ([facts], "cannot be read"),
    ]:
        Path("out/model.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=message) as error:
            stylenat.load("out")
        assert "model.json" in str(error.value) and "\n" not in str(error.value)
    Path("out/model.json").write_text(text)
    for damage in (program[: len(program) // 2], b"", b"PK" + program[2:200]):
        Path("out/generator.pt2").write_bytes(damage)
        with pytest.raises(ValueError, match="generator.pt2 cannot be read") as error:
            stylenat.load("out")
        assert "\n" not in str(error.value)
    Path("out/generator.pt2").unlink()
    with pytest.raises(ValueError, match="--format torch wrote"):
        stylenat.load("out")


def test_truncation_pulls_towards_the_mean_style_of_each_images_class():
    model = object.__new__(ExportedModel)
    model.latent_dim, model.num_styles, model.style_dim, model.class_names = 2, 1, 3, ("a", "b")
    model._seed, model._batch, model.device = 0, None, torch.device("cpu")
    model._mean = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    model._calls = {
        "mapping": lambda latents, labels: torch.zeros(len(latents), 3),
        "synthesis": lambda styles: styles[:, 0, :, None, None],
    }
    images = model.sample([0, 1, 2], psi=0.5, classes=[0, 1, 1])
    assert images[:, :, 0, 0].tolist() == [[5, 10, 15], [20, 25, 30], [20, 25, 30]]
    assert not model.sample([0], psi=1.0, classes=0).any()
