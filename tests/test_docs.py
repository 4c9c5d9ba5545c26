"""What docs/plugins.md and docs/gin.md show works as shown."""

import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from registry import API_VERSION, KINDS, UserError, hookimpl, load_experiment, load_plugins
from registry.gintext import read_text
from stylenat import checkpoint
from stylenat.commands._command import CORE, experiments_folder
from stylenat.commands.ablate import main as ablate
from stylenat.commands.run import main as run
from stylenat.draws import Shard, ShardGenerator
from stylenat.testing import check_average, check_loss, check_optimizer, check_regularizer, check_schedule

DOCS = Path(__file__).parents[1] / "docs"


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / file).read_text(encoding="utf-8"), re.DOTALL)


def load(text: str, tmp_path: Path, *plugins: str):
    (tmp_path / "docs.gin").write_text(text)
    registry = load_plugins(plugins, core=CORE)
    return load_experiment(registry, [tmp_path / "docs.gin"], search_path=[experiments_folder()])


def test_the_tutorials_plugin_is_the_one_that_is_tested():
    (tutorial,), (plugin, *_) = blocks("tutorial.md", "python"), blocks("plugins.md", "python")
    documented = re.search(r"\n\n    Args:\n.*?\n    \"\"\"", plugin, re.DOTALL)
    assert tutorial == plugin.replace(documented[0], '"""')


def test_the_tutorial_quotes_the_quickstart():
    text = (experiments_folder() / "quickstart.gin").read_text(encoding="utf-8")
    (quoted,) = [block for block in blocks("tutorial.md", "") if block.startswith("SIDE = ")]
    lines = [re.sub(r"\s+#.*", "", line) for line in quoted.splitlines()]
    assert len(lines) > 10 and set(lines) <= set(text.splitlines())


def test_the_one_file_plugin_trains_is_drawn_and_passes_its_test(tiny, tmp_path, monkeypatch, capsys):
    plugin, test, _, _, _, version, _ = blocks("plugins.md", "python")
    Path("fibonacci.py").write_text(plugin)
    assert plugin.startswith("# fibonacci.py\n") and test.startswith("# test_fibonacci.py\n")
    bind = ["--plugin", "fibonacci.py", "--bind", "block.hydra.partition = @partition.fibonacci()"]
    assert run([*tiny, *bind, "--run-dir", "run"]) == 0
    assert "partition.fibonacci.kernel_size = 3" in Path("run/config.gin").read_text()
    explain = ["--plugin", "fibonacci.py", "--explain", "partition.fibonacci", "--picture", "fibonacci.png"]
    assert run(explain) == 0
    assert Path("fibonacci.png").read_bytes().startswith(b"\x89PNG") and "dilation 13" in capsys.readouterr().out
    Path("test_fibonacci.py").write_text(test)
    monkeypatch.syspath_prepend(str(tmp_path))
    runpy.run_path("test_fibonacci.py")["test_fibonacci"]()
    del sys.modules["fibonacci"]
    assert version.strip() == f"STYLENAT_API = {API_VERSION}"


def test_the_bounds_that_plugins_are_shown_hold(tmp_path):
    example = blocks("plugins.md", "python")[2]
    register = "\n\nfrom registry import hookimpl\n\n\n@hookimpl\ndef stylenat_register(register):\n"
    Path(tmp_path / "bounds_example.py").write_text(example + register + '    register("metric", "example", Example)\n')
    good = {"count": 3, "rate": 0.5, "side": 7, "mode": "exact", "folder": "somewhere"}
    for name, bad in {"count": 0, "rate": 0, "side": 2000, "mode": "slow", "folder": 1, "": 0}.items():
        values = good | ({name: bad} if name else {})
        lines = [f"metric.example.{parameter} = {value!r}" for parameter, value in values.items()]
        text = "\n".join(["include 'quickstart.gin'", *lines])
        if name:
            with pytest.raises(UserError, match=f"metric.example.{name} takes "):
                load(text, tmp_path, str(tmp_path / "bounds_example.py"))
        else:
            load(text, tmp_path, str(tmp_path / "bounds_example.py"))
    del sys.modules["bounds_example"]


def test_the_recipe_of_another_paper_is_one_file_that_trains_and_passes_the_checkers(tiny, monkeypatch, tmp_path):
    plugin, gin = blocks("plugins.md", "python")[3], blocks("plugins.md", "gin")[0]
    Path("pairing.py").write_text(plugin)
    Path("pairing.gin").write_text(gin)
    small = tiny[tiny.index("--bind") :]
    assert run(["--gin", "pairing.gin", "--plugin", "pairing.py", *small, "--run-dir", "run"]) == 0
    config = Path("run/config.gin").read_text()
    assert "@loss.pairing()" in config and "generator_images = True" in config
    assert checkpoint.state(Path("run/checkpoints/step-000000004"))["drawn"] == 2 * 4 * 4
    monkeypatch.syspath_prepend(str(tmp_path))
    import pairing

    check_loss(pairing.Pairing())
    check_regularizer(pairing.FakePenalty())
    check_optimizer(pairing.DecoupledDecay())
    check_schedule(pairing.WarmUp())
    check_average(pairing.PowerFunction())


