"""Statements to a checked configuration: names known, values of the right type, nothing required missing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, NamedTuple

from registry.gintext import (
    DEPTH,
    MACRO,
    REQUIRED,
    Macro,
    Reference,
    Statement,
    leaves,
    plain,
    read_as,
    render,
    replace,
    scoped,
)
from registry.kinds import KINDS, kind_of_parameter
from registry.names import SINGLETON, Entry, Registry, Rename
from registry.signatures import Parameter, Signature, mismatch, signature_of
from registry.wording import UserError, at, did_you_mean, listed

VALUES = 2**17
"""Numbers, strings, brackets and references of an experiment, macros spelt out."""
OBJECTS = 10_000
"""That one call may build."""


class Bound(NamedTuple):
    """A value and the line that bound it."""

    value: Any
    where: str


class Spelt(NamedTuple):
    """A value with its macros spelt out; how many values it holds, and how deeply."""

    value: Any
    size: int
    depth: int


class Setting(NamedTuple):
    """One value in use: ``scope/entry.parameter``, bound or by default, macros spelt out."""

    scope: str
    entry: Entry
    parameter: str
    value: Any
    is_default: bool

    def __str__(self) -> str:
        return f"{scoped(self.scope, self.entry.selector)}.{self.parameter} = {render(self.value)}"

    @property
    def shown(self) -> str:
        return f"{scoped(self.scope, self.entry.shown)}.{self.parameter}"


Call = tuple[str, str]
"""Scope and full selector of something that is built."""


@dataclass
class Config:
    """All bindings by (scope, full selector) and parameter, with gin's meaning of scopes.

    A macro stands for its text, wherever it is used. Build one with ``checked_config``.
    """

    registry: Registry
    macros: dict[str, Bound] = field(default_factory=dict)
    bindings: dict[Call, dict[str, Bound]] = field(default_factory=dict)
    _signatures: dict[str, Signature] = field(default_factory=dict)
    _spelt: dict[str, Spelt] = field(default_factory=dict)

    def signature(self, selector: str) -> Signature:
        if selector not in self._signatures:
            self._signatures[selector] = signature_of(self.registry.entries[selector])
        return self._signatures[selector]

    def target_of(self, reference: Reference) -> Callable[..., Any]:
        return self.registry.entries[reference.selector].load()

    def in_force(self, scope: str, selector: str) -> dict[str, Bound]:
        """What a call in the scope gets: the bindings of no scope, then those of each inner one."""
        parts = scope.split("/") if scope else []
        bound: dict[str, Bound] = {}
        for depth in range(len(parts) + 1):
            bound |= self.bindings.get(("/".join(parts[:depth]), selector), {})
        return bound

    def spelt_out(self, value: Any) -> Any:
        """The value with every macro replaced by what it stands for."""
        return self.spell(value).value

    def spell(self, value: Any, path: tuple[str, ...] = (), depth: int = 0) -> Spelt:
        """The same with its size. ``path``: the macros that the value stands in, ``depth``: levels around it.

        What a macro stands for is made once and shared, so that doubling macros cost nothing here.

        Raises UserError for a macro that is not defined, or is defined by itself, and for more than ``DEPTH`` levels.
        """
        if depth > DEPTH:
            raise UserError(f"more than {DEPTH} brackets and macros in each other")
        if isinstance(value, list | tuple):
            items = [self.spell(item, path, depth + 1) for item in value]
            return _joined(type(value)(item.value for item in items), items)
        if isinstance(value, dict):
            pairs = [[self.spell(item, path, depth + 1) for item in pair] for pair in value.items()]
            return _joined({k.value: v.value for k, v in pairs}, [item for pair in pairs for item in pair])
        if not isinstance(value, Macro) or value == REQUIRED:
            return Spelt(value, 1, 0)
        if value.name in path:
            raise UserError(f"the macro {value} is defined by itself")
        if value.name not in self.macros:
            raise UserError(f"the macro {value} is not defined{self._what_was_meant(value)}")
        if value.name not in self._spelt:
            inner = self.spell(self.macros[value.name].value, (*path, value.name), depth + 1)
            self._spelt[value.name] = inner._replace(depth=inner.depth + 1)
        spelt = self._spelt[value.name]
        if depth + spelt.depth > DEPTH:
            raise UserError(f"more than {DEPTH} brackets and macros in each other")
        return spelt

    def _what_was_meant(self, macro: Macro) -> str:
        if guess := did_you_mean(macro.name, [*self.macros, REQUIRED.name]):
            return guess
        module, _, member = macro.name.rpartition(".")
        if module:
            return f", and gin's constants are not offered; write the member of an Enum as a string: {member!r}"
        return f"; define it by a line such as `{macro.name} = 1`"

    def settings(self, where: str) -> list[Setting]:
        """Every value in use, starting from the core's own configurables and following references; sorted.

        Raises UserError for a required parameter that nothing binds (``where``: a file that could), an object that
        needs itself to be built, or more objects than ``OBJECTS``.
        """
        found: dict[Call, list[Setting]] = {}
        objects: dict[Call, int] = {}
        classes = [(("", entry.selector), where) for entry in self.registry.core()]
        while classes:
            call, line = classes.pop()
            classes += self._visit(call, line, found, objects, ())
        return sorted((setting for settings in found.values() for setting in settings), key=str)

    def _visit(
        self, call: Call, where: str, found: dict[Call, list[Setting]], objects: dict[Call, int], path: tuple[Call, ...]
    ) -> list[tuple[Call, str]]:
        """Adds the settings of a call and of the instances it builds; returns the classes, which are built later.

        Counts the ``objects`` that each call builds. ``path``: the calls that wait for this one.
        """
        if call in path:
            names = [str(Reference(*inner, True)) for inner in (*path, call)]
            raise UserError(at(where, f"{names[-1]} needs itself to be built: {' -> '.join(names)}"))
        if len(path) > DEPTH:
            raise UserError(at(where, f"more than {DEPTH} objects that need each other to be built"))
        if call in found:
            return []
        scope, selector = call
        found[call], objects[call], classes = list(self._call(call, where)), 1, []
        in_force = self.in_force(scope, selector)
        for setting in found[call]:
            for leaf in leaves(setting.value):
                if isinstance(leaf, Reference):
                    line, inner = in_force[setting.parameter].where, (leaf.scope or scope, leaf.selector)
                    if not leaf.evaluate:
                        classes.append((inner, line))
                        continue
                    classes += self._visit(inner, line, found, objects, (*path, call))
                    objects[call] += objects[inner]
                    if objects[call] > OBJECTS:
                        raise UserError(at(line, f"{setting.shown} takes more than {OBJECTS:,} objects to build"))
        return classes

    def _call(self, call: Call, where: str) -> Iterator[Setting]:
        scope, entry, in_force = call[0], self.registry.entries[call[1]], self.in_force(*call)
        parameters = self.signature(entry.selector).parameters
        for name in {**parameters, **in_force}:
            default = parameters[name].written_default if name in parameters else ...
            if name in in_force:
                value = self.spelt_out(in_force[name].value)
                if REQUIRED in leaves(value):
                    raise UserError(at(in_force[name].where, f"{entry.shown}.{name} must be bound to a value"))
                yield Setting(scope, entry, name, value, plain(default) and render(default) == render(value))
            elif parameters[name].required:
                raise UserError(at(where, _must_be_bound(scope, entry, parameters[name])))
            elif not parameters[name].supplied and plain(default):
                yield Setting(scope, entry, name, default, True)


def _joined(value: Any, items: Sequence[Spelt]) -> Spelt:
    return Spelt(value, 1 + sum(item.size for item in items), 1 + max((item.depth for item in items), default=0))


def _must_be_bound(scope: str, entry: Entry, parameter: Parameter) -> str:
    takes = f" (it takes {parameter.type})" if parameter.type else ""
    line = f"{scoped(scope, entry.shown)}.{parameter.name} = ..."
    return f"{entry.shown} needs its parameter {parameter.name!r}{takes}; add a line `{line}`"


def checked_config(
    registry: Registry, statements: Sequence[Statement], say: Callable[[str], None] | None = None
) -> Config:
    """The configuration that the statements make, the last of two bindings winning, with all of them checked.

    ``say`` is called with a line for each binding of an old name.

    Raises:
        UserError: naming file and line, for an unknown name, parameter or macro, a value of the wrong type, a
            reference of the wrong form, an argument that the caller supplies, or more than ``VALUES`` values.
    """
    config = Config(registry)
    config.macros = {s.scope: Bound(s.value, s.where) for s in statements if s.selector == MACRO}
    read = [new for statement in statements for new in _in_new_names(config, statement, say)]
    resolved = [_resolved(registry, statement) for statement in read]
    # Macros first: a mistake in one is then reported where it is defined, not where it is used.
    resolved.sort(key=lambda statement: statement.selector != MACRO)
    config.macros, config._spelt = {}, {}
    for s in resolved:
        if s.selector == MACRO:
            config.macros[s.scope] = Bound(s.value, s.where)
        else:
            config.bindings.setdefault((s.scope, s.selector), {})[s.parameter] = Bound(s.value, s.where)
    values = 0
    for statement in resolved:
        try:
            spelt = config.spell(statement.value)
            values += spelt.size
            if values > VALUES:
                raise UserError(f"more than {VALUES:,} values with macros spelt out")
            _check(config, statement, spelt.value)
        except UserError as error:
            raise UserError(at(statement.where, str(error))) from error
    _check_old_and_new_are_not_mixed(registry, resolved)
    _check_macros_are_used(resolved)
    _check_scopes_are_opened(resolved)
    return config


def _in_new_names(config: Config, statement: Statement, say: Callable[[str], None] | None) -> list[Statement]:
    """What the statement is read as: itself, or what stands for it where it binds an old name."""
    rename = None
    if statement.selector != MACRO:
        rename = config.registry.rename_of(statement.selector, statement.parameter)
    if rename is None:
        return [statement]
    old, new = rename
    try:
        found = read_as(_translated(config, statement, new), statement, old)
    except UserError as error:
        raise UserError(at(statement.where, f"{old}: {error}")) from error
    if say is not None:
        written = "; ".join(map(str, found)) or "nothing: delete the line"
        say(at(statement.where, f"{old} is an old name; it is read as, and is now written: {written}"))
    return found


def _translated(config: Config, statement: Statement, new: Rename) -> str:
    if isinstance(new, str):
        return f"{new} = {render(statement.value)}"
    spelt = config.spell(statement.value)
    if spelt.size > VALUES:
        raise UserError(f"more than {VALUES:,} values with macros spelt out")
    return new(spelt.value)


def _resolved(registry: Registry, statement: Statement) -> Statement:
    """The statement with every selector in full."""

    def full(leaf: Any) -> Any:
        if not isinstance(leaf, Reference):
            return leaf
        return changed(leaf, selector=registry.find(leaf.selector, statement.where).selector)

    selector = statement.selector
    if selector != MACRO:
        selector = registry.find(selector, statement.where).selector
    return changed(statement, selector=selector, value=replace(statement.value, full))


def _check(config: Config, statement: Statement, value: Any) -> None:
    """``value``: the statement's, with macros spelt out."""
    entries = config.registry.entries
    # A singleton is itself what builds the instance, so it alone takes the class of anything.
    if statement.selector != SINGLETON:
        for leaf in leaves(statement.value):
            if isinstance(leaf, Reference):
                _check_form(entries[leaf.selector], leaf)
    if statement.selector == MACRO:
        return
    entry = entries[statement.selector]
    parameter = config.signature(entry.selector).find(entry, statement.parameter)
    if REQUIRED in leaves(value):
        return
    _check_kind(config.registry, entry, parameter.name, value)
    problem = mismatch(parameter, value, config.target_of)
    if problem is not None:
        raise UserError(f"{entry.shown}.{parameter.name} {problem}{_reference_meant(config.registry, value)}")


