"""The published systems' weights in this project's networks, and back.

Which names those systems use is known to plugins of the kind ``checkpoint_layout``, not to this file.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from registry import Registry, UserError, load_plugins
from stylenat.interfaces import CheckpointLayout

OWN = "own"
"""The layout of this project's own files: the names of ``state_dict``."""


@dataclass(frozen=True)
class Translation:
    """What became of a state's names.

    Attributes:
        tensors: by our names, complete only where ``missing`` and ``misfits`` are empty.
        used, constants, left_over: their names: weights taken, what is no weight, what nothing here has a place for.
        missing: their names of tensors that the network has and the state has not.
        misfits: a line for each tensor whose shape is not the network's.
    """

    tensors: dict[str, Tensor]
    used: list[str]
    constants: list[str]
    missing: list[str]
    left_over: list[str]
    misfits: list[str]

    def check(self, what: str) -> dict[str, Tensor]:
        """The tensors. Raises UserError unless every one is there in the network's shape."""
        problems = self.misfits + [f"{name} is missing" for name in self.missing]
        if problems:
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise UserError(f"{what} does not fit the network: {'; '.join(problems[:3])}{more}")
        return self.tensors


def layouts(registry: Registry) -> dict[str, CheckpointLayout]:
    """Every registered layout, by name."""
    return {name: registry.find(f"checkpoint_layout.{name}").load()() for name in registry.names("checkpoint_layout")}


def layout_of(names: Collection[str], registry: Registry, network: str) -> str:
    """The name of the layout that a ``network`` (``generator``, ``discriminator`` or ``hydra``) is stored in.

    Raises UserError when none, or more than one, recognises the names.
    """
    known = layouts(registry)
    found = [name for name, layout in known.items() if network in layout.networks and layout.recognises(names)]
    if len(found) == 1:
        return found[0]
    some = ", ".join(list(names)[:3])
    if found:
        raise UserError(f"the layouts {', '.join(found)} all recognise this {network} ({some}, ...); name one")
    raise UserError(
        f"no layout recognises the names of this {network} ({some}, ...); there are {', '.join(known)}, and a plugin "
        "of the kind checkpoint_layout brings others"
    )


