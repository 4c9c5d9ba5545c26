"""Batch norm in groups against PyTorch's, group by group."""

import pytest
import torch
from torch import nn

from registry import UserError
from stylenat.networks.batch_norm import BatchNorm, coupling, running_statistics
from stylenat.training.average import averaged_copy, update_average
from stylenat.training.build import indivisible


@pytest.mark.parametrize("group", [None, 2, 3])
def test_images_of_a_group_are_normalised_together_and_statistics_are_means_over_groups(group):
    norm = BatchNorm(5, group, eps=1e-3, momentum=0.2).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(6, 4, 3, 5, dtype=torch.double)
    out, groups = norm(x), 6 // (group or 6)
    means, variances = [], []
    for number in range(groups):
        theirs = nn.BatchNorm1d(5, eps=1e-3, momentum=0.2).double()
        theirs.load_state_dict(
            norm.state_dict() | {"running_mean": torch.zeros(5), "running_var": torch.ones(5)}, False
        )
        expected = theirs(x[number::groups].reshape(-1, 5)).view(-1, 4, 3, 5)
        torch.testing.assert_close(out[number::groups], expected)
        means.append(theirs.running_mean)
        variances.append(theirs.running_var)
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0))
    rest = (x - norm.running_mean) / (norm.running_var + 1e-3).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm.eval()(x), rest)


def test_its_gradient_is_differentiable():
    norm, x = BatchNorm(2, 2).double(), torch.randn(4, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(norm, x)


def test_images_that_do_not_divide_into_groups_are_refused():
    with pytest.raises(UserError, match="5 images do not divide into batch-norm groups of 2"):
        BatchNorm(2, 2)(torch.randn(5, 3, 2))


def test_an_average_of_weights_averages_running_statistics_and_copies_other_buffers():
    network = nn.Sequential(BatchNorm(3), nn.BatchNorm1d(3))
    network.register_buffer("vector", torch.randn(3))
    average = averaged_copy(network)
    before = {name: value.clone() for name, value in average.state_dict().items()}
    for parameter in (*network.parameters(), *(getattr(norm, name) for norm, name in running_statistics(network))):
        parameter.data.add_(torch.rand_like(parameter))
    network.vector.add_(1)
    network[1].num_batches_tracked.add_(1)
    update_average(average, network, 0.75)
    for name, now in network.state_dict().items():
        copied = name in ("vector", "1.num_batches_tracked")
        expected = now if copied else 0.75 * before[name] + 0.25 * now
        torch.testing.assert_close(average.state_dict()[name], expected, msg=name)


@pytest.mark.parametrize("norm, text", [
    (BatchNorm(3, 4), "groups of 4 images"),
    (BatchNorm(3), "another train.accumulate trains another model; the number of processes does not"),
    (nn.BatchNorm2d(3), "another number of processes x train.accumulate trains another model"),
    (nn.SyncBatchNorm(3), "another train.accumulate trains another model; the number of processes does not"),
    (nn.LayerNorm(3), None),
])  # fmt: skip
def test_how_batch_norm_couples_a_batch_is_said(norm, text):
    found = coupling(nn.Sequential(norm))
    assert found == text if text is None else text in found


def test_a_microbatch_holds_complete_groups_of_both_networks():
    discriminator = nn.Sequential(BatchNorm(3, 6))
    discriminator.stddev_group = 4
    assert indivisible(nn.Sequential(BatchNorm(3), BatchNorm(3, 8)), discriminator, 24) == 24
    assert indivisible(nn.Sequential(nn.BatchNorm1d(3)), nn.Linear(1, 1), 24) == 1
    assert indivisible(nn.Sequential(BatchNorm(3, 8)), nn.Linear(1, 1), 4) == 4
