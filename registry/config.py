"""Statements to a checked configuration: names known, values of the right type, nothing required missing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, NamedTuple

from registry.checks import Parameter, Signature, mismatch, signature_of
from registry.errors import UserError
from registry.gintext import (
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
from registry.names import Entry, Registry
from registry.wording import at, did_you_mean, listed


class Bound(NamedTuple):
    """A value and the place that bound it."""

    value: Any
    where: str


class Setting(NamedTuple):
    """One value in use: ``scope/entry.parameter``, bound or by default, macros spelt out."""

    scope: str
    entry: Entry
    parameter: str
    value: Any
    is_default: bool

    def __str__(self) -> str:
        return f"{scoped(self.scope, self.entry.selector)}.{self.parameter} = {render(self.value)}"


@dataclass
class Config:
    """All bindings by (scope, full selector) and parameter, with gin's meaning of scopes.

    A macro stands for its text, wherever it is used; gin would open a scope of the macro's name.
    Build one with ``checked_config``. Nothing in here touches gin's own state.
    """

    registry: Registry
    bindings: dict[tuple[str, str], dict[str, Bound]] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)

    def signature(self, selector: str) -> Signature:
        if selector not in self.signatures:
            self.signatures[selector] = signature_of(self.registry.entries[selector])
        return self.signatures[selector]

    def in_force(self, scope: str, selector: str) -> dict[str, Bound]:
        """What a call in the scope gets: the bindings of no scope, then those of each inner one."""
        parts = scope.split("/") if scope else []
        bound: dict[str, Bound] = {}
        for depth in range(len(parts) + 1):
            bound |= self.bindings.get(("/".join(parts[:depth]), selector), {})
        return bound

    def macros(self) -> dict[str, Bound]:
        return {name: bound["value"] for (name, selector), bound in self.bindings.items() if selector == MACRO}

    def spelt_out(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The value with every macro replaced by what it stands for.

        Raises UserError for a macro that is not defined, or is defined by itself.
        """
        macros = self.macros()

        def spell(leaf: Any) -> Any:
            if not isinstance(leaf, Macro) or leaf == REQUIRED:
                return leaf
            if leaf.name in path:
                raise UserError(f"the macro {leaf} is defined by itself")
            if leaf.name not in macros:
                guess = did_you_mean(leaf.name, macros) or f"; define it by a line such as `{leaf.name} = 1`"
                raise UserError(f"the macro {leaf} is not defined{guess}")
            return self.spelt_out(macros[leaf.name].value, (*path, leaf.name))

        return replace(value, spell)

    def settings(self, where: str) -> list[Setting]:
        """Every value in use, starting from the core's own configurables and following references; sorted.

        Raises UserError for a required parameter that nothing binds (``where``: a file that could), or an
        object that needs itself to be built.
        """
        found: dict[tuple[str, str], list[Setting]] = {}
        classes = [("", entry.selector, where) for entry in self.registry.core()]
        while classes:
            classes += list(self._visit(*classes.pop(), found, ()))
        return sorted((setting for call in found.values() for setting in call), key=str)

    def _visit(
        self,
        scope: str,
        selector: str,
        where: str,
        found: dict[tuple[str, str], list[Setting]],
        path: tuple[str, ...],
    ) -> Iterator[tuple[str, str, str]]:
        """Adds the settings of a call and of the instances it builds; yields the classes, built later."""
        name = str(Reference(scope, selector, True))
        if name in path:
            raise UserError(at(where, f"{name} needs itself to be built: {' -> '.join((*path, name))}"))
        if (scope, selector) in found:
            return
        found[scope, selector] = call = list(self._call(scope, self.registry.entries[selector], where))
        in_force = self.in_force(scope, selector)
        for setting in call:
            for leaf in leaves(setting.value):
                if isinstance(leaf, Reference):
                    place = in_force[setting.parameter].where
                    inner = (leaf.scope or scope, leaf.selector, place)
                    if leaf.evaluate:
                        yield from self._visit(*inner, found, (*path, name))
                    else:
                        yield inner

    def _call(self, scope: str, entry: Entry, where: str) -> Iterator[Setting]:
        in_force = self.in_force(scope, entry.selector)
        parameters = self.signature(entry.selector).parameters
        for name in {**parameters, **in_force}:
            if name in in_force:
                value = self.spelt_out(in_force[name].value)
                if REQUIRED in leaves(value):
                    raise UserError(at(in_force[name].where, f"{entry.shown}.{name} must be bound to a value"))
                default = parameters[name].default if name in parameters else ...
                yield Setting(scope, entry, name, value, plain(default) and render(default) == render(value))
            elif parameters[name].required:
                raise UserError(at(where, self._must_be_bound(scope, entry, parameters[name])))
            elif not parameters[name].supplied and plain(parameters[name].default):
                yield Setting(scope, entry, name, parameters[name].default, True)

    def _must_be_bound(self, scope: str, entry: Entry, parameter: Parameter) -> str:
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
            reference of the wrong form, or an argument that the caller supplies.
    """
    config = Config(registry)
    statements = _in_new_names(registry, statements, say)
    resolved = [_resolved(registry, statement) for statement in statements]
    for statement in resolved:
        bound = config.bindings.setdefault((statement.scope, statement.selector), {})
        bound[statement.parameter] = Bound(statement.value, statement.where)
    # Macros first: a mistake in one is then reported where it is defined, not where it is used.
    for statement in sorted(resolved, key=lambda statement: statement.selector != MACRO):
        try:
            _check(config, statement)
        except UserError as error:
            raise UserError(at(statement.where, str(error))) from error
    _check_old_and_new_are_not_mixed(registry, resolved)
    _check_macros_are_used(resolved)
    _check_scopes_are_opened(resolved)
    return config


def _in_new_names(
    registry: Registry, statements: Sequence[Statement], say: Callable[[str], None] | None
) -> list[Statement]:
    """The statements with what stands for each binding of an old name in its place."""
    macros = Config(registry)
    for statement in statements:
        if statement.selector == MACRO:
            bound = macros.bindings.setdefault((statement.scope, MACRO), {})
            bound["value"] = Bound(statement.value, statement.where)
    result: list[Statement] = []
    for statement in statements:
        rename = None if statement.selector == MACRO else registry.rename_of(statement.selector, statement.parameter)
        if rename is None:
            result.append(statement)
            continue
        old, new = rename
        try:
            if callable(new):
                text = new(macros.spelt_out(statement.value))
            else:
                text = f"{new} = {render(statement.value)}"
        except UserError as error:
            raise UserError(at(statement.where, f"{old}: {error}")) from error
        found = read_as(text, statement, old)
        if say is not None:
            written = "; ".join(map(str, found)) or "nothing: leave it out"
            say(at(statement.where, f"{old} is an old name, read as what is written now: {written}"))
        result += found
    return result


def _check_old_and_new_are_not_mixed(registry: Registry, statements: Sequence[Statement]) -> None:
    """Across files the later one wins as ever; within one file, or on one command line, one of the two is a mistake."""
    direct = {(s.source, s.scope, s.selector, s.parameter): s for s in statements if not s.old}
    for statement in statements:
        new = direct.get((statement.source, statement.scope, statement.selector, statement.parameter))
        if statement.old and new is not None:
            name = f"{scoped(new.scope, registry.entries[new.selector].shown)}.{new.parameter}"
            raise UserError(
                f"{statement.where} binds {statement.old}, an old name, and {new.where} binds {name}, which it is read "
                f"as; keep one of the two"
            )


def _resolved(registry: Registry, statement: Statement) -> Statement:
    """The statement with every selector in full."""

    def full(leaf: Any) -> Any:
        if not isinstance(leaf, Reference):
            return leaf
        entry = registry.find(leaf.selector, statement.where)
        return changed(leaf, selector=entry.selector)

    selector = statement.selector
    if selector != MACRO:
        selector = registry.find(selector, statement.where).selector
    return changed(statement, selector=selector, value=replace(statement.value, full))


def _check(config: Config, statement: Statement) -> None:
    entries = config.registry.entries
    value = config.spelt_out(statement.value)
    # gin.singleton is itself what builds the instance, so it alone takes the class of anything.
    if statement.selector != "gin.singleton":
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
    problem = mismatch(parameter, value, lambda reference: entries[reference.selector].load())
    if problem is not None:
        raise UserError(f"{entry.shown}.{parameter.name} {problem}{_reference_meant(config.registry, value)}")


def _check_kind(registry: Registry, entry: Entry, parameter: str, value: Any) -> None:
    wanted = kind_of_parameter(parameter)
    for leaf in leaves(value):
        if wanted is not None and isinstance(leaf, Reference):
            kind = registry.entries[leaf.selector].kind
            if kind in KINDS and kind != wanted:
                names = listed(f"{wanted}.{name}" for name in registry.names(wanted))
                raise UserError(f"{entry.shown}.{parameter} takes the kind {wanted}, not {leaf}; there are {names}")


def _reference_meant(registry: Registry, value: Any) -> str:
    """Text where an object is wanted is most often an object's name without its @."""
    for entry in registry.entries.values():
        if entry.kind in KINDS and value in (entry.name, entry.selector):
            right = Reference("", entry.selector, not KINDS[entry.kind].bound_as_class)
            return f"; for the object write {right}"
    return ""


