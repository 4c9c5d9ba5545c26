import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from plugins.datasets.folder import Folder
from registry import UserError
from stylenat import ranks
from stylenat.attention.op import choose
from stylenat.evaluation.evaluate import Evaluator
from stylenat.training import processes
from stylenat.training.processes import joined, no_way_back, of_this_start, pick_device, prepare_in_turn


def test_a_processs_gpu_is_chosen_before_it_joins_the_others(monkeypatch):
    order = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: order.append(("device", number)))
    store = SimpleNamespace(add=lambda key, number: number)
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 1, 2)]))
    monkeypatch.setattr(distributed, "PrefixStore", lambda prefix, store: store)
    monkeypatch.setattr(processes, "of_this_start", lambda store, rank, size: store)
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


def test_processes_meet_whatever_an_earlier_start_left_in_the_store():
    """Machines count restarts each for itself, so that nothing which torchrun sets names a start."""
    store = distributed.HashStore()
    store.set_timeout(timedelta(seconds=20))
    starts = []
    for _ in range(2):
        store.set("shown/1", "a process that was killed")
        with ThreadPoolExecutor(3) as threads:
            found = [threads.submit(of_this_start, store, 0, 3), threads.submit(of_this_start, store, 2, 3)]
            store.wait(["start/a process that was killed"])
            found += [threads.submit(of_this_start, store, 1, 3)]
            first, third, second = (one.result() for one in found)
        assert not first.check(["gradients"])
        first.set("gradients", "of this start")
        assert second.get("gradients") == third.get("gradients") == b"of this start"
        starts.append(first)


@pytest.mark.parametrize(
    "restarts, processes_here, shared, noted",
    [("3", "8", "True", True), ("3", "8", "False", False), ("3", "16", "True", False), ("0", "8", "True", False)],
)
def test_restarts_that_bring_no_machine_back_are_noted(restarts, processes_here, shared, noted, monkeypatch):
    for name, value in (
        ("TORCHELASTIC_MAX_RESTARTS", restarts),
        ("WORLD_SIZE", "16"),
        ("LOCAL_WORLD_SIZE", processes_here),
        ("TORCHELASTIC_USE_AGENT_STORE", shared),
    ):
        monkeypatch.setenv(name, value)
    assert ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in (no_way_back() or "")) is noted


class Machines:
    """Threads in the place of processes, as far as ``prepare_in_turn`` needs them."""

    def __init__(self, monkeypatch, size):
        self._barrier, self._own, self._texts, self._size = threading.Barrier(size), threading.local(), {}, size
        monkeypatch.setattr(ranks, "rank", lambda: self._own.rank)
        monkeypatch.setattr(ranks, "wait_for_all", self._barrier.wait)
        monkeypatch.setattr(ranks, "gathered_text", self._gathered)

    def _gathered(self, text):
        self._texts[self._own.rank] = text
        self._barrier.wait()
        texts = [self._texts[rank] for rank in range(self._size)]
        self._barrier.wait()
        return texts

    def run(self, work):
        def one(rank):
            self._own.rank = rank
            work(rank)

        with ThreadPoolExecutor(self._size) as threads:
            list(threads.map(one, range(self._size)))


def test_on_a_machine_with_files_of_its_own_one_process_makes_the_data_set(tmp_path, monkeypatch):
    class Data:
        def __init__(self, folder):
            self.path = folder / "data"

        @property
        def creates(self):
            return None if self.path.exists() else self.path

        def prepare(self):
            if not self.path.exists():
                with open(f"{self.path}.partial", "x"):  # Fails where another process is at it.
                    threading.Event().wait(0.1)
                Path(f"{self.path}.partial").unlink()
                self.path.touch()
                made.append(self.path.parent.name)
            opened.append(self.path.parent.name)

    made, opened = [], []
    folders = [tmp_path / name for name in ("one", "one", "other", "other", "other")]
    for folder in set(folders):
        folder.mkdir()
    Machines(monkeypatch, 5).run(lambda rank: prepare_in_turn(Data(folders[rank])))
    assert made == ["one", "other"] and len(opened) == 5


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
