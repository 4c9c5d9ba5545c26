from types import SimpleNamespace

import pytest
import torch

from plugins.datasets.folder import Folder
from registry import UserError
from stylenat.attention.op import choose
from stylenat.evaluation.evaluate import Evaluator
from stylenat.training.processes import pick_device


@pytest.fixture
def apple(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


def test_mps_is_chosen_by_name_alone(apple):
    assert pick_device("mps") == torch.device("mps")
    assert pick_device("auto").type != "mps"


def test_mps_without_an_apple_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        UserError, match="--device is 'mps', but PyTorch sees no GPU of Apple's; choose 'auto' or 'cpu'"
    ):
        pick_device("mps", "--device")


def test_mps_takes_one_process(apple, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        pick_device("mps")


@pytest.mark.parametrize("bias", [None, torch.zeros(2, 5, 5)])
def test_attention_on_mps_is_tiled(bias):
    q = SimpleNamespace(device=torch.device("mps"), dtype=torch.float32, shape=(1, 8, 8, 2, 16))
    assert choose(None, q, 3, 1, bias).name == "tiled"


def test_metrics_of_mps_are_computed_on_the_cpu(tmp_path):
    """MPS has no float64."""
    assert Evaluator(Folder(path=str(tmp_path), resolution=16), [], "mps").device.type == "cpu"
