import pytest

from stylenat.training.run import Run


@pytest.fixture
def make_run(tmp_path):
    """Makes a run of a hundred iterations, its folder in ``tmp_path``."""

    def make(**changes):
        values = {
            "name": "faces",
            "experiment": "quickstart",
            "directory": tmp_path / "faces",
            "iterations": 100,
            "batch_size": 4,
            "config_text": "train.iterations = 100\n",
            "hparams": {"train": {"iterations": 100, "loss": "@loss.hinge()"}},
            "environment": {"seed": 7, "git": None},
        } | changes
        values["directory"].mkdir(exist_ok=True)
        return Run(**values)

    return make
