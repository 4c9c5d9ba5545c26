"""Guards: a step whose loss or gradient is not finite changes nothing, and is counted.

What follows from many of them in a row is in ``saving``.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "skipped/"


def guarded_step(
    optimizer: torch.optim.Optimizer,
    name: str,
    loss: Tensor,
    clip: float | None = None,
    loss_scale: Tensor | None = None,
) -> dict[str, Tensor]:
    """The optimiser's step on the gradients that ``loss.backward()`` left, clipped at the norm ``clip``.

    Args:
        loss: and gradients: means over all processes.
        loss_scale: in fp16. While it is above 1, a step that overflows is the search for a scale and is not counted.

    Where the loss or the gradient's norm is not finite, neither a weight nor the optimiser's state changes. Nobody
    waits for the device to know: fused optimisers read ``found_inf`` where the gradients are, as they do for a
    ``GradScaler``; others wait. All processes decide alike, since they share gradients.

    Returns:
        ``gradient_norm/<name>``, before clipping, and ``skipped/<name>``, 1 or 0; 0-d tensors.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters], foreach=True)
    if clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm, foreach=True)
    skipped = (norm + loss.detach()).isfinite().logical_not().float()
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.found_inf = skipped
        optimizer.step()
        del optimizer.found_inf
    elif not skipped:
        optimizer.step()
    counted = skipped if loss_scale is None else skipped * (loss_scale.to(skipped.device) <= 1)
    return {f"gradient_norm/{name}": norm, f"{PREFIX}{name}": counted}


class Guard:
    """Counts what was skipped, of every iteration's scalars.

    Attributes:
        skipped: steps so far, by whose they were; in_a_row: the newest iterations that had one without a break.
        roll_backs: how often the run went back to a checkpoint.
    """

    def __init__(self) -> None:
        self.skipped: dict[str, int] = {}
        self.in_a_row = 0
        self.roll_backs = 0
        self._unread: list[dict[str, Tensor]] = []

    def note(self, scalars: dict[str, Any], read_every: int) -> dict[str, Any]:
        """The scalars with the flags ``skipped/<name>`` replaced by counts.

        Args:
            read_every: iterations whose flags are read at once, since reading them waits for a GPU. On a CPU they
                are read in any case. The counts are as of the last reading.
        """
        flags = {name.removeprefix(PREFIX): value for name, value in scalars.items() if name.startswith(PREFIX)}
        self._unread.append(flags)
        if len(self._unread) >= read_every or all(flag.device.type == "cpu" for flag in flags.values()):
            self.read()
        return scalars | {f"{PREFIX}{name}": float(self.skipped.get(name, 0)) for name in flags}

    def read(self) -> None:
        """Brings the counts up to date."""
        # All in one transfer: each would wait for the device.
        every = [flag for flags in self._unread for flag in flags.values()]
        raised = iter(torch.stack(every).tolist() if every else [])
        for flags in self._unread:
            names = [name for name in flags if next(raised)]
            for name in names:
                self.skipped[name] = self.skipped.get(name, 0) + 1
            self.in_a_row = self.in_a_row + 1 if names else 0
        self._unread.clear()

    def state_dict(self) -> dict[str, Any]:
        self.read()
        return {"skipped": dict(self.skipped), "in_a_row": self.in_a_row, "roll_backs": self.roll_backs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.skipped, self.in_a_row = dict(state["skipped"]), state["in_a_row"]
        self.roll_backs = state["roll_backs"]
        self._unread.clear()


@torch.no_grad()
def weight_norms(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """``weight_norm/<name>`` of each network's parameters together."""
    return {f"weight_norm/{name}": nn.utils.get_total_norm(network.parameters()) for name, network in networks.items()}
