"""Every shipped experiment says what it is, and trains at another resolution by one binding."""

import re
import shlex
from pathlib import Path

import pytest

from registry import load_experiment, load_plugins
from stylenat.ablation.planning import planned
from stylenat.commands._command import ASIDE, CORE, experiments_folder
from stylenat.commands.tables import print_dry_run
from stylenat.training.footprint import footprint

FOLDER = experiments_folder()
FILES = sorted([*FOLDER.glob("*.gin"), *(FOLDER / "ablations").glob("*.gin")])
FIELDS = ("paper", "table", "expected", "hardware", "hours", "command")


@pytest.fixture(scope="module")
def registry():
    return load_plugins(core=CORE, aside=ASIDE)


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_header_says_paper_table_number_hardware_hours_and_command(path):
    fields = dict(re.findall(r"^# ([a-z]+): +(\S.*)$", header(path).partition("\n#\n")[2], re.MULTILINE))
    assert tuple(fields)[: len(FIELDS)] == FIELDS
    tool, script, gin, file, *_ = shlex.split(fields["command"])
    assert (tool, gin, file) == ("python", "--gin", f"gin/{path.relative_to(FOLDER)}")
    assert script == ("tools/ablate.py" if path.parent.name == "ablations" else "tools/run.py")
    assert re.match(r"(arXiv \d{4}\.\d{5} |none; )", fields["paper"])
    assert re.match(r"(not known|\d)", fields["hours"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_binding_sets_the_resolution_of_networks_and_data(path, registry, capsys):
    if "base/stylegan_xl.gin" in path.read_text():
        pytest.importorskip("timm")  # An extra.
    for side in (64, 128):
        experiment = load_experiment(registry, [path], [f"SIDE = {side}"], search_path=[FOLDER])
        print_dry_run(experiment)
        assert f"at {side}x{side}" in capsys.readouterr().out
        assert experiment.value("train.dataset").resolution == side


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in FILES if "# memory:" in path.read_text()], ids=lambda path: path.stem
)
def test_the_memory_that_a_header_names_is_what_is_counted(path, registry):
    text = re.search(r"^# memory: +(.*)$", header(path), re.MULTILINE)[1]
    per_image, batch, card = re.match(r"([\d.]+) GB an image .*: (\d+) images fit one card of (\d+) GB", text).groups()
    parts = int((re.search(r"accumulate = (\d+)", text) or ["", "1"])[1])
    settings = load_experiment(registry, [path], search_path=[FOLDER]).get("train")()
    found = footprint(settings)
    assert settings.batch_size == int(batch) and found.at_once(int(card)) * parts >= int(batch)
    assert found.image / 1e9 == pytest.approx(float(per_image), rel=0.05)


@pytest.mark.parametrize("name", ["head_partitions", "block"])
def test_variants_of_the_networks_can_be_built_at_another_resolution(name, registry, tmp_path):
    files, bindings = [f"ablations/{name}.gin"], ["SIDE = 64", "ablation.seeds = [0]"]
    plan = planned(registry, files, bindings, [FOLDER], out=tmp_path / "out")
    assert all("resolution = 64" in job.text for job in plan.jobs)


def test_the_earlier_name_of_the_macro_sets_the_resolution_too(registry):
    experiment = load_experiment(registry, ["ffhq256.gin"], ["RESOLUTION = 64"], search_path=[FOLDER])
    assert experiment.hparams["generator"]["style"]["resolution"] == 64