def _check_form(entry: Entry, reference: Reference) -> None:
    if entry.kind in KINDS and reference.evaluate is KINDS[entry.kind].bound_as_class:
        form = "a class, to be built by what uses it" if KINDS[entry.kind].bound_as_class else "an instance"
        right = changed(reference, evaluate=not reference.evaluate)
        raise UserError(f"the kind {entry.kind} is bound as {form}: write {right} instead of {reference}")


def _check_kind(registry: Registry, entry: Entry, parameter: str, value: Any) -> None:
    wanted = kind_of_parameter(parameter)
    for leaf in leaves(value) if wanted is not None else ():
        kind = registry.entries[leaf.selector].kind if isinstance(leaf, Reference) else wanted
        if wanted is not None and kind in KINDS and kind != wanted:
            names = listed(f"{wanted}.{name}" for name in registry.names(wanted))
            raise UserError(f"{entry.shown}.{parameter} takes the kind {wanted}, not {leaf}; there are {names}")


def _reference_meant(registry: Registry, value: Any) -> str:
    """Text where an object is wanted is most often an object's name without its @."""
    for entry in registry.entries.values():
        if entry.kind in KINDS and value in (entry.name, entry.selector):
            right = Reference("", entry.selector, not KINDS[entry.kind].bound_as_class)
            return f"; for the object write {right}"
    return ""


