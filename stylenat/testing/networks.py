"""The contracts of kinds ``block``, ``generator`` and ``discriminator``, which gin binds as classes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from registry import AttentionSite
from stylenat.sampling import is_style_based
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
NO_NOISE = {
    "block": "fill a buffer with noise in __init__, or leave the noise to a generator, which declares it in draws",
    "generator": "declare it in draws (stylenat.draws.Draw): forward then gets the tensors by name",
    "discriminator": "leave random changes of images to an augmentation, or declare them in draws",
    "backbone": "fill a buffer with noise in __init__",
}
"""Advice for a network whose forward draws random numbers, by its kind."""


def check_block(
    block: Callable[..., nn.Module], sites: tuple[AttentionSite, ...] = BLOCK_SITES, **options: Any
) -> None:
    """Builds the block at each site, 4x4 among them, and runs it forward and backward.

    Args:
        block: the class; options: what a gin file would bind, such as ``partition=Split()``.

    Raises:
        ContractError: see ``check_network``; moreover a wrong shape, a site or style that is edited, or a
            ``describe()`` that gives no line of text.
    """
    for site in sites:

        def make(site: AttentionSite = site) -> nn.Module:
            return built(block, site=site, style_dim=24, **options)

        x = noise(3, site.resolution, site.resolution, site.channels).requires_grad_()
        style = noise(3, 24, seed=1).requires_grad_()
        check_network("block", make, {"x": x, "style": style}, tuple(x.shape), optional=("style",))
        _check_description(make)


def _check_description(make: Callable[[], nn.Module]) -> None:
    """Raises ContractError where ``describe()`` is there and gives no line of text, also on the meta device."""
    with torch.device("meta"):
        block = make()
    if hasattr(block, "describe"):
        with untouched("describe() draws nothing"):
            text = block.describe()
        line = isinstance(text, str) and bool(text.strip()) and text.isprintable()
        require(line, f"describe() must return one line of text; got {text!r}")


def check_generator(generator: Callable[..., nn.Module], **options: Any) -> None:
    """Builds the generator twice and runs it forward and backward. Choose options that make it small.

    Raises:
        ContractError: see ``check_network``; moreover missing attributes, wrong shapes, labels that make no
            difference where there are classes, or, of a style-based one, a ``forward`` that is not ``synthesis`` of the
            mapped latents, one copy a style.
    """

    def make() -> nn.Module:
        return built(generator, **options)

    network = make()
    style_based = is_style_based(network)
    for name in ("resolution", "latent_dim", *(["num_styles"] if style_based else [])):
        require(type(getattr(network, name, None)) is int, f"it needs the attribute {name}, an integer")
    latents = noise(3, network.latent_dim).requires_grad_()
    inputs, labels = {"latents": latents}, _labels(network, 3)
    declared = getattr(network, "draws", {})
    drawn = {name: draw(3, torch.Generator().manual_seed(8)) for name, draw in declared.items()}
    shape = (3, 3, network.resolution, network.resolution)
    check_network("generator", make, inputs | labels, shape, draws=drawn)
    if not style_based:
        return
    network.eval()  # In training, forward may mix styles.
    with torch.no_grad():
        styles = network.mapping(latents, *labels.values())
        require(
            styles.ndim == 2 and len(styles) == 3, f"mapping must give [batch, style_dim]; got {list(styles.shape)}"
        )
        each = styles[:, None].expand(-1, network.num_styles, -1)
        images = require_tensor(network.synthesis(each, **drawn), shape, torch.float32, "synthesis(styles)")
        whole = network(latents, *labels.values(), **drawn)
        require_close(images, whole, 1e-4, "synthesis of the mapped latents is not what forward gives")


def check_discriminator(discriminator: Callable[..., nn.Module], **options: Any) -> None:
    """Builds the discriminator twice and runs it forward, backward, and backward through its gradient (R1).

    Parameters that require no gradient, such as a pretrained feature network's, are allowed.

    Raises:
        ContractError: see ``check_network``; moreover logits that are not [batch, any number], labels that make no
            difference where there are classes, or a gradient penalty that cannot be differentiated.
    """

    def make() -> nn.Module:
        return built(discriminator, **options)

    network = make()
    require(type(getattr(network, "resolution", None)) is int, "it needs the attribute resolution, an integer")
    images = noise(4, 3, network.resolution, network.resolution).requires_grad_()
    labels = _labels(network, 4)
    logits = network(images, *labels.values())
    require(logits.ndim == 2, f"logits must be [batch, any number]; got {list(logits.shape)}")
    # Batch statistics are the discriminator's right: minibatch standard deviation is one.
    check_network("discriminator", make, {"images": images} | labels, tuple(logits.shape), independent=False)
    declared = getattr(network, "draws", {})
    drawn = {name: draw(4, torch.Generator().manual_seed(8)) for name, draw in declared.items()}
    require_tensor(network(images, *labels.values(), **drawn), tuple(logits.shape), torch.float32, "its draws' result")
    (gradient,) = torch.autograd.grad(network(images, *labels.values()).sum(), images, create_graph=True)
    penalty = gradient.square().sum()
    require(penalty.requires_grad, "the gradient of its logits cannot be differentiated, which R1 needs")
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(penalty, trained, allow_unused=True)
    finite = all(bool(torch.isfinite(g).all()) for g in found if g is not None)
    require(finite and any(g is not None for g in found), "the gradient of a gradient penalty is not finite")


def _labels(network: nn.Module, batch: int) -> dict[str, Tensor]:
    """Labels by the parameter's name, which a gradient must reach, where the network has classes; else nothing."""
    classes = getattr(network, "num_classes", 0)
    require(type(classes) is int and classes >= 0, f"num_classes must be an integer from 0; got {classes!r}")
    if not classes:
        return {}
    return {"labels": nn.functional.one_hot(torch.arange(batch) % classes, classes).float().requires_grad_()}


