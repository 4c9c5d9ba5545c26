"""The shipped experiments keep the hashes of their run folders, so that a run is continued by its own command."""

import pytest

from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder


@pytest.mark.parametrize(
    ("file", "hash"), [("quickstart", "47f11a22"), ("ffhq256", "c4acf8f6"), ("styleswin_ffhq1024", "77966a1f")]
)
def test_a_shipped_experiment_keeps_its_hash_and_its_operative_text_repeats_it(file, hash, tmp_path):
    registry = load_plugins(core=CORE)
    experiment = load_experiment(registry, [f"{file}.gin"], search_path=[experiments_folder()])
    assert experiment.hash == hash
    (tmp_path / "config.gin").write_text(experiment.operative_text())
    again = load_experiment(registry, [tmp_path / "config.gin"])
    assert again.hash == hash and again.settings() == experiment.settings()
