"""``tools/reproduce.py``, from a reference's checkpoint and an LMDB to the number beside the published one."""

import re
from pathlib import Path

import pytest
import torch

from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder
from stylenat.commands._published import names, published
from stylenat.commands.reproduce import main
from stylenat.evaluation.protocol import read_results
from stylenat.reference import layouts, to_theirs

ROOT = Path(__file__).parents[2]
EXPERIMENT = """# A small experiment with a published number.
#
# paper:    arXiv 0000.00000 (Nobody)
# table:    1
# expected: frechet_random_features-50k 0.25, after 3,000 iterations
# protocol: metrics/offline.gin against {count} images of faces
include 'quickstart.gin'
generator.style.channels = [16, 16, 16]
train.threads = 1
train.trackers = []
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Arguments: an experiment of 16x16, a checkpoint in the reference's layout, and ten images."""
    from plugins.datasets.lfw_faces import LfwFaces
    from stylenat.data.prepare import prepare

    monkeypatch.chdir(tmp_path)
    Path("small.gin").write_text(EXPERIMENT.format(count=10))
    LfwFaces(16, "faces.lmdb").prepare()
    prepare(Path("faces.lmdb"), Path("ten.lmdb"), 16, max_images=10, workers=1)
    checkpoint(0)
    return ["small.gin", "--weights", "theirs.pt", "--data", "ten.lmdb", "--samples", "16"]


def checkpoint(seed):
    registry = load_plugins(core=CORE)
    network = load_experiment(registry, ["small.gin"], search_path=[experiments_folder()]).value("train.generator")()
    torch.manual_seed(seed)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    layout = layouts(registry)["stylenat"]
    state = to_theirs(network.state_dict(), network, layout) | dict(layout.constants(network))
    torch.save({"g_ema": state}, "theirs.pt")


def test_the_measured_number_stands_beside_the_published_one(small, capsys):
    assert main(small) == 0
    out = capsys.readouterr().out
    (result,) = [r for r in read_results(Path("reproduced/small/metrics.jsonl")) if r.name == "frechet_random_features"]
    row = re.search(r"│ frechet_random_features │ +(\S+) │ +(\S+) │ +(\S+) │", out)
    assert float(row[1]) == 0.25 and float(row[2]) == pytest.approx(result.value, rel=1e-3)
    assert float(row[3]) == pytest.approx(result.value - 0.25, rel=1e-2)
    assert "arXiv 0000.00000 (Nobody)" in out and "after 3,000 iterations" in out
    assert "not comparable: 16 generated images instead of 50,000" in out and "real images instead" not in out
    assert result.protocol["generated"]["truncation_psi"] == 1.0 and result.protocol["real"]["count"] == 10

    Path("small.gin").write_text(EXPERIMENT.format(count="1,000"))
    assert main(small) == 0
    out = capsys.readouterr().out
    assert "theirs.pt is in reproduced/small already" in out
    assert "not comparable: 10 real images instead of the 1,000 of faces" in out
    first, again = [r.value for r in read_results(Path("reproduced/small/metrics.jsonl")) if r.name == result.name]
    assert first == again

    checkpoint(1)
    assert main(small) == 2
    assert "holds other weights" in capsys.readouterr().err


def test_extractor_weights_that_are_not_the_published_ones_are_said(small, capsys, monkeypatch):
    from plugins.features.random_convolution import RandomConvolution

    monkeypatch.setattr(RandomConvolution, "published_sha256", "0" * 64, raising=False)
    assert main(small) == 0
    assert "weights of random_convolution are not the published ones" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"small.gin": "ffhq265"}, "there is no experiment ffhq265; did you mean 'ffhq256'?"),
        ({"small.gin": "hit_ffhq256"}, "has no number with a protocol"),
        ({"theirs.pt": "nowhere.pt"}, "there is no file nowhere.pt"),
        ({"ten.lmdb": "nowhere.lmdb"}, "there is no data set at nowhere.lmdb"),
        ({"16": "1"}, "--samples must be at least 2"),
        ({"--samples": "--extractor-weights", "16": "nowhere.pth"}, "there is no file nowhere.pth"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(small, change, message, capsys):
    assert main([change.get(part, part) for part in small]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and message in error[0], error
    assert not Path("reproduced").exists()


def test_every_published_row_of_the_page_can_be_reproduced():
    text = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| `gin/(\w+)\.gin` \|", text, re.MULTILINE)
    assert len(rows) == 6
    for _, value, name in rows:
        assert published(name).values["fid"] == float(value)
    assert {name for *_, name in rows} <= set(names())


@pytest.mark.parametrize("name", names())
def test_the_protocol_of_a_published_row_measures_its_number(name):
    row = published(name)
    experiment = load_experiment(load_plugins(core=CORE), [row.gin, row.protocol], search_path=[experiments_folder()])
    assert row.values.keys() & {metric.name for metric in experiment.value("train.metrics")}
    assert experiment.value("train.evaluation_samples") == 50_000
    assert "50k" in row.expected and row.count >= 50_000