def test_the_renamed_parameters_that_plugins_are_shown_are_gin_text():
    names, renames = {"hookimpl": hookimpl}, {}
    exec(blocks("plugins.md", "python")[6], names)
    names["stylenat_renamed"](renames.__setitem__)
    text = renames["train.margin"](0.5)
    statements = [(s.selector, s.parameter, str(s.value)) for s in read_text(text, "docs")]
    assert statements == [("train", "loss", "@loss.mine()"), ("loss.mine", "margin", "0.5")]
    assert renames["loss.mine.weight"] == "loss.mine.scale"


@pytest.mark.parametrize("shard", [Shard(0, 1), Shard(1, 2)])
def test_the_draws_that_plugins_are_shown_are_the_whole_batchs(shard):
    def drawn(shard):
        names = {"torch": torch, "images": torch.zeros(4 // shard.of, 3, 8, 8), "random": ShardGenerator(5, shard)}
        exec(blocks("plugins.md", "python")[4], names)
        return names["shift"].T, names["noise"], torch.stack(names["by_pixel"])

    for part, whole in zip(drawn(shard), drawn(Shard()), strict=True):
        assert torch.equal(part, shard(whole))


def test_the_contract_table_has_every_kind_and_how_it_is_bound():
    text = (DOCS / "plugins.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)`( \(class\))? \|", text, re.MULTILINE))
    assert {name: bool(is_class) for name, is_class in rows.items()} == {
        name: kind.bound_as_class for name, kind in KINDS.items()
    }


@pytest.mark.parametrize(
    "text", [text for file in ("gin.md", "training.md", "tutorial.md") for text in blocks(file, "gin")]
)
def test_each_gin_example_is_a_whole_experiment(text, tmp_path):
    experiment = load(text, tmp_path)
    assert experiment.get("train")() is not None


@pytest.mark.parametrize("text", blocks("ablations.md", "gin"))
def test_each_ablation_example_passes_its_checks(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("docs.gin").write_text(text)
    assert ablate(["--gin", "docs.gin", "--dry-run"]) == 0


ERRORS = [line.split("|") for line in blocks("gin.md", "errors")[0].strip().splitlines()]


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_each_of_the_ten_errors_says_so(text, message, tmp_path):
    assert len(ERRORS) == 10
    with pytest.raises(UserError) as caught:
        load(f"include 'quickstart.gin'\n{text}", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'docs.gin'}:2: ") and message.strip() in str(caught.value)
    assert "\n" not in str(caught.value)


def test_evaluation_says_of_every_weights_file_what_the_code_does():
    from plugins.features.dinov2 import WEIGHTS
    from plugins.features.inception import INCEPTION
    from plugins.features.lpips import LINEAR, VGG16

    text = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| [^|]+ \| `([^`]+\.pth)` \| `([0-9a-f]{64})` \|", text, re.MULTILINE))
    assert said == {what.file: what.sha256 for what in (INCEPTION, VGG16, LINEAR, *WEIGHTS.values())}


def test_evaluation_names_every_gin_file_metric_and_compared_field():
    from stylenat.evaluation.protocol import COMPARED

    text = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    files = {f"metrics/{path.name}" for path in (experiments_folder() / "metrics").glob("*.gin")}
    assert set(re.findall(r"^\| `(metrics/\w+\.gin)`", text, re.MULTILINE)) == files
    assert all(f"`{name}`" in text for names in COMPARED.values() for name in names)
    registered = set(load_plugins(core=CORE).names("metric")) - {"precision_recall", "density_coverage"}
    assert all(f"`{name}` " in text for name in registered)
    (line,) = blocks("evaluation.md", "json")
    names = ["step", "images", "time", "metrics", "spread", "intervals", "protocol", "training"]
    assert list(json.loads(line)) == names


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_job_scripts_are_clean():
    found = 0
    for path in sorted(DOCS.glob("*.md")):
        for script in re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if "#SBATCH" in script:
                found += 1
                text = "#!/bin/bash\n" + script.removeprefix("#!/bin/bash\n")
                done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{path}: {done.stdout}"
    assert found >= 3


def test_each_moved_module_is_gone_and_its_new_place_exists():
    section = (DOCS / "migration.md").read_text(encoding="utf-8").partition("## Imports")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`(?:stylenat|registry)\..*?) \| (.*) \|$", section, re.MULTILINE)
    assert len(rows) >= 12
    for before, now in rows:
        old, new = re.findall(r"`([a-z_.]+)`", before), re.findall(r"^`([a-z_.]+)`", now)
        for name in old:
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
        for name in new:
            importlib.import_module(name)


def test_the_versions_of_formats_are_those_that_are_written():
    section = (DOCS / "migration.md").read_text(encoding="utf-8").partition("## Versions of formats")[2]
    rows = re.findall(r"^\| (.*?) \| .*? \| (\d) \|", section.partition("\n## ")[0], re.MULTILINE)
    modules = {
        "run folder": "training.run",
        "checkpoint, imported weights": "checkpoint",
        "data set": "data.lmdb_layout",
        "result": "evaluation.protocol",
        "ablation": "ablation.plan",
        "export": "exported",
        "samples": "evaluation.samples",
        "statistics of real images": "evaluation.cache",
    }
    written = {what: importlib.import_module(f"stylenat.{name}").FORMAT_VERSION for what, name in modules.items()}
    assert {what: int(number) for what, number in rows} == written | {"plugin API": API_VERSION}
