"""What is registered, as plain data for ``--list`` and ``--explain``. Reading it imports the targets."""

import inspect
from dataclasses import dataclass

from registry import KINDS, Entry, Parameter, Registry, UserError, signature_of


@dataclass(frozen=True)
class Listed:
    """One registered name.

    Attributes:
        kind, name: as registered; the kind of the core's own configurables is their package.
        selector: as a gin file binds it, such as ``partition.split`` or ``train``.
        distribution, version: who registered it.
        parameters: what a gin file can bind.
        problem: why the target cannot be imported; empty when it can.
        docstring: all of it; doc: its first paragraph, on one line.
    """

    kind: str
    name: str
    selector: str
    distribution: str
    version: str
    parameters: tuple[Parameter, ...] = ()
    problem: str = ""
    docstring: str = ""

    @property
    def doc(self) -> str:
        return " ".join(self.docstring.partition("\n\n")[0].split())


def listing(registry: Registry, kind: str | None = None) -> list[Listed]:
    """Everything registered, or everything of one kind, sorted by kind and name; the core's own first.

    Raises UserError for an unknown kind.
    """
    if kind is not None:
        registry.check_kind(kind)
    order = ["", *KINDS]
    entries = [entry for entry in registry.entries.values() if entry.kind != "gin" and kind in (None, entry.kind)]
    entries.sort(key=lambda entry: (order.index(entry.kind if entry.kind in KINDS else ""), entry.name))
    return [_listed(entry) for entry in entries]


def explain(registry: Registry, selector: str) -> Listed:
    """One registered name, such as ``partition.split`` or ``train``. Raises UserError for an unknown one."""
    return _listed(registry.find(selector))


def _listed(entry: Entry) -> Listed:
    named = (entry.kind, entry.name, entry.shown, entry.origin.distribution, entry.origin.version)
    try:
        docstring = inspect.getdoc(entry.load()) or ""
        parameters = [parameter for parameter in signature_of(entry).parameters.values() if not parameter.supplied]
    except UserError as error:
        return Listed(*named, problem=str(error))
    return Listed(*named, tuple(parameters), docstring=docstring)
