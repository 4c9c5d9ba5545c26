import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from registry import load_plugins
from stylenat.ablation.outcomes import outcomes
from stylenat.commands._command import ASIDE, CORE, experiments_folder
from stylenat.commands.ablate import main
from stylenat.commands.run import main as run

SHIPPED = sorted(path.name for path in (experiments_folder() / "ablations").glob("*.gin"))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("quick", [[], ["--quick"]], ids=["whole", "quick"])
def test_every_shipped_ablation_is_valid_from_any_folder(name, quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--gin", f"ablations/{name}", "--dry-run", *quick]) == 0
    assert "runs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_there_is_an_ablation_of_every_part():
    assert {Path(name).stem for name in SHIPPED} >= {
        "head_partitions", "kernel_dilation", "block", "loss", "regularizers", "augmentation_data",
    }  # fmt: skip


def test_an_ablation_file_is_also_its_base_experiment(ablation_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["--gin", str(ablation_file), "--dry-run"]) == 0


def test_commands_are_one_a_line_and_start_what_was_checked(ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--gin", str(ablation_file), "--print-commands", "--out", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(" -m stylenat run --gin out/configs/" in line for line in lines)
    assert [line.split()[-1] for line in lines] == [f"out/{v}-seed{s}" for s in (0, 1) for v in ("near", "far")]
    config = Path("out/configs/far-seed1.gin").read_text()
    assert "stylenat.train.seed = 1" in config and "@partition.global()" in config and "ablation." not in config
    assert "tracker.aim.labels = {'variant': 'far', 'seed': 1}" in config
    manifest = json.loads(Path("out/ablation.json").read_text())
    assert list(manifest["variants"]) == ["near", "far"] and len(manifest["runs"]) == 4


def test_an_ablation_runs_skips_the_finished_and_refuses_what_changed(
    ablation_file, tmp_path, monkeypatch, capfd, everything
):
    monkeypatch.chdir(tmp_path)
    arguments = ["--gin", str(ablation_file), "--quick", "--bind", "train.metrics = []"]
    arguments += [
        "--bind",
        "train.trackers = [@tracker.progress(), @tracker.jsonl()]",
        "--bind",
        "ablation.seeds = [0]",
        "--threads",
        "1",
    ]
    assert main(arguments) == 0
    out = capfd.readouterr()
    assert "2 of 2 runs are finished, in runs/heads-quick" in out.out
    assert Path("runs/heads-quick/far-seed0/checkpoints/step-000000004").is_dir()
    # Its runs were forks of a process that had imported PyTorch.
    assert run(["--gin", "runs/heads-quick/configs/far-seed0.gin", "--run-dir", "alone"]) == 0
    assert everything(Path("alone")) == everything(Path("runs/heads-quick/far-seed0"))
    capfd.readouterr()
    assert main(arguments) == 0
    assert "nothing to do" in capfd.readouterr().out
    assert main([*arguments, "--bind", "train.generator_learning_rate = 0.5"]) == 2
    error = capfd.readouterr().err
    assert "holds a run of other settings (train.generator_learning_rate: 0.5 here, 0.001 there)" in error


def test_a_folder_forgets_no_run_and_takes_no_other_ablation(ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--gin", str(ablation_file), "--print-commands", "--out", "out"]
    assert main(arguments) == 0
    other = "ablation.variants = {'third': ['block.hydra.partition = @partition.pyramid()'], 'near': \
['block.hydra.partition = @partition.uniform()']}"
    assert main([*arguments, "--bind", other, "--bind", "ablation.seeds = [2]"]) == 0
    manifest = json.loads(Path("out/ablation.json").read_text())
    assert list(manifest["variants"]) == ["near", "far", "third"] and manifest["seeds"] == [0, 1, 2]
    assert len(manifest["runs"]) == 6
    assert main([*arguments, "--quick"]) == 2
    assert "out holds the ablation 'heads'; choose another folder with --out" in capsys.readouterr().err
    for damage in ("[]", "{}", "{", '{"format_version": 2}', '{"format_version": 1, "name": "heads", "seeds": 3}'):
        Path("out/ablation.json").write_text(damage)
        assert main(arguments) == 2
        assert "out/ablation.json cannot be read" in capsys.readouterr().err
        assert Path("out/ablation.json").read_text() == damage


def test_bindings_win_over_the_small_version(ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    binds = ["--bind", "train.iterations = 5", "--bind", "ablation.seeds = [0, 1, 2]"]
    assert main(["--gin", str(ablation_file), "--quick", "--dry-run", *binds]) == 0
    assert "6 runs, 30 iterations" in capsys.readouterr().out


@pytest.mark.parametrize(
    "bindings, message",
    [
        (["ablation.variants = {'a': ['train.losss = 3']}"], "variant 'a': --bind 'train.losss = 3'"),
        (["ablation.variants = {'a': ['block.hydra.partition = @partition.fibonaci()']}"], "variant 'a'"),
        (["ablation.variants = {'a': [], 'b': []}"], "'a' and 'b' are the same experiment"),
        (["ablation.variants = {'a': ['partition.pyramid.kernel_size = 5'], 'b': []}"], "are the same experiment"),
        (["ablation.variants = {'a': ['partition.split.kernel_size = 9']}"], "variant 'a'"),
        (["ablation.variants = {'a': ['train.batch_size = 8']}"], "changes train.batch_size (8; 4 without it)"),
        (["ablation.variants = {'a': ['train.seed = 8']}"], "all variants have the seeds of ablation.seeds"),
        (["ablation.variants = {'a': ['train.evaluation_samples = 8']}"], "share data, budget and metrics"),
        (["ablation.variants = {'a': 'train.batch_size = 8'}"], "ablation.variants takes"),
        (["ablation.variants = {}"], "no variant is named"),
        (["ablation.grid = {'train.loss': []}"], "has no values"),
        (["ablation.quick = []"], "has no quick preset"),
        (["ablation.seeds = [-1]"], "ablation.seeds takes"),
        (["ablation.about = ['train.losss']"], "nothing in use is called 'train.losss'; did you mean 'train.loss'?"),
        ([f"ablation.variants = {{'{'a' * 101}': []}}"], "100 at most"),
    ],
)  # fmt: skip
def test_bad_ablations_get_one_line_and_exit_code_2(bindings, message, ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--gin", str(ablation_file), "--bind", "block.hydra.partition = @partition.split()"]
    arguments += [argument for binding in bindings for argument in ("--bind", binding)]
    assert main([*arguments, *(["--quick"] if "quick" in message else [])]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("error: ") and message in error[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "no gin file"),
        (["--gin", "nowhere.gin"], "there is no gin file"),
        (["--gin", "quickstart.gin"], "no variant is named"),
        (["--gin", "ablations/loss.gin", "--jobs", "0"], "--jobs must be at least 1"),
        (["--gin", "ablations/loss.gin", "--out", "/proc/nowhere"], "cannot write to /proc/nowhere"),
        (["--gin", "ablations/loss.gin", "--jobs", "999"], "cores"),
        (["--gin", "ablations/loss.gin", "--print-commands", "--threads", "2"], "set OMP_NUM_THREADS where they run"),
    ],
)
def test_bad_command_lines_get_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0]
    assert not list(tmp_path.rglob("*.gin"))


def test_a_variant_may_change_what_the_ablation_is_about(ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--gin", str(ablation_file), "--dry-run", "--bind", "ablation.about = ['train.batch_size']"]
    assert main([*arguments, "--bind", "ablation.variants = {'a': ['train.batch_size = 8'], 'b': []}"]) == 0
    assert "train.batch_size" in capsys.readouterr().out


def test_the_package_alone_offers_the_command(tmp_path):
    command = [sys.executable, "-P", "-m", "stylenat", "ablate", "--help"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "--print-commands" in said


EQUAL = ["ablation.variants = {'one': ['block.hydra.partition = @partition.split()'], 'two': ['block.hydra.partition = \
@partition.pyramid()']}", "partition.split.kernel_size = 7", "partition.pyramid.kernel_size = 7"]  # fmt: skip


def test_variants_that_build_the_same_model_are_refused_or_marked(ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--gin", str(ablation_file), "--dry-run", *(part for bind in EQUAL for part in ("--bind", bind))]
    assert main(arguments) == 2
    assert "the variants 'one' and 'two' are the same model: equal head groups" in capsys.readouterr().err
    assert main([*arguments, "--allow-equal"]) == 0
    out = capsys.readouterr().out
    assert "two (= one)" in out
    assert main([*arguments, "--bind", "partition.pyramid.kernel_size = 3"]) == 0
    assert "(= one)" not in capsys.readouterr().out


def test_a_dry_run_shows_the_head_groups_of_every_variant(ablation_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--gin", str(ablation_file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "8x8" in out and "16x16" in out
    assert "dilation 1 (3 of 16)" in out and "dilation 5 (11 of 16)" in out  # near; far


BROKEN = """
from registry import hookimpl


class Boom:
    def __call__(self, site):
        raise ZeroDivisionError("no luck")


@hookimpl
def stylenat_register(register):
    register("partition", "boom", Boom)
"""


def test_a_variant_whose_construction_raises_is_named_and_the_rest_goes_on(ablation_file, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("boom.py").write_text(BROKEN)
    variants = "{'bad': ['block.hydra.partition = @partition.boom()'], 'near': []}"
    binds = ["block.hydra.partition = @partition.uniform()", f"ablation.variants = {variants}"]
    binds += ["train.metrics = []", "train.trackers = [@tracker.jsonl()]"]
    arguments = ["--gin", str(ablation_file), "--quick", "--plugin", "boom.py"]
    arguments += [part for bind in binds for part in ("--bind", bind)]
    said = "variant 'bad' is left out, it cannot be built: ZeroDivisionError: no luck"
    assert main([*arguments, "--dry-run"]) == 1
    out = capfd.readouterr()
    assert said in out.err and "Traceback" in out.err and "near" in out.out
    assert main([*arguments, "--print-commands", "--out", "out"]) == 1
    out = capfd.readouterr()
    assert said in out.err and len(out.out.splitlines()) == 1 and "near-seed0" in out.out
    assert "ZeroDivisionError" in Path("out/logs/bad-seed0.log").read_text()
    assert outcomes(Path("out"))["bad-seed0"].reason == "it cannot be built: ZeroDivisionError: no luck"
    assert set(json.loads(Path("out/ablation.json").read_text())["runs"]) == {"bad-seed0", "near-seed0"}


def test_data_that_raise_leave_out_their_variant_alone(ablation_file, tmp_path, monkeypatch):
    from stylenat.ablation import planning as module

    monkeypatch.chdir(tmp_path)
    registry = load_plugins(core=CORE, aside=ASIDE)
    plan = module.planned(registry, [str(ablation_file)], [], [experiments_folder()], out=tmp_path / "out")
    plan.write()
    loads = iter([ZeroDivisionError("no luck"), None])

    class Data:
        trackers = ()

        @property
        def dataset(self):
            return self

        def prepare(self):
            if (error := next(loads)) is not None:
                raise error

    monkeypatch.setattr(module, "load_experiment", lambda *_: SimpleNamespace(get=lambda name: Data))
    left = module.prepare(registry, plan)
    assert [planned.variant.name for planned in left.variants] == ["far"]
    assert {job.variant for job in left.jobs} == {"far"} and left.broken[0].reason == "ZeroDivisionError: no luck"
