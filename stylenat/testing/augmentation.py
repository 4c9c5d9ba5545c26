"""The contract of kind ``augmentation``: differentiable, drawn from the given generator, and resumable."""

import copy

import torch
from torch import Tensor

from stylenat.draws import Shard, ShardGenerator, augmented
from stylenat.interfaces import Augmentation
from stylenat.testing.contract import noise, require, require_gradients, require_plain_state, require_tensor, untouched

GIVEN = "draw from the torch.Generator that it is called with"
"""Advice for an augmentation that draws from a global generator."""


def check_augmentation(augmentation: Augmentation, resolution: int = 16) -> None:
    """Augments batches, lets it adapt, and continues from its saved state. The object is left as it was.

    Raises:
        ContractError: a changed shape or dtype, images edited, no gradient or one that cannot be differentiated
            again (R1 goes through it), randomness outside of the given generator, other changes to an image when the
            batch is divided among processes, or a copy that loads the state and goes on otherwise.
    """
    fresh, used = copy.deepcopy(augmentation), copy.deepcopy(augmentation)
    for batch in (1, 4):
        _check_images(used, noise(batch, 3, resolution, resolution).requires_grad_())
    for i in range(50):
        logits = noise(8, 1, seed=i).abs()
        with untouched(GIVEN, real_logits=logits):
            used.observe(logits)
        if i % 10 == 0:
            _apply(used, noise(4, 3, resolution, resolution, seed=i), i)
    scalars = used.scalars()
    plain = all(isinstance(name, str) and isinstance(value, float | int) for name, value in scalars.items())
    require(plain, f"scalars() must map names to numbers; got {dict(scalars)!r}")
    _check_images(used, noise(4, 3, resolution, resolution).requires_grad_())
    _check_shares(used, noise(8, 3, resolution, resolution))

    fresh.load_state_dict(require_plain_state(used))
    rule = "a copy that loaded its state_dict() behaves differently; everything that adapts must be in it"
    for i in range(12):
        images = noise(4, 3, resolution, resolution, seed=i)
        require(torch.equal(_apply(fresh, images, i), _apply(used, images, i)), rule)
        for one in (fresh, used):
            one.observe(noise(8, 1, seed=i))
    require(dict(fresh.scalars()) == dict(used.scalars()), rule)


def _apply(augmentation: Augmentation, images: Tensor, seed: int) -> Tensor:
    return augmentation(images, torch.Generator().manual_seed(seed)).detach()


def _check_shares(augmentation: Augmentation, images: Tensor) -> None:
    whole = augmented(augmentation, images, ShardGenerator(7, Shard()))
    for of in (2, 4):
        for shard in (Shard(index, of) for index in range(of)):
            part = augmented(augmentation, shard(images), ShardGenerator(7, shard))
            require(
                torch.allclose(part, shard(whole), rtol=1e-4, atol=1e-4),
                "an image is changed otherwise when its batch is divided among processes; what it draws and does must "
                "depend only on the image and its index in the batch (see stylenat.draws)",
            )


def _check_images(augmentation: Augmentation, images: Tensor) -> None:
    with untouched(GIVEN, images=images):
        out = augmentation(images, torch.Generator().manual_seed(7))
    require_tensor(out, tuple(images.shape), images.dtype, "what it returns")
    require_gradients(out, {"images": images})
    (gradient,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
    require(gradient.requires_grad, "its gradient cannot be differentiated again, which R1 needs")
    again = augmentation(images, torch.Generator().manual_seed(7))
    require(torch.equal(out, again), "the same generator gives other images; it must draw only from that one")