def check_network(
    kind: str,
    make: Callable[[], nn.Module],
    inputs: dict[str, Tensor],
    shape: tuple[int, ...],
    *,
    optional: tuple[str, ...] = (),
    independent: bool = True,
    draws: Mapping[str, Tensor] | None = None,
) -> None:
    """What every network keeps.

    Raises:
        ContractError: it is no ``nn.Module``; two builds from one seed differ; the result has another shape or
            dtype; inputs are edited or global randomness is drawn in ``forward``; an input or a parameter gets no
            finite gradient; an image depends on the others in its batch (``independent``); weights do not survive
            safetensors, a deep copy, or the meta device.
    """
    network, again, draws = make(), make(), draws or {}
    require(isinstance(network, nn.Module), f"it must be a torch.nn.Module; got {type(network).__name__}")
    same = all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), again.state_dict().values(), strict=True)
    )
    require(same, "two builds from one seed differ; draw initial weights only from torch's generator")

    with untouched(NO_NOISE[kind], **inputs):
        out = network(*inputs.values(), **draws)
    require_tensor(out, shape, torch.float32, "its result")
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    require_gradients(out, inputs | parameters, optional=optional)

    network.eval()
    with torch.no_grad():
        whole = network(*inputs.values(), **draws)
        require_close(
            network(*inputs.values(), **draws), whole, 1e-5, "in eval mode the same input gives another result"
        )
        if independent:
            first = {name: value[:1] for name, value in draws.items()}
            one = network(*(value[:1] for value in inputs.values()), **first)
            require_close(one, whole[:1], BATCH_TOLERANCE, "an item's result depends on the others in its batch")
        for parameter in again.parameters():
            parameter.add_(1)
        require_weights_round_trip(network, again)
        restored = again.eval()(*inputs.values(), **draws)
        require_close(
            restored,
            whole,
            1e-5,
            "an instance with the same weights gives another result; is some state no parameter or buffer?",
        )
    require_copyable(network)
    empty = [tuple(value.shape) for value in inputs.values()]
    declared = {name: tuple(value.shape) for name, value in draws.items()}

    def forward(module: nn.Module) -> Tensor:
        return module(*map(torch.empty, empty), **{name: torch.empty(size) for name, size in declared.items()})

    runs_on_meta(make, forward, shape)
