"""What a target's signature says about a binding: does the parameter exist, and which value does it get?"""

import inspect
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from registry.gintext import Reference, plain, render, replace
from registry.kinds import KINDS
from registry.names import Entry
from registry.protocols import is_protocol, lacking
from registry.values import Bounds
from registry.wording import UserError, did_you_mean, listed

TargetOf = Callable[[Reference], Callable[..., Any]]
"""Gives what a reference names, imported."""

MISSING = inspect.Parameter.empty
SCALARS = (bool, int, float, str, bytes)
SEQUENCES = (list, tuple, Sequence, Iterable, Collection)
MAPPINGS = (dict, Mapping)
# The modules in an annotation's text, but not the dots of a Literal's quoted text.
MODULES = re.compile(r"(?<!['\w.])(?:[A-Za-z_]\w*\.)+(?=[A-Za-z_])")
BOUNDED = re.compile(r"Annotated\[(\w+), ([^\]]+)\]")


class Named(NamedTuple):
    """A type whose values a gin file names by text: which classes those are, from the text, and to the text."""

    holds: Callable[[type], bool]
    read: Callable[[Any, str], Any]
    written: Callable[[Any], str]


NAMED = (
    Named(lambda cls: issubclass(cls, Enum), lambda cls, text: cls.__members__.get(text), lambda value: value.name),
    Named(lambda cls: issubclass(cls, PurePath), lambda cls, text: cls(text), str),
    Named(  # By its name, since the registry imports no torch.
        lambda cls: (cls.__module__, cls.__qualname__) == ("torch", "dtype"),
        lambda cls, text: getattr(sys.modules["torch"], text.removeprefix("torch."), None),
        lambda value: str(value).removeprefix("torch."),
    ),
)


class Unfit(Exception):
    """The annotation rules the value out."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a target. ``supplied``: by the caller, so that no gin file can bind it."""

    name: str
    annotation: Any
    default: Any
    supplied: bool

    @property
    def required(self) -> bool:
        return not self.supplied and self.default is MISSING

    @property
    def type(self) -> str:
        """The annotation as people write it; empty when there is none."""
        if self.annotation is MISSING:
            return ""
        text = BOUNDED.sub(r"\1 (\2)", MODULES.sub("", inspect.formatannotation(self.annotation)))
        for enum in {part for part in _parts(self.annotation) if isinstance(part, type) and issubclass(part, Enum)}:
            text = re.sub(rf"\b{enum.__name__}\b", f"{enum.__name__}{list(enum.__members__)}", text)
        return text

    @property
    def written_default(self) -> Any:
        """The default as a gin file would bind it; what it cannot spell stays as it is."""

        def written(leaf: Any) -> Any:
            return next((named.written(leaf) for named in NAMED if named.holds(type(leaf))), leaf)

        text = replace(self.default, written)
        try:
            reads_back = plain(text) and bool(convert(text, self.annotation, _no_target) == self.default)
        except Unfit:  # An annotation that says something else than the default.
            return self.default
        return text if reads_back else self.default

    @property
    def shown_default(self) -> str | None:
        """The default's text; None where a value must be bound."""
        return None if self.required else repr(self.written_default)


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
        if own is not None and not own.supplied:
            return own
        bindable = [known for known, parameter in self.parameters.items() if not parameter.supplied]
        if own is not None:
            by = "is supplied by the code that calls it and cannot be bound"
            raise UserError(f"{entry.shown}.{name} {by}; what can: {listed(bindable)}")
        guess = did_you_mean(name, bindable) or "."
        raise UserError(f"{entry.shown} has no parameter {name!r}{guess} Its parameters: {listed(bindable)}")


def signature_of(entry: Entry) -> Signature:
    """The signature of an entry's target, which is imported if need be.

    The caller supplies what the kind's row says; to the core's own configurables, whatever is positional
    and has no default (``run`` in ``def train(run, *, iterations)``).
    """
    target, found, is_open = entry.load(), {}, False
    for parameter in inspect.signature(target).parameters.values():
        name, kind, default = parameter.name, parameter.kind, parameter.default
        if kind is parameter.VAR_KEYWORD:
            is_open = True
        elif kind is not parameter.VAR_POSITIONAL:
            supplied = kind is parameter.POSITIONAL_ONLY
            if entry.kind in KINDS:
                supplied |= name in KINDS[entry.kind].supplied
            elif entry.kind != "gin":
                supplied |= kind is not parameter.KEYWORD_ONLY and default is MISSING
            found[name] = Parameter(name, _evaluated(parameter.annotation, target), default, supplied)
    return Signature(found, is_open)


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
    try:
        converted(parameter, value, target_of)
    except Unfit as unfit:
        type_name = "" if isinstance(value, Reference) else f" ({type(value).__name__})"
        options = [option for part in _parts(parameter.annotation) for option in _options(part)]
        guess = did_you_mean(value, options) if isinstance(value, str) else ""
        shown = render(value)
        shown = shown if len(shown) < 300 else f"{shown[:200]} ..."
        why = f": {unfit}" if str(unfit) else ""
        return f"takes {parameter.type}, not {shown}{type_name}{guess}{why}"
    return None


