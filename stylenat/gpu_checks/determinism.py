"""Check ``determinism``: whether iterations from one state have the same bits, with and without the setting."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stylenat.gpu_checks import Row, Value
from stylenat.gpu_checks.experiments import ffhq256
from stylenat.gpu_checks.measure import attempt, seconds
from stylenat.training.determinism import deterministic
from stylenat.training.forward import use_tf32
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

BATCH = 4


def rows(device: torch.device) -> Iterator[Row]:
    """Two rows. By default bits may differ on CUDA; with the setting they must not."""
    for asked in (False, True):
        yield attempt(f"train.deterministic = {asked}", lambda asked=asked: _compared(asked, device))


def _compared(asked: bool, device: torch.device) -> dict[str, Value]:
    with deterministic(asked):
        found = [_weights(device), _weights(device)]
        taken = seconds(_step(*_begun(device)), device, repeats=3, warm_up=1)
    return {"equal bits": all(map(torch.equal, *found)), "ms": 1e3 * taken}


def _weights(device: torch.device) -> list[Tensor]:
    """After two iterations, the first with every penalty."""
    state, real = _begun(device)
    step = _step(state, real)
    for state.step in (0, 1):
        step()
    return [weight.detach().clone() for network in state.networks().values() for weight in network.parameters()]


def _begun(device: torch.device) -> tuple[TrainingState, Tensor]:
    ada = "train.augmentation = @augmentation.ada()", "augmentation.ada.initial_p = 0.5"
    settings = ffhq256(device, f"train.batch_size = {BATCH}", "train.tf32 = True", *ada).get("train")()
    use_tf32(settings.tf32)
    torch.manual_seed(0)
    state = TrainingState(settings, device)
    side = state.generator.resolution
    return state, torch.randn(BATCH, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)


def _step(state: TrainingState, real: Tensor) -> Callable[[], None]:
    def step() -> None:
        state.seed_iteration()
        iteration(state, iter([(real, None)]))

    return step
