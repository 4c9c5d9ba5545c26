"""A checkpoint that the first format wrote is continued."""

import shutil
from pathlib import Path

from stylenat import checkpoint
from stylenat.commands.run import main

FORMAT_1 = Path(__file__).parents[1] / "stylenat/training/data/format-1"


def test_a_checkpoint_of_format_1_is_continued(tiny):
    binds = ["generator.style.channels = [8, 8, 8]", "generator.style.latent_dim = 8", "generator.style.style_dim = 8",
             "generator.style.mapping_layers = 1", "block.hydra.mlp_ratio = 1",
             "discriminator.wavelet.channels = [4, 4]", "train.metrics = []", "train.trackers = []"]  # fmt: skip
    for bind in binds:
        tiny += ["--bind", bind]
    folder = Path("step-000000002")
    shutil.copytree(FORMAT_1, folder)
    assert checkpoint.verify(folder)["format_version"] == 1
    assert main([*tiny, "--run-dir", "run", "--resume", str(folder)]) == 0
    manifest = checkpoint.verify(Path("run/checkpoints/step-000000004"))
    assert manifest["format_version"] == checkpoint.FORMAT_VERSION
    before, after = checkpoint.state(folder), checkpoint.state(Path("run/checkpoints/step-000000004"))
    moments = [state["generator_optimizer"]["state"][0] for state in (before, after)]
    assert moments[0]["step"] == 2 and moments[1]["step"] == 4
