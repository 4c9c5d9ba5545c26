"""Whether a class can be what a Protocol asks for, as far as a class tells before it is built."""

import inspect
from collections.abc import Callable
from typing import Any

# What every Protocol class has of its own accord and no implementation owes.
NOT_OWED = {"__init__", "__subclasshook__"}


def is_protocol(annotation: Any) -> bool:
    return getattr(annotation, "_is_protocol", False)


def lacking(target: type, protocol: type) -> str:
    """What the class lacks of the Protocol: a method, or a method's parameters; empty where it lacks nothing."""
    owed = {
        name: member
        for base in reversed(protocol.__mro__)
        if is_protocol(base)
        for name, member in vars(base).items()
        if inspect.isfunction(member) and name not in NOT_OWED
    }
    own = {name for base in target.__mro__ for name in vars(base)}
    if "__getattr__" in own:
        # A module may answer with a submodule; methods like __call__ Python looks for on the class alone.
        owed = {name: member for name, member in owed.items() if name.startswith("__")}
    if missing := [name for name in owed if name not in own]:
        return f"it has no method {missing[0]}"
    for name, member in owed.items():
        found = inspect.getattr_static(target, name)
        if inspect.isfunction(found) and not accepts(found, member):
            return f"its {name}{_shown(found)} cannot be called as {name}{_shown(member)}"
    return ""


def accepts(function: Callable[..., Any], wanted: Callable[..., Any]) -> bool:
    """Whether a function can be called with the arguments of another: all, or those without a default and more."""
    parameters = inspect.signature(wanted).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    least = sum(p.default is p.empty for p in positional)
    # Not through functools.wraps: what a wrapper passes on is its own business.
    signature = inspect.signature(function, follow_wrapped=False)
    return any(_binds(signature, count, named) for count in range(least, len(positional) + 1))


def _binds(signature: inspect.Signature, count: int, named: dict[str, None]) -> bool:
    try:
        signature.bind(*[None] * count, **named)
    except TypeError:
        return False
    return True


def _shown(function: Callable[..., Any]) -> str:
    """The parameters' names, as ``(real_logits, fake_logits)``."""
    _, *names = map(_name, inspect.signature(function, follow_wrapped=False).parameters.values())
    return f"({', '.join(names)})"


def _name(parameter: inspect.Parameter) -> str:
    stars = "*" * ((parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD))
    return f"{stars}{parameter.name}{'=...' if parameter.default is not parameter.empty else ''}"
