"""What a network's modules want people to know when a run begins, such as that weights are random."""

from torch import nn


def notes(*networks: nn.Module) -> list[str]:
    """The lines of all modules with a ``note``, each once."""
    found = [note for network in networks for module in network.modules() if (note := getattr(module, "note", None))]
    return list(dict.fromkeys(found))
