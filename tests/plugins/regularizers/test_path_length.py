"""Path length regularization against StyleGAN2's section 3.2, and how it depends on the division of a batch."""

import pytest
import torch
from torch import nn

from plugins.regularizers.path_length import PathLength, path_lengths
from plugins.schedules.schedules import Step
from registry import UserError
from stylenat.draws import Shard, ShardGenerator
from stylenat.interfaces import Microbatch, Time


class Linear(nn.Module):
    """Images that are a linear function of w+, so that the Jacobian is a matrix."""

    resolution, latent_dim, num_styles = 4, 3, 2

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(6, 48).double())

    def mapping(self, latents):
        return latents

    def synthesis(self, styles):
        return (styles.flatten(1) @ self.matrix).view(-1, 3, 4, 4)


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return Linear()


def term_of(shards, generator, term, latents, iteration=0):
    """The mean of the shards' terms, as an optimizer step sees it."""
    values = []
    for i in range(shards):
        shard = Shard(i, shards)
        time, random = Time(iteration, 0, 100, len(latents)), ShardGenerator(7, shard)
        batch = Microbatch(generator, None, None, time, random, latents=shard(latents), shard=shard)
        batch.latents.requires_grad_()
        values.append(term(batch))
    return torch.stack(values).mean()


def test_a_length_is_the_norm_of_the_jacobians_product_with_noise_of_a_pixels_variance(generator):
    noise = torch.randn(5, 3, 4, 4).double()
    styles = torch.randn(5, 2, 3, requires_grad=True).double()
    product = (noise.flatten(1) / 4) @ generator.matrix.t()  # sqrt(height * width) = 4; [5, w+]
    expected = product.view(5, 2, 3).square().sum(dim=2).mean(dim=1).sqrt()
    torch.testing.assert_close(path_lengths(generator, styles, noise, {}), expected)


def test_the_target_is_the_mean_after_it_was_moved_and_carries_its_gradient():
    lengths, weights = torch.tensor([1.0, 3.0], requires_grad=True), torch.full((2,), 0.5)
    term = PathLength(weight=3.0, decay=0.1, interval=4)
    term.mean = 1.0
    value = term.penalty(lengths, weights, Time(0, 0, 1, 2))
    assert float(term.mean) == pytest.approx(1.1)  # 1 + (2 - 1) / 10
    assert value.item() == pytest.approx(12 * (0.1**2 + 1.9**2) / 2)
    value.backward()
    # Without the target's own part of the gradient it would be 12 * (length - 1.1).
    mean_residual = (2 * -0.1 + 2 * 1.9) / 2
    expected = [12 * (0.5 * 2 * residual - 0.05 * mean_residual) for residual in (-0.1, 1.9)]
    torch.testing.assert_close(lengths.grad, torch.tensor(expected))


@pytest.mark.parametrize("shards", [2, 3, 4, 12])
def test_lengths_and_their_mean_do_not_depend_on_the_division_of_the_batch(generator, shards):
    latents = torch.randn(12, 3).double()
    found = []
    for division in (1, shards):
        term = PathLength(decay=0.3)
        for iteration in (0, 4):
            term_of(division, generator, term, latents, iteration)
        found.append(term.mean)
    torch.testing.assert_close(found[0], found[1])
    # With a target that its own batch does not move, the term itself is the same, too.
    whole, divided = (term_of(division, generator, PathLength(decay=0.0), latents) for division in (1, shards))
    torch.testing.assert_close(whole, divided)


@pytest.mark.parametrize("shrink, used", [(1, 8), (2, 4), (3, 2), (100, 1)])
def test_the_first_images_are_used(generator, shrink, used):
    latents = torch.randn(8, 3).double()
    seen = []
    generator.mapping = lambda latents: seen.append(latents) or latents
    term_of(1, generator, PathLength(batch_shrink=shrink), latents)
    assert torch.equal(seen[0], latents[:used])


def test_the_mean_is_in_the_state(generator):
    term = PathLength(decay=0.5)
    term_of(1, generator, term, torch.randn(4, 3).double())
    again = PathLength(decay=0.5)
    again.load_state_dict(term.state_dict())
    assert again.mean == pytest.approx(float(term.mean)) and again.mean > 0


def test_a_generator_without_styles_is_refused_in_one_line():
    with pytest.raises(UserError, match="path_length needs a generator with styles, and Linear has none"):
        PathLength().check(nn.Linear(1, 1), nn.Identity())


def test_before_its_weight_begins_nothing_is_computed_and_the_mean_stays(generator):
    term = PathLength(weight=Step(before=0.0, after=2.0, images=10))
    term.mean = 3.0
    batch = Microbatch(generator, None, None, Time(4, 9, 100, 2), torch.Generator(), latents=torch.randn(2, 3).double())
    value = term(batch)
    assert value == 0 and not value.requires_grad and term.mean == 3.0
    lengths = torch.ones(2, requires_grad=True)
    assert term.penalty(lengths, torch.full((2,), 0.5), Time(8, 10, 100, 2)).requires_grad
