"""The contracts of kinds ``block``, ``generator`` and ``discriminator``, which gin binds as classes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from registry import AttentionSite
from stylenat.testing.contract import (
    built,
    noise,
    require,
    require_close,
    require_copyable,
    require_gradients,
    require_tensor,
    require_weights_round_trip,
    runs_on_meta,
    untouched,
)

BLOCK_SITES = (AttentionSite(4, 4, 32), AttentionSite(8, 4, 32, 1), AttentionSite(16, 4, 32))
BATCH_TOLERANCE = 1e-3


def check_block(
    block: Callable[..., nn.Module], sites: tuple[AttentionSite, ...] = BLOCK_SITES, **options: Any
) -> None:
    """Builds the block at each site, 4x4 among them, and runs it forward and backward.

    Args:
        block: the class; options: what a gin file would bind, such as ``partition=Split()``.

    Raises:
        ContractError: see ``_check_network``; moreover a wrong shape, a site or style that is edited, or a
            ``describe()`` that gives no line of text.
    """
    for site in sites:

        def make(site: AttentionSite = site) -> nn.Module:
            return built(block, site=site, style_dim=24, **options)

        x = noise(3, site.resolution, site.resolution, site.channels).requires_grad_()
        style = noise(3, 24, seed=1).requires_grad_()
        _check_network(make, {"x": x, "style": style}, tuple(x.shape), optional=("style",))
        _check_description(make)


def _check_description(make: Callable[[], nn.Module]) -> None:
    """Raises ContractError where ``describe()`` is there and gives no line of text, also on the meta device."""
    with torch.device("meta"):
        block = make()
    if hasattr(block, "describe"):
        with untouched():
            text = block.describe()
        line = isinstance(text, str) and bool(text.strip()) and text.isprintable()
        require(line, f"describe() must return one line of text; got {text!r}")


def check_generator(generator: Callable[..., nn.Module], **options: Any) -> None:
    """Builds the generator twice and runs it forward and backward. Choose options that make it small.

    Raises:
        ContractError: see ``_check_network``; moreover missing attributes, wrong shapes, or a ``forward`` that is
            not ``synthesis`` of the mapped latents, one copy a style.
    """

    def make() -> nn.Module:
        return built(generator, **options)

    network = make()
    for name in ("resolution", "latent_dim", "num_styles"):
        require(type(getattr(network, name, None)) is int, f"it needs the attribute {name}, a whole number")
    latents = noise(3, network.latent_dim).requires_grad_()
    shape = (3, 3, network.resolution, network.resolution)
    _check_network(make, {"latents": latents}, shape)
    with torch.no_grad():
        styles = network.mapping(latents)
        require(
            styles.ndim == 2 and len(styles) == 3, f"mapping must give [batch, style_dim]; got {list(styles.shape)}"
        )
        each = styles[:, None].expand(-1, network.num_styles, -1)
        images = require_tensor(network.synthesis(each), shape, torch.float32, "synthesis(styles)")
        require_close(images, network(latents), 1e-4, "synthesis of the mapped latents is not what forward gives")


def check_discriminator(discriminator: Callable[..., nn.Module], **options: Any) -> None:
    """Builds the discriminator twice and runs it forward, backward, and backward through its gradient (R1).

    Raises:
        ContractError: see ``_check_network``; moreover logits that are not [batch, 1], or a gradient penalty that
            cannot be differentiated.
    """

    def make() -> nn.Module:
        return built(discriminator, **options)

    network = make()
    require(type(getattr(network, "resolution", None)) is int, "it needs the attribute resolution, a whole number")
    images = noise(4, 3, network.resolution, network.resolution).requires_grad_()
    # Batch statistics are the discriminator's right: minibatch standard deviation is one.
    _check_network(make, {"images": images}, (4, 1), independent=False)
    (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    penalty = gradient.square().sum()
    require(penalty.requires_grad, "the gradient of its logits cannot be differentiated, which R1 needs")
    found = torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)
    finite = all(bool(torch.isfinite(g).all()) for g in found if g is not None)
    require(finite and any(g is not None for g in found), "the gradient of a gradient penalty is not finite")


def _check_network(
    make: Callable[[], nn.Module],
    inputs: dict[str, Tensor],
    shape: tuple[int, ...],
    *,
    optional: tuple[str, ...] = (),
    independent: bool = True,
) -> None:
    """What every network keeps.

    Raises:
        ContractError: it is no ``nn.Module``; two builds from one seed differ; the result has another shape or
            dtype; inputs are edited or global randomness is drawn in ``forward``; an input or a parameter gets no
            finite gradient; an image depends on the others in its batch (``independent``); weights do not survive
            safetensors, a deep copy, or the meta device.
    """
    network, again = make(), make()
    require(isinstance(network, nn.Module), f"it must be a torch.nn.Module; got {type(network).__name__}")
    same = all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    require(same, "two builds from one seed differ; draw initial weights from torch's generator alone")

    with untouched(**inputs):
        out = network(*inputs.values())
    require_tensor(out, shape, torch.float32, "its result")
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    require_gradients(out, inputs | parameters, optional=optional)

    network.eval()
    with torch.no_grad():
        whole = network(*inputs.values())
        require_close(network(*inputs.values()), whole, 1e-5, "in eval mode the same input gives another result")
        if independent:
            one = network(*(value[:1] for value in inputs.values()))
            require_close(one, whole[:1], BATCH_TOLERANCE, "an item's result depends on the others in its batch")
        for parameter in again.parameters():
            parameter.add_(1)
        require_weights_round_trip(network, again)
        restored = again.eval()(*inputs.values())
        require_close(
            restored,
            whole,
            1e-5,
            "an instance with the same weights gives another result; is some state no parameter or buffer?",
        )
    require_copyable(network)
    empty = [tuple(value.shape) for value in inputs.values()]
    runs_on_meta(make, lambda module: module(*(torch.empty(size) for size in empty)), shape)
