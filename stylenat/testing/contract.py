"""What the checkers share: nothing edited in place, no hidden randomness, finite gradients, state that round-trips."""

import copy
import io
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from registry import UserError


class ContractError(AssertionError):
    """The plugin breaks a rule of its kind."""


class CannotCheck(Exception):
    """This machine lacks what the plugin needs (a device, a file); in a test, a reason to skip."""


def require(kept: bool, rule: str) -> None:
    """Raises ContractError saying ``rule`` unless it is kept."""
    if not kept:
        raise ContractError(rule)


OWN_GENERATOR = "draw from a generator of its own with a fixed seed"
"""Advice for kinds that are given no random numbers and may need some."""


@contextmanager
def untouched(instead: str = OWN_GENERATOR, /, **inputs: Tensor | None) -> Iterator[None]:
    """Raises ContractError when an input, or torch's, numpy's or Python's global generator, was changed within.

    Args:
        instead: advice for a plugin that draws from a global generator.
    """
    before = {name: (t.detach().clone(), t._version) for name, t in inputs.items() if t is not None}
    drawn = torch.get_rng_state(), str(np.random.get_state()[1:3]), random.getstate()  # noqa: NPY002 - watched
    yield
    for name, (value, version) in before.items():
        now = inputs[name]
        assert now is not None
        same = now._version == version and torch.equal(torch.nan_to_num(now.detach()), torch.nan_to_num(value))
        require(same, f"it edits its input {name!r} in place; work on a copy")
    now_drawn = torch.get_rng_state(), str(np.random.get_state()[1:3]), random.getstate()  # noqa: NPY002 - watched
    for library, a, b in zip(("torch", "numpy", "Python's random"), drawn, now_drawn, strict=True):
        same = torch.equal(a, b) if isinstance(a, Tensor) else a == b
        require(
            same,
            f"it draws from the global generator of {library}, which no checkpoint holds; {instead}",
        )


def require_tensor(value: Any, shape: tuple[int, ...], dtype: torch.dtype, what: str) -> Tensor:
    """The value, if it is such a tensor and finite."""
    require(isinstance(value, Tensor), f"{what} must be a tensor; got {type(value).__name__}")
    require(tuple(value.shape) == shape, f"{what} must have the shape {list(shape)}; got {list(value.shape)}")
    require(value.dtype == dtype, f"{what} must be {dtype}; got {value.dtype}")
    require(bool(torch.isfinite(value.float()).all()), f"{what} is not finite everywhere")
    return value


def require_close(ours: Tensor, theirs: Tensor, tolerance: float, rule: str) -> None:
    """Raises ContractError unless the two agree within ``tolerance`` times the larger one's magnitude."""
    scale = max(float(theirs.abs().max()), 1e-12) if theirs.numel() else 1.0
    worst = float((ours - theirs).abs().max()) / scale if ours.shape == theirs.shape else float("inf")
    require(worst <= tolerance, f"{rule} (relative difference {worst:.2g}, at most {tolerance:g})")


def require_gradients(outputs: Tensor, inputs: Mapping[str, Tensor], optional: tuple[str, ...] = ()) -> None:
    """Backpropagates a fixed random weighting of the outputs: every input must get a finite gradient."""
    require(outputs.requires_grad, "its result has no gradient; it must be differentiable by autograd")
    weights = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0), dtype=outputs.dtype)
    try:
        total = (outputs * weights.to(outputs.device)).sum()
        found = torch.autograd.grad(total, list(inputs.values()), retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise ContractError(f"its gradient cannot be computed: {error}") from error
    for (name, _), gradient in zip(inputs.items(), found, strict=True):
        if gradient is None:
            require(name in optional, f"{name!r} gets no gradient: it is unused, or detached on the way")
        else:
            require(bool(torch.isfinite(gradient).all()), f"the gradient of {name!r} is not finite everywhere")


def require_plain_state(owner: Any) -> dict[str, Any]:
    """``owner.state_dict()`` after a journey through a file that holds no code.

    Raises ContractError when the file cannot be read with ``weights_only=True``.
    """
    state = owner.state_dict()
    require(isinstance(state, dict), f"state_dict() must return a dictionary; got {type(state).__name__}")
    file = io.BytesIO()
    torch.save(state, file)
    try:
        return torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    except Exception as error:  # pickle's own, of many types
        raise ContractError(
            f"state_dict() must hold only plain values and tensors (read with weights_only=True): {error}"
        ) from error


class Memory:
    """What a plugin remembers between calls: its optional ``state_dict()``, as a checkpoint stores it.

    Raises:
        ContractError: ``state_dict`` without ``load_state_dict``, or with more than plain values and tensors.
    """

    def __init__(self, owner: Any) -> None:
        self._owner, self._saved = owner, None
        if hasattr(owner, "state_dict"):
            require(hasattr(owner, "load_state_dict"), "it has state_dict() but no load_state_dict(state) for a resume")
            self._saved = require_plain_state(owner)

    def restore(self) -> None:
        """Loads the state as it was when this object was made; without ``state_dict`` it does nothing."""
        if self._saved is not None:
            self._owner.load_state_dict(copy.deepcopy(self._saved))


def require_weights_round_trip(trained: nn.Module, other: nn.Module) -> None:
    """Loads ``trained``'s weights, through safetensors, into ``other``, which must then be the same network."""
    try:
        tensors = load(save({k: v.detach().contiguous() for k, v in trained.state_dict().items()}))
    except Exception as error:  # whatever safetensors finds wrong
        raise ContractError(f"its state_dict() cannot be written as safetensors: {error}") from error
    try:
        other.load_state_dict(tensors)
    except RuntimeError as error:
        raise ContractError(f"its state_dict() does not load into another instance: {error}") from error


def require_copyable(network: nn.Module) -> None:
    """The average of the weights starts as a deep copy."""
    try:
        copied = copy.deepcopy(network)
    except Exception as error:  # whatever copy finds in the way
        raise ContractError(f"it cannot be copied by copy.deepcopy, as the weight average needs: {error}") from error
    shared = {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in copied.parameters()}
    require(not shared - {0}, "a deep copy shares weights with the original")


def built(make: Any, *args: Any, **options: Any) -> Any:
    """``make(...)`` from a fixed seed. A UserError means that the plugin cannot be used as it is configured."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return make(*args, **options)
        except UserError as error:
            raise CannotCheck(str(error)) from error


def runs_on_meta(make: Any, call: Any, shape: tuple[int, ...]) -> None:
    """A dry run sizes networks on the meta device, where tensors have no data."""
    try:
        with torch.device("meta"):
            out = call(make())
    except Exception as error:  # whatever the plugin does with data that is not there
        raise ContractError(
            f"it cannot be sized on the meta device (--dry-run): {type(error).__name__}: {error}; make tensors with "
            f"torch's functions and never read their values in __init__ or forward"
        ) from error
    require(tuple(out.shape) == shape, f"on the meta device its result has the shape {list(out.shape)}")


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float32 from a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    """uint8 [count, 3, side, side]: smooth random images, as unlike noise as photographs are."""
    coarse = noise(count, 3, 4, 4, seed=seed)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return (smooth * 50 + 128).clamp(0, 255).to(torch.uint8)
