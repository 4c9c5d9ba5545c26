"""An experiment's networks, built from its settings; how its batch is divided; what the networks cost."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat import ranks
from stylenat.draws import Shard, conditions, derived_seed
from stylenat.networks.batch_norm import check_groups, norm_groups
from stylenat.networks.counting import macs, parameters
from stylenat.sampling import check_truncation
from stylenat.training.settings import Training


def build_networks(settings: Training, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator, initialised from the run's seed whatever was drawn before.

    Raises:
        UserError: their resolutions, or the data set's, do not agree.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(settings.seed, "generator"))
        generator = settings.generator()
        torch.manual_seed(derived_seed(settings.seed, "discriminator"))
        discriminator = settings.discriminator()
    sides = {
        "generator": generator.resolution,
        "discriminator": discriminator.resolution,
        "dataset": settings.dataset.resolution,
    }
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{name} {side}" for name, side in sides.items())
        raise UserError(f"resolutions differ: {listed}; bind the same resolution to all three")
    classes = {
        name: num_classes(network) for name, network in (("generator", generator), ("discriminator", discriminator))
    }
    if len(set(classes.values())) > 1:
        listed = ", ".join(f"{name} {number}" for name, number in classes.items())
        raise UserError(f"numbers of classes differ: {listed}; bind the same num_classes to both")
    if settings.frozen_discriminator_layers:
        if not hasattr(discriminator, "freeze"):
            raise UserError("train.frozen_discriminator_layers needs a discriminator that can freeze layers")
        discriminator.freeze(settings.frozen_discriminator_layers)
    if hasattr(discriminator, "check_batch"):
        discriminator.check_batch(settings.batch_size)
    for term in (settings.loss, *settings.regularizers):
        if hasattr(term, "check"):
            term.check(generator, discriminator)
    check_truncation(generator, settings.truncation_psi)
    check_microbatches(settings, getattr(discriminator, "stddev_group", 1))
    for network in (generator, discriminator):
        check_groups(network, settings.batch_size // (settings.accumulate * ranks.world_size()), settings.batch_size)
    return generator.to(device), discriminator.to(device)


def num_classes(network: nn.Module) -> int:
    """Classes of a network that sees labels; 0 for any other."""
    return getattr(network, "num_classes", 0)


def shards_of(settings: Training) -> list[Shard]:
    """What this process trains on of every batch of the run: one shard a microbatch.

    Raises:
        UserError: the batch does not divide among processes and microbatches.
    """
    processes, parts = ranks.world_size(), settings.accumulate
    if settings.batch_size % (processes * parts):
        raise UserError(
            f"train.batch_size = {settings.batch_size} does not divide among {processes} process(es) x "
            f"train.accumulate = {parts}; use a multiple of {processes * parts}"
        )
    return [Shard(ranks.rank() + processes * part, processes * parts) for part in range(parts)]


def check_microbatches(settings: Training, stddev_group: int) -> None:
    """Raises UserError where microbatches would split minibatch-stddev groups.

    Processes can ask each other for the rest of a group; microbatches come one after the other and cannot.
    """
    group = min(settings.batch_size, stddev_group)
    images = settings.batch_size // (settings.accumulate * ranks.world_size())
    if settings.accumulate > 1 and images % group:
        raise UserError(
            f"train.accumulate = {settings.accumulate} makes microbatches of {images} images, which minibatch-stddev "
            f"groups of {group} do not fit into; accumulate less, or bind a stddev_group of the discriminator to "
            f"{math.gcd(images, group)}"
        )


def indivisible(generator: nn.Module, discriminator: nn.Module, batch_size: int) -> int:
    """The number of images that a microbatch must hold a multiple of: groups of minibatch stddev and batch norm."""
    groups = getattr(discriminator, "stddev_group", 1), *norm_groups(generator), *norm_groups(discriminator)
    return math.lcm(*(min(batch_size, group) for group in groups))


@dataclass(frozen=True)
class Size:
    """A network on the meta device; its trainable numbers; multiply-accumulates an image."""

    network: nn.Module
    parameters: int
    macs: int


def sized(settings: Training) -> dict[str, Size]:
    """``generator`` and ``discriminator``, built and run on the meta device.

    Raises UserError for whatever cannot be built, a partition that does not fit among them.
    """
    meta = torch.device("meta")
    with meta:
        generator, discriminator = build_networks(settings, meta)
        latents, labels, draws = inputs_of_one(generator)
        images = torch.empty(1, 3, generator.resolution, generator.resolution)
        given = conditions(labels)
        return {
            "generator": Size(generator, parameters(generator), macs(generator, latents, *given, **draws)),
            "discriminator": Size(discriminator, parameters(discriminator), macs(discriminator, images, *given)),
        }


def inputs_of_one(generator: nn.Module) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Zeros in the shapes that the generator takes for one image, on the default device: latents, labels (None without
    classes) and declared draws."""
    classes = num_classes(generator)
    draws = {name: torch.zeros(1, *draw.shape) for name, draw in getattr(generator, "draws", {}).items()}
    return torch.zeros(1, generator.latent_dim), torch.zeros(1, classes) if classes else None, draws
