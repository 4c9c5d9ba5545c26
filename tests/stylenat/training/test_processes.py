from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from plugins.datasets.folder import Folder
from registry import UserError
from stylenat.attention.op import choose
from stylenat.evaluation.evaluate import Evaluator
from stylenat.training.processes import joined, pick_device


def test_a_processs_gpu_is_chosen_before_it_joins_the_others(monkeypatch):
    order = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: order.append(("device", number)))
    store = SimpleNamespace(add=lambda key, number: number)
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
    monkeypatch.setattr(distributed, "PrefixStore", lambda prefix, store: store)
    monkeypatch.setattr(distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **_: order.append(("group", backend)))
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "lo")
    with joined():
        pass
    # What travels on the CPU, such as whether to stop, never reaches nccl.
    assert order == [("device", 1), ("group", "cpu:gloo,cuda:nccl")]


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
