"""The published parameter counts, to the unit, of the experiments as shipped."""

import pytest
import torch

from registry import load_experiment, load_plugins
from stylenat.commands._command import CORE, experiments_folder

EQUALISED = "discriminator.wavelet.spectral_norm = False"


@pytest.mark.parametrize(
    "file, binding, network, parameters",
    [
        ("ffhq256.gin", None, "generator", 48_921_000),
        ("ffhq1024.gin", None, "generator", 49_452_934),
        ("styleswin_ffhq256.gin", None, "generator", 48_929_512),
        # StyleSwin's own 1024 model has m = 1.
        ("styleswin_ffhq1024.gin", None, "generator", 40_862_990),
        ("ffhq256.gin", None, "discriminator", 26_211_585),
        ("ffhq256.gin", EQUALISED, "discriminator", 26_211_073),
        ("styleswin_ffhq256.gin", None, "discriminator", 26_211_585),
        ("ffhq1024.gin", None, "discriminator", 27_736_641),
    ],
)
def test_shipped_experiments_have_the_published_parameters(file, binding, network, parameters):
    bindings = [binding] if binding else []
    experiment = load_experiment(load_plugins(core=CORE), [file], bindings, search_path=[experiments_folder()])
    with torch.device("meta"):
        built = experiment.value(f"train.{network}")()
    assert sum(p.numel() for p in built.parameters()) == parameters
