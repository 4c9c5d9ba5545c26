"""The contract of kind ``checkpoint_layout``: every weight has its place in the other system and comes back so."""

import torch
from torch import nn

from stylenat.interfaces import CheckpointLayout
from stylenat.reference import to_ours, to_theirs
from stylenat.testing.contract import require, untouched

NETWORKS = ("generator", "discriminator", "hydra")


def check_checkpoint_layout(layout: CheckpointLayout, network: nn.Module) -> None:
    """Takes a small network of the kind that the layout names there and back.

    Raises:
        ContractError: a weight without a name, or with two; a round trip that changes a bit; constants that take a
            weight's name; names that it does not recognise as its own.
    """
    known = bool(layout.networks) and set(layout.networks) <= set(NETWORKS)
    require(known, f"networks must name some of {', '.join(NETWORKS)}; got {layout.networks!r}")
    own = network.state_dict()
    with untouched(**own):
        ours = [pair.ours for pair in layout.pairs(network)]
        require(len(set(ours)) == len(ours), "pairs() has two of one name of ours")
        require(set(ours) <= set(own), f"pairs() names what the network has not: {sorted(set(ours) - set(own))[:3]}")
        require(set(ours) == set(own), f"pairs() leaves out {sorted(set(own) - set(ours))[:3]}")
        theirs = to_theirs(own, network, layout)
        constants = layout.constants(network)
        clash = sorted(set(theirs) & set(constants))
        require(not clash, f"constants() holds the names of weights: {clash[:3]}")
        require(layout.recognises([*theirs, *constants]), "recognises() must know the names that pairs() gives")
        if hasattr(layout, "dimensions"):
            found = dict(layout.dimensions(theirs | dict(constants)))
            own_numbers = {name: getattr(network, name, 0) for name in found}
            require(found == own_numbers, f"dimensions() gives {found} for a network of {own_numbers}")
        back = to_ours(theirs | dict(constants), network, layout)
        require(not back.missing and not back.misfits, f"weights are lost on the way: {back.missing + back.misfits}")
        require(not back.left_over, f"names are left over on the way back: {back.left_over[:3]}")
        for name, tensor in own.items():
            require(torch.equal(back.tensors[name], tensor), f"{name} comes back changed")
