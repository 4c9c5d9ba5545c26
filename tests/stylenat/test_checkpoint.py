import errno
import json

import pytest
import torch
from torch import nn

from registry import UserError
from stylenat import checkpoint


@pytest.fixture
def network():
    return nn.Linear(3, 2)


def save(directory, step, network, state=None):
    return checkpoint.save(directory, step, {"generator": network.state_dict()}, state or {})


def test_the_newest_are_kept_and_read_back(tmp_path, network):
    for step in (1, 2, 3):
        save(tmp_path, step, network, {"step": step})
        checkpoint.prune(tmp_path, step, newest=2, every=None, best=None)
    assert [path.name for path in checkpoint.found(tmp_path)] == ["step-000000002", "step-000000003"]
    path = checkpoint.newest_good(tmp_path, pytest.fail)
    assert torch.equal(checkpoint.weights(path, "generator")["weight"], network.weight)
    assert checkpoint.state(path) == {"step": 3}


def test_a_damaged_checkpoint_left_beyond_the_new_one_does_not_cost_the_new_one_its_place(tmp_path, network):
    for step in (20, 10):
        save(tmp_path, step, network)
    (checkpoint.checkpoint_path(tmp_path, 20) / "state.pt").write_bytes(b"")
    checkpoint.prune(tmp_path, 10, newest=1, every=None, best=None)
    assert checkpoint.newest_good(tmp_path, lambda line: None) == checkpoint.checkpoint_path(tmp_path, 10)


@pytest.mark.parametrize("writer", ["save_tensors", "torch.save"])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(tmp_path, network, monkeypatch, writer):
    save(tmp_path, 1, network)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{checkpoint.__name__}.{writer}", full)
    with pytest.raises(UserError, match="no disk space left"):
        save(tmp_path, 2, network)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    checkpoint.verify(tmp_path / "step-000000001")


def test_a_later_format_is_refused_by_name(tmp_path, network):
    path = save(tmp_path, 1, network)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format_version": checkpoint.FORMAT_VERSION + 1}))
    with pytest.raises(UserError, match="upgrade"):
        checkpoint.verify(path)
