import json
import shutil
from pathlib import Path

import pytest
import torch

from plugins.trackers.jsonl import JsonLines
from stylenat import checkpoint
from stylenat.commands._command import experiments_folder
from stylenat.commands.evaluate import main
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.evaluation import unfinished
from stylenat.evaluation.protocol import differences, read_results
from stylenat.sampling import Sampler


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two iterations, measured at its end, and its data set."""
    folder = tmp_path_factory.mktemp("trained")
    binds = [
        "generator.style.channels = [16, 16, 16]",
        "discriminator.wavelet.channels = [8, 8]",
        "train.iterations = 2",
        "train.batch_size = 4",
        "train.evaluation_samples = 24",
        "train.sample_count = 4",
        "train.trackers = [@tracker.jsonl()]",
        f"dataset.lfw_faces.path = '{folder}/faces.lmdb'",
        "train.metrics = [@metric.frechet_random_features(), @metric.spectrum()]",
    ]
    arguments = ["--gin", "quickstart.gin", "--run-dir", str(folder / "run")]
    for bind in binds:
        arguments += ["--bind", bind]
    assert run(arguments) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    """A copy of it, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    shutil.copytree(trained, tmp_path / "trained")
    return tmp_path / "trained"


def test_a_run_is_measured_as_it_measured_itself_and_the_result_says_how(folder, capsys):
    path = folder / "run" / "metrics.jsonl"
    before = read_results(path)
    assert main([str(folder / "run"), "--bind", "train.batch_size = 8"]) == 0  # Of measuring, not of training.
    results = read_results(path)
    for old, new in zip(before, results[len(before) :], strict=True):
        assert (new.name, new.value, new.step, new.images) == (old.name, old.value, 2, 8)
        assert differences(old, new) == []
    assert len(results[-1].protocol["generated"]["weights_sha256"]) == 64
    out = capsys.readouterr()
    assert "frechet_random_features ↓" in out.out and str(path) in out.out
    assert "24 generated images are few" in out.err


@pytest.mark.parametrize("what", ["checkpoint", "imported"])
def test_checkpoints_and_imported_weights_are_measured_too(folder, what, capsys):
    place = checkpoint.found(folder / "run" / "checkpoints")[-1]
    if what == "imported":
        weights = Path("ours.pt")
        torch.save({"g_ema": checkpoint.weights(place, "ema")}, weights)
        assert import_weights([str(weights), "--gin", str(folder / "run" / "config.gin"), "--out", "imported"]) == 0
        place = Path("imported")
    assert main([str(place), "--out", "here.jsonl"]) == 0
    (first, _), (theirs, _) = read_results(Path("here.jsonl")), read_results(folder / "run" / "metrics.jsonl")
    assert first.value == theirs.value
    assert first.step == (2 if what == "checkpoint" else None)


def test_a_result_in_bfloat16_says_so_and_is_none_of_the_training(folder, monkeypatch):
    told = []
    monkeypatch.setattr(JsonLines, "record_evaluation", lambda self, *arguments: told.append(arguments), raising=False)
    (trained, _) = read_results(folder / "run" / "metrics.jsonl")
    assert main([str(folder / "run"), "--precision", "bf16"]) == 0
    result = read_results(folder / "run" / "metrics.jsonl")[2]
    assert [str(found) for found in differences(trained, result)] == ["generated.precision: float32 and bfloat16"]
    assert 0 < abs(result.value - trained.value) < 0.05 * trained.value
    assert not told
    assert main([str(folder / "run")]) == 0
    assert told


def test_other_metrics_data_counts_and_truncation_and_what_then_differs(folder):
    options = ["--gin", "metrics/offline.gin", "--samples", "20", "--truncation-psi", "0.5", "--real-samples", "30"]
    assert main([str(folder / "run"), *options, "--data", str(folder / "faces.lmdb"), "--out", "here.jsonl"]) == 0
    results = {result.name: result for result in read_results(Path("here.jsonl"))}
    assert set(results) == {"frechet_random_features", "swd", "spectrum"}
    (trained, _) = read_results(folder / "run" / "metrics.jsonl")
    assert [found.field for found in differences(results["frechet_random_features"], trained)] == [
        "generated.count",
        "generated.truncation_psi",
        "generated.truncation_centre",
        "real.pixels_sha256",
        "real.count",
    ]


