"""What a target's signature says about a binding: does the parameter exist, and may it have this value?"""

import inspect
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import gin

from registry.bounds import Bounds
from registry.errors import UserError
from registry.gintext import Reference, render
from registry.kinds import KINDS
from registry.names import Entry
from registry.wording import did_you_mean, listed

TargetOf = Callable[[Reference], Callable[..., Any]]
"""Gives what a reference names, imported."""

MISSING = inspect.Parameter.empty
SCALARS = (bool, int, float, str, bytes)
SEQUENCES = (list, tuple, Sequence, Iterable, Collection)
MAPPINGS = (dict, Mapping)
# The modules in an annotation's text, but not the dots of a Literal's quoted text.
MODULES = re.compile(r"(?<!['\w.])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
BOUNDED = re.compile(r"Annotated\[(\w+), ([^\]]+)\]")
# What every Protocol class has of its own accord and no implementation owes.
NOT_OWED = {"__init__", "__subclasshook__"}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target. ``supplied``: by the caller, so that no gin file can bind it."""

    name: str
    annotation: Any
    default: Any
    supplied: bool

    @property
    def required(self) -> bool:
        return not self.supplied and (self.default is MISSING or self.default is gin.REQUIRED)

    @property
    def type(self) -> str:
        """The annotation as people write it; empty when there is none."""
        if self.annotation is MISSING:
            return ""
        text = MODULES.sub("", inspect.formatannotation(self.annotation))
        return BOUNDED.sub(r"\1 (\2)", text)


@dataclass(frozen=True)
class Signature:
    """A target's parameters by name. ``open``: it takes any others too (``**options``)."""

    parameters: dict[str, Parameter]
    open: bool

    def find(self, entry: Entry, name: str) -> Parameter:
        """The parameter that a gin file may bind.

        Raises UserError when there is none of that name, or when the caller supplies it.
        """
        own = self.parameters.get(name)
        if own is None and self.open:
            return Parameter(name, MISSING, MISSING, supplied=False)
        bindable = [known for known, parameter in self.parameters.items() if not parameter.supplied]
        if own is None:
            guess = did_you_mean(name, bindable) or "."
            raise UserError(f"{entry.shown} has no parameter {name!r}{guess} Its parameters: {listed(bindable)}")
        if own.supplied:
            raise UserError(
                f"{entry.shown}.{name} is supplied by the code that calls it and cannot be bound; "
                f"what can: {listed(bindable)}"
            )
        return own


def signature_of(entry: Entry) -> Signature:
    """The signature of an entry's target, which is imported if need be.

    The caller supplies what the kind's table says; to the core's own configurables, whatever is positional
    and has no default (``run`` in ``def train(run, *, iterations)``).
    """
    target = entry.load()
    parameters, is_open = {}, False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            if entry.kind in KINDS:
                supplied = parameter.name in KINDS[entry.kind].supplied
            else:
                supplied = entry.kind != "gin" and parameter.kind is not parameter.KEYWORD_ONLY
                supplied = supplied and parameter.default is MISSING
            supplied = supplied or parameter.kind is parameter.POSITIONAL_ONLY
            annotation = _evaluated(parameter.annotation, target)
            parameters[parameter.name] = Parameter(parameter.name, annotation, parameter.default, supplied)
    return Signature(parameters, is_open)


def _evaluated(annotation: Any, target: Callable[..., Any]) -> Any:
    """The annotation as an object; ``from __future__ import annotations`` leaves it as text."""
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(target.__init__ if inspect.isclass(target) else target)  # type: ignore[misc]
    try:
        return eval(annotation, getattr(function, "__globals__", {}))
    except (NameError, AttributeError):  # Imported for type checkers only: nothing to hold a value against.
        return MISSING


def mismatch(parameter: Parameter, value: Any, target_of: TargetOf) -> str | None:
    """What is wrong with the value if the annotation rules it out; what an annotation leaves open passes."""
    if fits(value, parameter.annotation, target_of) or (value is None and parameter.default is None):
        return None
    type_name = "" if isinstance(value, Reference) else f" ({type(value).__name__})"
    options = [option for option in get_args(parameter.annotation) if isinstance(option, str)]
    guess = did_you_mean(value, options) if isinstance(value, str) else ""
    return f"takes {parameter.type}, not {render(value)}{type_name}{guess}"


def fits(value: Any, annotation: Any, target_of: TargetOf) -> bool:
    """Whether a gin value may stand here. An int passes as a float, no bool as an int, a list as a tuple."""
    origin, arguments = get_origin(annotation), get_args(annotation)

    def each_fits(item: Any, annotation: Any) -> bool:
        return fits(item, annotation, target_of)

    def all_fit(items: Iterable[Any], annotation: Any) -> bool:
        return all(each_fits(item, annotation) for item in items)

    if origin in (Union, types.UnionType):
        return any(fits(value, argument, target_of) for argument in arguments)
    if origin is Annotated:
        bounds = (extra for extra in arguments[1:] if isinstance(extra, Bounds))
        return fits(value, arguments[0], target_of) and all(bound.hold(value) for bound in bounds)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if annotation in (None, types.NoneType):
        return value is None
    wanted = origin or annotation
    if isinstance(value, Reference):
        return _object_fits(value, wanted, arguments, target_of)
    if wanted is float:
        return type(value) in (int, float)
    if wanted in SCALARS:
        return type(value) is wanted
    if wanted in (type, Callable):
        return False
    if wanted in SEQUENCES:
        if not isinstance(value, list | tuple):
            return False
        if wanted is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(each_fits, value, arguments))
        return not arguments or all_fit(value, arguments[0])
    if wanted in MAPPINGS:
        if not isinstance(value, dict) or not arguments:
            return isinstance(value, dict)
        return all_fit(value, arguments[0]) and all_fit(value.values(), arguments[1])
    # Objects: a bare value is none of the framework's; of other classes we do not judge.
    return not (_is_protocol(wanted) and (value is None or type(value) in (*SCALARS, list, tuple, dict)))


def _object_fits(reference: Reference, wanted: Any, arguments: tuple[Any, ...], target_of: TargetOf) -> bool:
    target = target_of(reference)
    if not inspect.isclass(target):  # What a function returns is its own affair.
        return True
    if wanted is type:
        return not reference.evaluate and all(
            _implements(target, argument) for argument in arguments if _is_protocol(argument)
        )
    if wanted in (*SCALARS, *SEQUENCES, *MAPPINGS):
        return issubclass(target, wanted)
    return _implements(target, wanted) if _is_protocol(wanted) else True


def _is_protocol(annotation: Any) -> bool:
    return getattr(annotation, "_is_protocol", False)


def _implements(target: type, protocol: type) -> bool:
    """Whether the class has the Protocol's methods, as far as a class can tell before it is built."""
    owed = {
        name
        for base in protocol.__mro__
        if _is_protocol(base)
        for name, member in vars(base).items()
        if inspect.isfunction(member) and name not in NOT_OWED
    }
    own = {name for base in target.__mro__ for name in vars(base)}
    if "__getattr__" in own:
        # A module may answer with a submodule; methods like __call__ Python looks for on the class alone.
        owed = {name for name in owed if name.startswith("__")}
    return owed <= own