def _check_form(entry: Entry, reference: Reference) -> None:
    if entry.kind in KINDS and reference.evaluate is KINDS[entry.kind].bound_as_class:
        form = "a class, to be built by what uses it" if KINDS[entry.kind].bound_as_class else "an instance"
        right = changed(reference, evaluate=not reference.evaluate)
        raise UserError(f"the kind {entry.kind} is bound as {form}: write {right} instead of {reference}")


def _check_macros_are_used(statements: Sequence[Statement]) -> None:
    """A fragment may define macros for others; on a command line one that nothing uses is a misspelling."""
    values = [leaf for statement in statements for leaf in leaves(statement.value)]
    used = {leaf.name for leaf in values if isinstance(leaf, Macro)}
    bound = [statement for statement in statements if statement.where.startswith("--bind")]
    for statement in bound:
        if statement.selector == MACRO and statement.scope not in used:
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
        if not statement.where.startswith("--bind") or statement.selector == MACRO or not scope:
            continue
        if not any(f"{other}/".startswith(f"{scope}/") for other in opened):
            raise UserError(
                f"{statement.where}: nothing opens the scope {scope!r}{did_you_mean(scope, opened) or '.'} Scopes in "
                f"use: {listed(opened)}; for a parameter everywhere write it without {scope}/"
            )