def test_baselines_stand_beside_the_result_when_asked_for(folder, capsys):
    assert main([str(folder / "run"), "--baselines", "--out", "here.jsonl"]) == 0
    assert "the mean image" in capsys.readouterr().out


def test_missing_weights_are_one_line_and_the_other_metrics_go_on(folder, capsys):
    assert main([str(folder / "run"), "--gin", "metrics/all50k.gin", "--samples", "20", "--out", "here.jsonl"]) == 0
    assert {result.name for result in read_results(Path("here.jsonl"))} == {
        "swd",
        "spectrum",
        "frechet_random_features",
    }
    left_out = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(left_out) == 3  # Inception's, DINOv2's and LPIPS's metrics.
    inception = left_out[0]
    assert inception.startswith("fid, kid, precision_recall, density_coverage, inception_score left out: ")
    assert "https://" in inception and "sha256 6726825d0af5f729cebd" in inception and "--extractor-weights" in inception


def test_a_run_that_asks_for_missing_weights_trains_with_the_metrics_that_are_left(tiny, capsys):
    bind = ["--bind", "train.metrics = [@metric.fid(), @metric.spectrum()]"]
    assert run([*tiny, *bind, "--run-dir", "run"]) == 0
    assert "fid left out: Inception" in capsys.readouterr().out.replace("\n", " ")
    assert {result.name for result in read_results(Path("run/metrics.jsonl"))} == {"spectrum"}


def test_metrics_that_the_generator_cannot_have_are_left_out_or_refused_before_the_training(tiny, capsys):
    """Before weights are asked for that would not help."""
    both = "train.metrics = [@metric.equivariance_rotation(), @metric.spectrum()]"
    assert run([*tiny, "--bind", both, "--run-dir", "run"]) == 0
    assert "eqr left out: metrics of equivariance need" in capsys.readouterr().out.replace("\n", " ")
    assert {result.name for result in read_results(Path("run/metrics.jsonl"))} == {"spectrum"}
    for metric, gin, text in [
        ("equivariance_translation", "quickstart.gin", "need a generator whose synthesis takes a transform"),
        ("ppl", "r3gan_quickstart.gin", "ppl needs a generator with styles; R3Generator has none"),
    ]:
        arguments = ["--gin", gin, "--bind", f"train.metrics = [@metric.{metric}()]", "--run-dir", "other"]
        for more in ([], ["--dry-run"]):
            assert run([*arguments, *more]) == 2
            assert text in capsys.readouterr().err
    assert not Path("other").exists()


