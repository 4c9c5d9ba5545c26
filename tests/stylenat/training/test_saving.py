"""Which checkpoints stay, and that writing them in the background loses nothing and hides nothing."""

import errno
import threading

import pytest
import torch
from torch import nn

from registry import UserError
from stylenat import checkpoint
from stylenat.training.saving import Writer


def empty(directory, *steps):
    for step in steps:
        checkpoint.save(directory, step, {"generator": {"w": torch.tensor([float(step)])}}, {"step": step})


@pytest.mark.parametrize(
    "rules, kept",
    [
        ({"newest": 1, "every": None, "best": None}, [60]),
        ({"newest": 2, "every": None, "best": 20}, [20, 50, 60]),
        ({"newest": 1, "every": 30, "best": None}, [30, 60]),
        ({"newest": 2, "every": 20, "best": 10}, [10, 20, 40, 50, 60]),
        ({"newest": 9, "every": None, "best": None}, [10, 20, 30, 40, 50, 60]),
    ],
)
def test_a_checkpoint_stays_while_one_rule_keeps_it(tmp_path, rules, kept):
    empty(tmp_path, 10, 20, 30, 40, 50, 60)
    checkpoint.prune(tmp_path, 10**9, **rules)
    assert [checkpoint.step_of(path) for path in checkpoint.found(tmp_path)] == kept


def test_what_is_changed_after_the_copy_is_not_in_the_checkpoint(tmp_path, monkeypatch):
    network, state = nn.Linear(3, 2), {"best": {"fid": 1.0}, "steps": [torch.tensor(1)]}
    before = network.weight.detach().clone()
    go, save = threading.Event(), checkpoint.save

    def late(*arguments):
        assert go.wait(60)
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", late)
    with Writer(tmp_path) as writer:
        writer.save(1, {"generator": network.state_dict()}, state)
        assert writer.written() is None
        with torch.no_grad():
            network.weight.zero_()
        state["best"]["fid"] = 0.0
        state["steps"][0].add_(1)
        go.set()
        assert writer.drained() == tmp_path / "step-000000001"
        assert writer.written() is None  # Said once.
    assert torch.equal(checkpoint.weights(tmp_path / "step-000000001", "generator")["weight"], before)
    assert checkpoint.state(tmp_path / "step-000000001") == {"best": {"fid": 1.0}, "steps": [torch.tensor(1)]}


def test_one_is_in_flight_at_a_time_and_leaving_waits_for_it(tmp_path, monkeypatch):
    save, at_once, most = checkpoint.save, [], []

    def counted(*arguments):
        at_once.append(None)
        most.append(len(at_once))
        path = save(*arguments)
        at_once.pop()
        return path

    monkeypatch.setattr(checkpoint, "save", counted)
    with Writer(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.save(step, {"generator": {"w": torch.full((1000,), float(step))}}, {"step": step})
    assert most == [1, 1, 1]
    for step in (1, 2, 3):
        path = checkpoint.checkpoint_path(tmp_path, step)
        checkpoint.verify(path)
        assert checkpoint.weights(path, "generator")["w"][0] == step == checkpoint.state(path)["step"]


@pytest.mark.parametrize("ask", ["written", "drained", "save", "leave"])
def test_a_full_disk_is_told_at_the_next_step(tmp_path, monkeypatch, ask):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    empty(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(UserError, match="no disk space left"):
        with Writer(tmp_path) as writer:
            writer.save(2, {"generator": {}}, {})
            while ask == "written":
                writer.written()
            if ask == "drained":
                writer.drained()
            if ask == "save":
                writer.save(3, {"generator": {}}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_a_failure_of_training_is_not_hidden_by_one_of_the_writer(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(ZeroDivisionError) as caught:
        with Writer(tmp_path) as writer:
            writer.save(2, {"generator": {}}, {})
            raise ZeroDivisionError
    assert "no disk space left" in caught.value.__notes__[0]


def test_a_checkpoint_that_is_written_again_is_there_at_any_moment(tmp_path, monkeypatch):
    empty(tmp_path, 1)

    class PowerCut(BaseException):
        pass

    rename = type(tmp_path).rename

    def cut(path, target):
        if path.name.startswith(checkpoint.PARTIAL):
            raise PowerCut
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", cut)
    with pytest.raises(PowerCut):
        empty(tmp_path, 1)
    monkeypatch.undo()
    assert not checkpoint.found(tmp_path)
    checkpoint.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    checkpoint.verify(tmp_path / "step-000000001")