def converted(parameter: Parameter, value: Any, target_of: TargetOf) -> Any:
    """The parameter's value: what a gin file says, with names turned into members, paths and dtypes. Raises Unfit."""
    if value is None and parameter.default is None:
        return None
    return convert(value, parameter.annotation, target_of)


def convert(value: Any, annotation: Any, target_of: TargetOf) -> Any:
    """A gin value as the annotation has it. An int passes as a float, no bool as an int, a list as a tuple.

    Raises Unfit where the annotation rules the value out.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        reasons = []
        for argument in arguments:
            try:
                return convert(value, argument, target_of)
            except Unfit as unfit:
                reasons.append(str(unfit))
        raise Unfit(next(filter(None, reasons), ""))
    if origin is Annotated:
        value = convert(value, arguments[0], target_of)
        _require(all(bound.hold(value) for bound in arguments[1:] if isinstance(bound, Bounds)))
        return value
    if origin is Literal:
        _require(any(type(value) is type(option) and value == option for option in arguments))
        return value
    wanted = origin or annotation
    if annotation in (None, types.NoneType):
        _require(value is None)
    elif isinstance(value, Reference):
        _check_object(value, wanted, arguments, target_of)
    elif wanted is float:
        _require(type(value) in (int, float))
    elif wanted in SCALARS:
        _require(type(value) is wanted)
    elif wanted in (type, Callable):
        raise Unfit
    elif wanted in SEQUENCES:
        _require(isinstance(value, list | tuple))
        if wanted is tuple and arguments and arguments[-1] is not Ellipsis:
            _require(len(value) == len(arguments))
            return type(value)(convert(*pair, target_of) for pair in zip(value, arguments, strict=True))
        return type(value)(convert(item, arguments[0], target_of) for item in value) if arguments else value
    elif wanted in MAPPINGS:
        _require(isinstance(value, dict))
        if arguments:
            key, item = arguments
            return {convert(k, key, target_of): convert(v, item, target_of) for k, v in value.items()}
    elif isinstance(wanted, type) and (named := next((row for row in NAMED if row.holds(wanted)), None)):
        _require(isinstance(value, str))
        value = named.read(wanted, value)
        _require(isinstance(value, wanted))
    else:
        # Objects: a bare value is none of the framework's; of other classes we do not judge.
        bare = value is None or type(value) in (*SCALARS, list, tuple, dict)
        _require(not (is_protocol(wanted) and bare))
    return value


def _require(fits: bool) -> None:
    if not fits:
        raise Unfit


def _no_target(reference: Reference) -> Callable[..., Any]:
    raise Unfit


def _parts(annotation: Any) -> Iterator[Any]:
    """The annotation and everything in its brackets."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for argument in get_args(annotation):
            yield from _parts(argument)


def _options(annotation: Any) -> list[str]:
    """The texts that the annotation lists one by one."""
    if get_origin(annotation) is Literal:
        return [option for option in get_args(annotation) if isinstance(option, str)]
    return list(annotation.__members__) if isinstance(annotation, type) and issubclass(annotation, Enum) else []


def _check_object(reference: Reference, wanted: Any, arguments: tuple[Any, ...], target_of: TargetOf) -> None:
    """Raises Unfit, with the reason if there is more to say, where what is referred to cannot be what is wanted."""
    target = target_of(reference)
    _require(not (wanted is type and reference.evaluate))
    if not inspect.isclass(target):  # What a function returns is not known.
        return
    if wanted in (*SCALARS, *SEQUENCES, *MAPPINGS):
        _require(issubclass(target, wanted))
    for protocol in arguments if wanted is type else (wanted,):
        if is_protocol(protocol) and (reason := lacking(target, protocol)):
            raise Unfit(reason)