def lmdb_of(side, path):
    from plugins.datasets.lfw_faces import LfwFaces

    LfwFaces(side, str(path)).prepare()
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist: give a run"),
        (["RUN", "--data", "nowhere.lmdb"], "there is no data set at nowhere.lmdb"),
        (["RUN", "--data", "OTHER"], "holds images at resolution 32, not 16"),
        (["RUN", "--samples", "1"], "--samples must be at least 2"),
        (["RUN", "--real-samples", "0"], "--real-samples must be at least 2"),
        (["RUN", "--real-samples", "1000"], "has 100 images, not 1000"),
        (["RUN", "--truncation-psi", "nan"], "--truncation-psi must be finite"),
        (["RUN", "--batch", "100000000"], "--batch must be 1 to 4096; got 100000000"),
        (["RUN", "--out", "."], ". is a folder; name a file with --out, such as metrics.jsonl"),
        (["RUN", "--gin", "metrics/equivariance50k.gin"], "need a generator whose synthesis takes a transform"),
        (["RUN", "--gin", "metrics/fdi50k.gin"], "there is no gin file"),
        (["RUN", "--bind", "train.metrics = []"], "there is nothing to measure"),
        (["RUN", "--gin", "metrics/fid50k.gin", "--samples", "4"], "sha256 6726825d"),
        (["RUN", "--extractor-weights", "nowhere.pth"], "there is no file nowhere.pth"),
        (
            ["RUN", "--gin", "metrics/fid50k.gin", "--extractor-weights", "text.pth"],
            "text.pth is not read",
        ),
        (["RUN", "--gin", "metrics/fid50k.gin", "--extractor-weights", "other.pth"], "none of the extractors"),
        (["RUN", "--extractor-weights", "other.pth"], "none of the extractors that are used (none)"),
        (["RUN", "--gin", "metrics/fid50k.gin", "--extractor-weights", "half.pth"], "does not fit Inception"),
        (["RUN", "--out", "nowhere/here.jsonl"], "there is no folder nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, arguments, message, capsys):
    Path("text.pth").write_text("no weights")
    torch.save({"some.weight": torch.zeros(2)}, "other.pth")
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, "half.pth")
    replaced = {"RUN": str(folder / "run")}
    if "OTHER" in arguments:
        replaced["OTHER"] = lmdb_of(32, folder / "other.lmdb")
    before = (folder / "run" / "metrics.jsonl").read_text()
    assert main([replaced.get(argument, argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert [line for line in error if not line.startswith("note: ")] == error[-1:]
    assert error[-1].startswith("error: ") and message in error[-1]
    assert (folder / "run" / "metrics.jsonl").read_text() == before


def test_the_device_is_an_option_and_does_not_change_the_protocol(folder, capsys):
    for option in ([], ["--device", "cpu"]):
        assert main([str(folder / "run"), *option, "--samples", "4", "--out", "found.jsonl"]) == 0
    results = [(one.name, one.value, one.protocol) for one in read_results(Path("found.jsonl"))]
    assert results[: len(results) // 2] == results[len(results) // 2 :]
    if not torch.cuda.is_available():
        assert main([str(folder / "run"), "--device", "cuda"]) == 2
        assert "--device is 'cuda', but PyTorch sees no GPU" in capsys.readouterr().err


def test_damaged_and_foreign_generators_are_one_line(folder, capsys):
    place = checkpoint.found(folder / "run" / "checkpoints")[-1]
    config = (folder / "run" / "config.gin").read_text()
    wide = config.replace("generator.style.channels = [16, 16, 16]", "generator.style.channels = [16, 32, 16]")
    (folder / "run" / "config.gin").write_text(wide)
    assert wide != config and main([str(folder / "run")]) == 2
    assert "does not fit the generator of its config.gin" in capsys.readouterr().err
    (place / "ema.safetensors").write_bytes(b"damaged")
    assert main([str(place)]) == 2
    assert "is missing or damaged" in capsys.readouterr().err


def test_an_interrupted_evaluation_writes_nothing(folder, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("stylenat.evaluation.evaluate.collect_generated", interrupted)
    before = (folder / "run" / "metrics.jsonl").read_text()
    assert main([str(folder / "run")]) == 75
    assert (folder / "run" / "metrics.jsonl").read_text() == before and "stopped" in capsys.readouterr().err


def test_the_same_command_goes_on_after_a_kill_and_writes_what_it_would_have_written(folder, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY", 0.0)
    ask = [str(folder / "run"), "--cache", "cache", "--samples", "40"]
    assert main([*ask, "--out", "whole.jsonl", "--no-cache"]) == 0
    images, made = Sampler.images, []

    def killed_after_20(self, batch):
        if len(made) == 5:
            raise RuntimeError("killed")
        made.append(batch)
        return images(self, batch)

    monkeypatch.setattr(Sampler, "images", killed_after_20)
    with pytest.raises(RuntimeError, match="killed"):
        main([*ask, "--out", "here.jsonl"])
    assert not Path("here.jsonl").exists()
    made.clear()
    monkeypatch.setattr(Sampler, "images", lambda self, batch: (made.append(batch), images(self, batch))[1])
    assert main([*ask, "--out", "here.jsonl"]) == 0
    assert min(batch.start for batch in made) == 16  # One block of 16 was complete.
    whole, here = (read_results(Path(name)) for name in ("whole.jsonl", "here.jsonl"))
    assert [(r.name, r.value, r.protocol) for r in whole] == [(r.name, r.value, r.protocol) for r in here]


@pytest.mark.parametrize("name", [path.name for path in sorted((experiments_folder() / "metrics").glob("*.gin"))])
def test_the_shipped_metrics_are_part_of_an_experiment_that_includes_them(name, tiny, capsys):
    base = "stylegan3_quickstart.gin" if name == "equivariance50k.gin" else "quickstart.gin"
    Path("mine.gin").write_text(f"include '{base}'\ninclude 'metrics/{name}'\n")
    assert run(["--gin", "mine.gin", "--dry-run"]) == 0


def test_a_line_is_what_the_docs_say(folder):
    (line,) = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    names = ["step", "images", "time", "metrics", "spread", "intervals", "protocol", "training"]
    assert list(json.loads(line)) == names


FAILING = '''
from plugins.metrics.spectrum import Spectrum
from registry import hookimpl

class Failing(Spectrum):
    """Fails."""
    name = "failing"
    def compare(self, real, fake):
        raise RuntimeError("no value today")

@hookimpl
def stylenat_register(register):
    register("metric", "failing", Failing)
'''


def test_a_failing_metric_is_one_line_and_null_beside_the_others(folder, capsys):
    Path("failing.py").write_text(FAILING)
    bind = ["--bind", "train.metrics = [@metric.failing(), @metric.spectrum()]", "--plugin", "failing.py"]
    assert main([str(folder / "run"), *bind, "--baselines", "--out", "here.jsonl"]) == 0
    out = capsys.readouterr()
    assert "failing not measured: RuntimeError: no value today\n" in out.err and "null" in out.out
    failing, spectrum = read_results(Path("here.jsonl"))
    assert (failing.name, failing.value) == ("failing", None) and spectrum.value > 0


def test_where_all_metrics_fail_nothing_is_written(folder, capsys):
    Path("failing.py").write_text(FAILING)
    bind = ["--bind", "train.metrics = [@metric.failing()]", "--plugin", "failing.py"]
    assert main([str(folder / "run"), *bind, "--out", "here.jsonl"]) == 2
    out = capsys.readouterr()
    (error,) = [line for line in out.err.splitlines() if not line.startswith("note: ")]
    assert error.startswith("error: ") and error.endswith("failing not measured: RuntimeError: no value today")
    assert not Path("here.jsonl").exists() and out.out == ""


def test_a_generator_that_is_not_finite_is_neither_measured_nor_sampled(folder, monkeypatch, capsys):
    from stylenat.commands.sample import main as sample

    place = checkpoint.found(folder / "run" / "checkpoints")[-1]
    # Finite themselves: weights that are not are refused before.
    state = {name: tensor.clamp(-1, 1) * 3e38 for name, tensor in checkpoint.weights(place, "ema").items()}
    monkeypatch.setattr("stylenat.checkpoint.weights", lambda *arguments: state)
    before = (folder / "run" / "metrics.jsonl").read_text()
    for command in (main, sample):
        assert command([str(folder / "run"), "--out", "out"]) == 2
        (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert "the generator's images are not finite" in error
    assert (folder / "run" / "metrics.jsonl").read_text() == before and not Path("out").exists()


def test_a_metric_that_fails_in_training_is_null_and_the_run_finishes(tiny, capsys):
    Path("failing.py").write_text(FAILING)
    bind = ["--bind", "train.metrics = [@metric.failing(), @metric.spectrum()]", "--plugin", "failing.py"]
    assert run([*tiny, *bind, "--run-dir", "run"]) == 0
    failing, spectrum = read_results(Path("run/metrics.jsonl"))
    assert failing.value is None and spectrum.value > 0
    assert "failing not measured: RuntimeError: no value today" in capsys.readouterr().err