def to_ours(state: Mapping[str, Tensor], network: nn.Module, layout: CheckpointLayout | None) -> Translation:
    """A state in another system's names as one of ours; ``layout`` None for our own names.

    The network is asked for names and shapes alone and may be on the meta device. Data types stay the state's.
    """
    own = network.state_dict()
    if layout is None:
        pairs = [(name, (name,), None) for name in own]
        constants: set[str] = set()
    else:
        pairs = [(p.ours, p.theirs if isinstance(p.theirs, tuple) else (p.theirs,), p) for p in layout.pairs(network)]
        constants = set(layout.constants(network)) & set(state)
    tensors, used, missing, misfits = {}, [], [], []
    for ours, theirs, pair in pairs:
        if absent := [name for name in theirs if name not in state]:
            missing += absent
            continue
        used += theirs
        wanted = (pair.to_theirs(own[ours]) if pair else own[ours]).shape
        parts = [state[name] for name in theirs]
        share = (wanted[0] // len(parts), *wanted[1:]) if len(parts) > 1 else tuple(wanted)
        wrong = [(name, part) for name, part in zip(theirs, parts, strict=True) if tuple(part.shape) != share]
        misfits += [f"{name} is {list(part.shape)}, the network's {list(share)}" for name, part in wrong]
        # Other floating-point numbers are cast; a network cannot mean what whole or complex ones say.
        other = [
            n for n, p in zip(theirs, parts, strict=True) if p.is_floating_point() != own[ours].is_floating_point()
        ]
        misfits += [f"{name} holds {_numbers(state[name])}, the network's {_numbers(own[ours])}" for name in other]
        if not wrong and not other:
            whole = torch.cat(parts) if len(parts) > 1 else parts[0]
            tensors[ours] = (pair.to_ours(whole) if pair else whole).contiguous()
    missing += [f"{name} (ours)" for name in set(own) - {ours for ours, _, _ in pairs}]
    left_over = [name for name in state if name not in constants.union(used)]
    return Translation(tensors, used, sorted(constants), missing, left_over, misfits)


def _numbers(tensor: Tensor) -> str:
    kind = "complex numbers" if tensor.is_complex() else "numbers" if tensor.is_floating_point() else "whole numbers"
    return f"{kind} ({str(tensor.dtype).removeprefix('torch.')})"


def check_dimensions(state: Mapping[str, Tensor], network: nn.Module, layout: CheckpointLayout, what: str) -> None:
    """Raises UserError where the layout sees that the state is of another resolution or number of classes."""
    if not hasattr(layout, "dimensions"):
        return
    there = layout.dimensions(state)
    here = {name: getattr(network, name, 0) for name in there}
    if there != here:
        raise UserError(f"{what} has {_listed(there)}, and the experiment's network {_listed(here)}; bind the same")


def _listed(dimensions: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in dimensions.items())


def space_of(layout: CheckpointLayout | None) -> str:
    """The pixel space of the layout's networks: ImageNet's unless it says otherwise."""
    return getattr(layout, "pixel_space", "imagenet")


def layout_for(network: nn.Module, kind: str, registry: Registry) -> str:
    """The first layout by name that has a place for every tensor of a ``generator`` or ``discriminator`` of ours.

    Raises UserError when there is none.
    """
    known = layouts(registry)
    for name, layout in known.items():
        try:
            if kind in layout.networks and {pair.ours for pair in layout.pairs(network)} == set(network.state_dict()):
                return name
        except UserError:  # Its way of saying that it has no names for this network.
            continue
    raise UserError(f"no layout has names for this {kind} ({type(network).__name__}); there are {', '.join(known)}")


def to_theirs(state: Mapping[str, Tensor], network: nn.Module, layout: CheckpointLayout) -> dict[str, Tensor]:
    """One of our states in another system's names, without constants; ``state`` may hold a part, or gradients."""
    found = {}
    for pair in layout.pairs(network):
        if pair.ours in state:
            tensor = pair.to_theirs(state[pair.ours])
            names = pair.theirs if isinstance(pair.theirs, tuple) else (pair.theirs,)
            parts = tensor.chunk(len(names)) if len(names) > 1 else (tensor,)
            # Copies: safetensors and pickles alike would otherwise write what views share, or whole storages.
            found |= {name: part.contiguous().clone() for name, part in zip(names, parts, strict=True)}
    return found


def generator_from_reference(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], registry: Registry | None = None
) -> nn.Module:
    """This project's generator with a published system's weights.

    Args:
        config: the other system's configuration, such as ``{"size": 256, "generator": {...}}``.
        state_dict: weights in its names; its layout is found by them.
        registry: where layouts come from; the installed plugins by default.

    Raises:
        UserError: an option that cannot be built, or weights that do not fit.
    """
    return _from_reference("generator", config, state_dict, registry)


def discriminator_from_reference(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], registry: Registry | None = None
) -> nn.Module:
    """This project's discriminator with a published system's weights; as ``generator_from_reference``."""
    return _from_reference("discriminator", config, state_dict, registry)


def hydra_from_reference(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], registry: Registry | None = None
) -> nn.Module:
    """This project's HydraAttention with a published system's weights; as ``generator_from_reference``."""
    return _from_reference("hydra", config, state_dict, registry)


def _from_reference(
    kind: str, config: Mapping[str, Any], state: Mapping[str, Tensor], registry: Registry | None
) -> nn.Module:
    registry = registry or load_plugins()
    layout = layouts(registry)[layout_of(state, registry, kind)]
    network = layout.build(config)
    check_dimensions(state, network, layout, f"the {kind}'s state")
    translation = to_ours(state, network, layout)
    tensors = translation.check(f"the {kind}'s state")
    if translation.left_over:
        raise UserError(f"the {kind}'s configuration has unsupported keys: {', '.join(translation.left_over[:3])}, ...")
    # A state recorded in float64 makes a float64 network.
    network.to(next(iter(tensors.values())).dtype)
    network.load_state_dict(tensors)
    return network