def _check_old_and_new_are_not_mixed(registry: Registry, statements: Sequence[Statement]) -> None:
    """Across files the later one wins as ever; within one file, or on one command line, it is a mistake."""
    direct = {(s.source, s.scope, s.selector, s.parameter): s for s in statements if not s.old}
    for statement in statements:
        new = direct.get((statement.source, statement.scope, statement.selector, statement.parameter))
        if statement.old and new is not None:
            name = f"{scoped(new.scope, registry.entries[new.selector].shown)}.{new.parameter}"
            raise UserError(
                f"{statement.where} binds {statement.old}, an old name, and {new.where} binds {name}, which it is read "
                f"as; keep one of the two"
            )


def _check_macros_are_used(statements: Sequence[Statement]) -> None:
    """A fragment may define macros for others; on a command line one that nothing uses is a misspelling."""
    used = {leaf.name for s in statements for leaf in leaves(s.value) if isinstance(leaf, Macro)}
    for statement in statements:
        if statement.source == "--bind" and statement.selector == MACRO and statement.scope not in used:
            guess = did_you_mean(statement.scope, used) or "."
            raise UserError(
                f"{statement.where}: nothing uses the macro %{statement.scope}{guess} Macros in use: "
                f"{listed(used)}. To bind a parameter write NAME.PARAMETER = value"
            )


def _check_scopes_are_opened(statements: Sequence[Statement]) -> None:
    """A fragment may bind in scopes that another opens; on a command line one that nothing opens is a misspelling."""
    values = [leaf for statement in statements for leaf in leaves(statement.value)]
    opened = {leaf.scope for leaf in values if isinstance(leaf, Reference) and leaf.scope}
    for statement in statements:
        scope = statement.scope
        if statement.source != "--bind" or statement.selector == MACRO or not scope:
            continue
        if not any(f"{other}/".startswith(f"{scope}/") for other in opened):
            raise UserError(
                f"{statement.where}: nothing opens the scope {scope!r}{did_you_mean(scope, opened) or '.'} Scopes in "
                f"use: {listed(opened)}; for a parameter everywhere write it without {scope}/"
            )
