"""Tracker ``attention``: mean attention distance and entropy of each group of heads, while training."""

from collections.abc import Mapping
from typing import Any

import torch

from registry import Count, UserError, hookimpl
from stylenat.attention.shown import observed, shows_attention, spread_queries, statistics
from stylenat.draws import conditions, derived_seed
from stylenat.sampling import in_evaluation
from stylenat.training.run import Run


class AttentionStatistics:
    """Adds scalars to those of an iteration, so that the other trackers record them: ``attention/LAYER/GROUP/distance``
    (as a share of the map's side) and ``.../entropy`` (nats), of the averaged generator.

    Args:
        every: iterations between them; samples: fixed images that they are means over; queries: of each image and
            layer, on a regular grid. The defaults take less than 1 % of the training time of the shipped experiments.
    """

    def __init__(self, every: Count = 500, samples: Count = 2, queries: Count = 16) -> None:
        self.every, self.samples, self.queries = every, samples, queries

    @hookimpl
    def run_started(self, run: Run) -> None:
        """Raises UserError for a generator whose attention is not shown."""
        generator = self._network(run)
        if generator is not None and not any(map(shows_attention, generator.modules())):
            raise UserError(
                f"tracker.attention: {type(generator).__name__} has no attention layer that shows its maps; leave "
                "@tracker.attention() out of train.trackers"
            )

    @hookimpl(tryfirst=True)
    def step_ended(self, run: Run, step: int, scalars: Mapping[str, Any]) -> None:
        generator = self._network(run)
        # Other trackers get the same dictionary after this one.
        if step % self.every == 0 and generator is not None and isinstance(scalars, dict):
            scalars.update(self.measured(generator))

    @torch.no_grad()
    def measured(self, generator: torch.nn.Module) -> dict[str, float]:
        """The statistics by name, of fixed latents. No random number of the run is drawn."""
        random = torch.Generator().manual_seed(derived_seed(0, "tracker.attention"))
        device = next(generator.parameters()).device
        latents = torch.randn(self.samples, generator.latent_dim, generator=random).to(device)
        classes = getattr(generator, "num_classes", 0)
        labels = torch.eye(classes, device=device)[torch.arange(self.samples) % classes] if classes else None
        with in_evaluation(generator), observed(generator, self._queries) as calls:
            draws = {name: draw(self.samples, random).to(device) for name, draw in self._draws(generator)}
            generator(latents, *conditions(labels), **draws)
        found = {}
        for layer, shown in enumerate(calls.values()):
            for number, group in enumerate(shown[0]):
                side = group.weights.shape[-1]
                numbers = statistics(group.weights.float(), self._queries(side))
                name = f"attention/{side}x{side} layer {layer}/{number} {group.label}"
                found[f"{name}/distance"] = numbers.distance / side
                found[f"{name}/entropy"] = numbers.entropy
        return found

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state."""

    def _queries(self, side: int) -> torch.Tensor:
        return spread_queries(side, self.queries)

    @staticmethod
    def _draws(generator: torch.nn.Module) -> list[tuple[str, Any]]:
        return list(getattr(generator, "draws", {}).items())

    @staticmethod
    def _network(run: Run) -> torch.nn.Module | None:
        return run.networks.get("ema", run.networks.get("generator"))
