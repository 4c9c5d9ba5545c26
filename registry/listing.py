"""What is registered, as plain data for ``--list`` and ``--explain``. Reading it imports the targets."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import gintext
from registry.checks import signature_of
from registry.config import checked_config
from registry.errors import UserError
from registry.kinds import KINDS
from registry.names import Entry, Registry
from registry.wording import did_you_mean, listed


@dataclass(frozen=True)
class ListedParameter:
    """A parameter that a gin file can bind. ``default`` is its text, None where it must be bound."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Listed:
    """One registered name.

    Attributes:
        kind, name: as registered; the kind of the core's own configurables is their package.
        selector: as a gin file binds it, such as ``partition.split`` or ``train``.
        doc: first paragraph of the docstring, on one line; docstring: all of it.
        distribution, version: who registered it.
        parameters: what a gin file can bind.
        problem: why the target cannot be imported; empty when it can.
    """

    kind: str
    name: str
    selector: str
    doc: str
    distribution: str
    version: str
    parameters: tuple[ListedParameter, ...]
    problem: str = ""
    docstring: str = ""


def listing(registry: Registry, kind: str | None = None) -> list[Listed]:
    """Everything registered, or everything of one kind, sorted by kind and name; the core's own first.

    Raises UserError for an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise UserError(f"there is no kind {kind!r}{did_you_mean(kind, KINDS) or '.'} The kinds are {listed(KINDS)}")
    order = ["", *KINDS]
    entries = [entry for entry in registry.entries.values() if entry.kind != "gin" and kind in (None, entry.kind)]
    entries.sort(key=lambda entry: (order.index(entry.kind if entry.kind in KINDS else ""), entry.name))
    return [_listed(entry) for entry in entries]


def explain(registry: Registry, selector: str) -> Listed:
    """One registered name, such as ``partition.split`` or ``train``. Raises UserError for an unknown one."""
    return _listed(registry.find(selector))


def arguments(
    registry: Registry, selector: str, files: Sequence[str | Path], bindings: Sequence[str], search_path: Sequence[Path]
) -> dict[str, Any]:
    """What gin files and bindings, all of them checked, bind of one name's parameters, in no scope.

    Raises UserError as ``load_experiment`` does, for a value that is itself to be built, and for a parameter that
    nothing binds and that has no default.
    """
    entry = registry.find(selector)
    config = checked_config(registry, gintext.read(files, bindings, search_path))
    bound = {name: config.spelt_out(value) for name, (value, _) in config.in_force("", entry.selector).items()}
    for name, value in bound.items():
        if any(isinstance(leaf, gintext.Reference) for leaf in gintext.leaves(value)):
            raise UserError(f"{entry.shown}.{name} = {gintext.render(value)}: only plain values can be used here")
    for name, parameter in config.signature(entry.selector).parameters.items():
        if parameter.required and name not in bound:
            raise UserError(f"{entry.shown} needs {name!r}: add --bind '{entry.shown}.{name} = ...'")
    return bound


def _listed(entry: Entry) -> Listed:
    docstring, parameters, problem = "", [], ""
    try:
        docstring = inspect.getdoc(entry.load()) or ""
        for parameter in signature_of(entry).parameters.values():
            if not parameter.supplied:
                default = None if parameter.required else repr(parameter.default)
                parameters.append(ListedParameter(parameter.name, parameter.type, default))
    except UserError as error:
        problem = str(error)
    origin = entry.origin
    return Listed(
        entry.kind,
        entry.name,
        entry.shown,
        " ".join(docstring.partition("\n\n")[0].split()),
        origin.distribution,
        origin.version,
        tuple(parameters),
        problem,
        docstring,
    )
