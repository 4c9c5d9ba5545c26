"""A step on what is not finite changes nothing; any other is the optimiser's own, to the bit."""

import copy

import pytest
import torch
from pretended_gpu import pretended_gpu
from torch import nn

from stylenat.training.guards import Guard, guarded_step
from stylenat.training.optimizers import Adam


def pair():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    return network, Adam(betas=(0.5, 0.99))(network.parameters(), 1e-2)


def everything(network, optimizer):
    return copy.deepcopy([network.state_dict(), optimizer.state_dict()["state"]])


def backward(network, optimizer, factor=1.0):
    optimizer.zero_grad()
    loss = factor * network(torch.ones(3, 5)).square().mean()
    loss.backward()
    return loss


def same(a, b):
    return torch.equal(torch.cat([t.flatten() for t in tensors(a)]), torch.cat([t.flatten() for t in tensors(b)]))


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for item in (value.values() if isinstance(value, dict) else value) for t in tensors(item)]


@pytest.mark.parametrize("clip", [None, 0.1, 10.0])
def test_a_finite_step_is_the_optimisers_own_to_the_bit(clip):
    ours, plain = pair(), pair()
    for _ in range(3):
        scalars = guarded_step(ours[1], "generator", backward(*ours), clip)
        backward(*plain)
        norm = nn.utils.clip_grad_norm_(plain[0].parameters(), float("inf") if clip is None else clip)
        plain[1].step()
        assert scalars["skipped/generator"] == 0 and torch.equal(scalars["gradient_norm/generator"], norm)
    assert same(everything(*ours), everything(*plain))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_step_that_is_not_finite_changes_nothing(factor, clip):
    network, optimizer = pair()
    guarded_step(optimizer, "generator", backward(network, optimizer), clip)
    before = everything(network, optimizer)
    assert guarded_step(optimizer, "generator", backward(network, optimizer, factor), clip)["skipped/generator"] == 1
    assert same(everything(network, optimizer), before)


def test_one_bad_gradient_is_enough_and_so_is_a_bad_loss():
    network, optimizer = pair()
    loss = backward(network, optimizer)
    network[0].bias.grad[2] = float("nan")
    before = copy.deepcopy(network.state_dict())
    assert guarded_step(optimizer, "generator", loss)["skipped/generator"] == 1
    backward(network, optimizer)
    assert guarded_step(optimizer, "generator", torch.tensor(float("inf")))["skipped/generator"] == 1
    assert same(before, network.state_dict())


def test_what_was_skipped_is_read_from_a_gpu_in_one_transfer():
    with pretended_gpu() as gpu:
        guard = Guard()
        for skipped in (0.0, 1.0, 1.0):
            flags = {
                "skipped/generator": torch.full((), skipped, device="cuda"),
                "skipped/r1": torch.zeros((), device="cuda"),
            }
            assert not gpu.events
            guard.note(flags, read_every=3)
        assert guard.skipped == {"generator": 2} and guard.in_a_row == 2 and len(gpu.events) == 1
        assert guard.note({}, read_every=3) == {} and guard.in_a_row == 0


def test_counts_survive_a_checkpoint():
    guard, restored = Guard(), Guard()
    guard.note({"skipped/generator": torch.ones(()), "skipped/r1": torch.zeros(())}, read_every=3)
    guard.roll_backs = 2
    restored.load_state_dict(guard.state_dict())
    assert (restored.skipped, restored.in_a_row, restored.roll_backs) == ({"generator": 1}, 1, 2)
