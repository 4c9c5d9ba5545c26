"""Folders of random weights, as ``tools/import_weights.py`` makes them: a trained generator without a training."""

from pathlib import Path

import torch

from registry import load_experiment, load_plugins
from stylenat import weights
from stylenat.commands._command import CORE, experiments_folder

SMALL = {
    "quickstart.gin": ["generator.style.channels = [16, 16, 16]", "discriminator.wavelet.channels = [8, 8]"],
    "stylegan2_quickstart.gin": [],
    "r3gan_quickstart.gin": [],
    "hit_quickstart.gin": [],
    "stylegan3_quickstart.gin": [],
    "stylegan_xl_faces8.gin": [],
}


def weights_folder(folder: Path, gin: str = "quickstart.gin", *bindings: str, classes=None) -> Path:
    """The folder, with the generator of a shipped experiment and its ``config.gin``.

    Args:
        bindings: further ones; classes: ``Classes`` for a class-conditional generator.
    """
    binds = [*SMALL[gin], "train.threads = 1", "train.trackers = []", "train.metrics = []", *bindings]
    experiment = load_experiment(load_plugins(core=CORE), [gin], binds, search_path=[experiments_folder()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        generator = experiment.value("train.generator")()
    manifest = {
        "classes": None if classes is None else classes.plain(),
        "pixel_space": experiment.value("train.pixel_space"),
    }
    text = experiment.operative_text()
    weights.write(folder, {"ema": generator.state_dict()}, {"config.gin": text}, manifest)
    return folder
