"""Whether an iteration can call the experiment's objects as it does: asked before there is a run folder.

Classes are held to their Protocol where they are bound (``registry.protocols``). This is about what only an object
tells: one that a function returned, and a loss that says that it is paired.
"""

import inspect
from collections.abc import Callable
from typing import Any

from registry import UserError
from stylenat.interfaces import Augmentation, Loss, Regularizer


def check_calls(loss: Loss, regularizers: tuple[Regularizer, ...], augmentation: Augmentation) -> None:
    """Raises UserError for an object that does not take the arguments that it is called with."""
    of_generator = ("fake_logits", "real_logits") if getattr(loss, "paired", False) else ("fake_logits",)
    _must_take("train.loss", loss, "discriminator", ("real_logits", "fake_logits"))
    _must_take("train.loss", loss, "generator", of_generator)
    for regularizer in regularizers:
        _must_take("train.regularizers", regularizer, "__call__", ("batch",))
    _must_take("train.augmentation", augmentation, "__call__", ("images", "random"))


def _must_take(bound: str, owner: Any, method: str, arguments: tuple[str, ...]) -> None:
    # The object itself: what a function's own __call__ takes says nothing.
    function: Callable[..., Any] | None = owner if method == "__call__" else getattr(owner, method, None)
    shown = f"{type(owner).__name__}.{method}"
    if not callable(function):
        raise UserError(f"{bound}: {type(owner).__name__} has no method {method}; it needs one")
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # Built in: it says nothing about itself.
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise UserError(f"{bound}: {shown}{signature} is called with ({', '.join(arguments)}): {error}") from error
