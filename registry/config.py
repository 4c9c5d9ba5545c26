"""Statements to a checked configuration: names known, values of the right type, nothing required missing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import Any, NamedTuple

from registry import gintext
from registry.gintext import DEPTH, MACRO, REQUIRED, Macro, Reference, Statement, leaves, plain, render, replace, scoped
from registry.kinds import KINDS, kind_of_parameter
from registry.names import SINGLETON, Entry, Registry
from registry.signatures import Signature, mismatch, signature_of
from registry.wording import UserError, at, did_you_mean, listed

VALUES = 2**17
"""Numbers, strings, brackets and references that may be looked at while an experiment loads, macros spelt out."""
OBJECTS = 10_000
"""That one call may build."""


class Call(NamedTuple):
    """Something that is built: its scope and full selector."""

    scope: str
    selector: str

    def referred(self, reference: Reference) -> "Call":
        """What a reference in a parameter of this call builds; without a scope of its own, in this call's."""
        return Call(reference.scope or self.scope, reference.selector)


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


@dataclass
class Config:
    """All statements in force, by call and parameter, with gin's meaning of scopes.

    A macro stands for its text, wherever it is used. Build one with ``checked_config``.
    ``budget``: values that may still be looked at.
    """

    registry: Registry
    macros: dict[str, Statement] = field(default_factory=dict)
    bindings: dict[Call, dict[str, Statement]] = field(default_factory=dict)
    budget: float = VALUES
    _signatures: dict[str, Signature] = field(default_factory=dict)

    def signature(self, selector: str) -> Signature:
        if selector not in self._signatures:
            self._signatures[selector] = signature_of(self.registry.entries[selector])
        return self._signatures[selector]

    def target_of(self, reference: Reference) -> Callable[..., Any]:
        return self.registry.entries[reference.selector].load()

    def in_force(self, call: Call) -> dict[str, Statement]:
        """What a call gets: what is bound in no scope, then in each inner one."""
        parts = call.scope.split("/") if call.scope else []
        bound: dict[str, Statement] = {}
        for depth in range(len(parts) + 1):
            bound |= self.bindings.get(Call("/".join(parts[:depth]), call.selector), {})
        return bound

    def spelt_out(self, value: Any, path: tuple[str, ...] = (), depth: int = 0) -> Any:
        """The value with every macro replaced by what it stands for.

        Args:
            path: the macros that the value stands in; depth: levels of brackets and macros around it.

        Raises:
            UserError: a macro is not defined or is defined by itself, more than ``DEPTH`` levels, or no budget left.
        """
        self.budget -= 1
        if self.budget < 0:
            raise UserError(f"more than {VALUES:,} values with macros spelt out")
        if depth > DEPTH:
            raise UserError(f"more than {DEPTH} brackets and macros in each other")
        if isinstance(value, list | tuple):
            return type(value)(self.spelt_out(item, path, depth + 1) for item in value)
        if isinstance(value, dict):
            pairs = [[self.spelt_out(item, path, depth + 1) for item in pair] for pair in value.items()]
            try:
                return {key: item for key, item in pairs}
            except TypeError as error:  # A macro may stand for a list.
                raise UserError("a list or dictionary cannot be a key of a dictionary") from error
        if not isinstance(value, Macro) or value == REQUIRED:
            return value
        if value.name in path:
            raise UserError(f"the macro {value} is defined by itself")
        if value.name not in self.macros:
            raise UserError(f"the macro {value} is not defined{self._what_was_meant(value.name)}")
        return self.spelt_out(self.macros[value.name].value, (*path, value.name), depth + 1)

    def _what_was_meant(self, macro: str) -> str:
        if guess := did_you_mean(macro, [*self.macros, REQUIRED.name]):
            return guess
        module, _, member = macro.rpartition(".")
        if module:
            return f", and gin's constants are not offered; write the member of an Enum as a string: {member!r}"
        return f"; define it by a line such as `{macro} = 1`"

    def settings(self, where: str) -> list[Setting]:
        """Every value in use, starting from the core's own configurables and following references; sorted.

        Raises UserError for a required parameter that nothing binds (``where``: a file that could), an object that
        needs itself to be built, or more objects than ``OBJECTS``.
        """
        found: dict[Call, list[Setting]] = {}
        objects: dict[Call, int] = {}
        classes = [(Call("", entry.selector), where) for entry in self.registry.core()]

        def visit(call: Call, where: str, path: tuple[Call, ...] = ()) -> int:
            """Finds the settings of a call and of the instances it builds, which it counts; classes are built later."""
            if call in path:
                names = " -> ".join(str(Reference(*inner, True)) for inner in (*path, call))
                raise UserError(at(where, f"{Reference(*call, True)} needs itself to be built: {names}"))
            if len(path) > DEPTH:
                raise UserError(at(where, f"more than {DEPTH} objects that need each other to be built"))
            if call in found:
                return objects[call]
            found[call], objects[call] = list(self._call(call, where)), 1
            for setting in found[call]:
                for leaf in leaves(setting.value):
                    if isinstance(leaf, Reference):
                        line, inner = self.in_force(call)[setting.parameter].where, call.referred(leaf)
                        if not leaf.evaluate:
                            classes.append((inner, line))
                            continue
                        objects[call] += visit(inner, line, (*path, call))
                        if objects[call] > OBJECTS:
                            raise UserError(at(line, f"{setting.shown} takes more than {OBJECTS:,} objects to build"))
            return objects[call]

        while classes:
            visit(*classes.pop())
        return sorted((setting for settings in found.values() for setting in settings), key=str)

    def _call(self, call: Call, where: str) -> Iterator[Setting]:
        scope, entry, in_force = call.scope, self.registry.entries[call.selector], self.in_force(call)
        parameters = self.signature(entry.selector).parameters
        for name in {**parameters, **in_force}:
            default = parameters[name].written_default if name in parameters else ...
            if name in in_force:
                try:
                    value = self.spelt_out(in_force[name].value)
                    if REQUIRED in leaves(value):
                        raise UserError(f"{entry.shown}.{name} must be bound to a value")
                except UserError as error:
                    raise UserError(at(in_force[name].where, str(error))) from error
                yield Setting(scope, entry, name, value, plain(default) and render(default) == render(value))
            elif parameters[name].required:
                takes = f" (it takes {parameters[name].type})" if parameters[name].type else ""
                line = f"add a line `{scoped(scope, entry.shown)}.{name} = ...`"
                raise UserError(at(where, f"{entry.shown} needs its parameter {name!r}{takes}; {line}"))
            elif not parameters[name].supplied and plain(default):
                yield Setting(scope, entry, name, default, True)


def checked_config(
    registry: Registry, statements: Sequence[Statement], say: Callable[[str], None] | None = None
) -> Config:
    """The configuration that the statements make, the last of two bindings winning, with all of them checked.

    ``say`` is called with a line for each binding of an old name.

    Raises:
        UserError: naming file and line, for an unknown name, parameter or macro, a value of the wrong type, a
            reference of the wrong form, an argument that the caller supplies, or more than ``VALUES`` values.
    """
    config = Config(registry, {s.scope: s for s in statements if s.selector == MACRO})
    statements = [_resolved(registry, new) for s in statements for new in _in_new_names(config, s, say)]
    # Macros first: a mistake in one is then reported where it is defined, not where it is used.
    statements.sort(key=lambda statement: statement.selector != MACRO)
    for s in statements:
        if s.selector == MACRO:
            config.macros[s.scope] = s
        else:
            config.bindings.setdefault(Call(s.scope, s.selector), {})[s.parameter] = s
    for s in statements:
        try:
            _check(config, s, config.spelt_out(s.value))
        except UserError as error:
            raise UserError(at(s.where, str(error))) from error
    _check_old_and_new_are_not_mixed(registry, statements)
    _check_command_line(statements)
    return config


def _in_new_names(config: Config, statement: Statement, say: Callable[[str], None] | None) -> list[Statement]:
    """What the statement is read as: itself, or what stands for it where it binds an old name."""
    rename = config.registry.rename_of(statement.selector, statement.parameter)
    if rename is None:
        return [statement]
    old, new = rename
    try:
        text = f"{new} = {render(statement.value)}" if isinstance(new, str) else new(config.spelt_out(statement.value))
        found = gintext.read_as(text, statement, old)
    except UserError as error:
        raise UserError(at(statement.where, f"{old}: {error}")) from error
    if say is not None:
        written = "; ".join(map(str, found)) or "nothing: delete the line"
        say(at(statement.where, f"{old} is an old name; it is read as, and is now written: {written}"))
    return found


def _resolved(registry: Registry, statement: Statement) -> Statement:
    """The statement with every selector in full."""

    def full(selector: str) -> str:
        return registry.find(selector, statement.where).selector

    selector = statement.selector if statement.selector == MACRO else full(statement.selector)
    value = replace(
        statement.value,
        lambda leaf: changed(leaf, selector=full(leaf.selector)) if isinstance(leaf, Reference) else leaf,
    )
    return changed(statement, selector=selector, value=value)


def _check(config: Config, statement: Statement, value: Any) -> None:
    """``value``: the statement's, with macros spelt out."""
    registry = config.registry
    references = [leaf for leaf in leaves(statement.value) if isinstance(leaf, Reference)]
    # A singleton is itself what builds the instance, so it alone takes the class of anything.
    for reference in references if statement.selector != SINGLETON else ():
        kind = registry.entries[reference.selector].kind
        if kind in KINDS and reference.evaluate is KINDS[kind].bound_as_class:
            form = "a class, to be built by what uses it" if KINDS[kind].bound_as_class else "an instance"
            right = changed(reference, evaluate=not reference.evaluate)
            raise UserError(f"the kind {kind} is bound as {form}: write {right} instead of {reference}")
    if max(scope.count("/") for scope in (statement.scope, *(reference.scope for reference in references))) >= DEPTH:
        raise UserError(f"more than {DEPTH} scopes in each other")
    if statement.selector == MACRO:
        return
    entry = registry.entries[statement.selector]
    parameter = config.signature(entry.selector).find(entry, statement.parameter)
    if REQUIRED in leaves(value):
        return
    wanted = kind_of_parameter(parameter.name)
    for leaf in leaves(value):
        if wanted is not None and isinstance(leaf, Reference) and registry.entries[leaf.selector].kind != wanted:
            if registry.entries[leaf.selector].kind in KINDS:
                names = listed(f"{wanted}.{name}" for name in registry.names(wanted))
                raise UserError(
                    f"{entry.shown}.{parameter.name} takes the kind {wanted}, not {leaf}; there are {names}"
                )
    problem = mismatch(parameter, value, config.target_of)
    if problem is not None:
        raise UserError(f"{entry.shown}.{parameter.name} {problem}{_reference_meant(registry, value)}")


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
    for old in filter(lambda statement: statement.old, statements):
        if new := direct.get((old.source, old.scope, old.selector, old.parameter)):
            name = f"{scoped(new.scope, registry.entries[new.selector].shown)}.{new.parameter}"
            raise UserError(
                f"{old.where} binds {old.old}, an old name, and {new.where} binds {name}, which it is read as; "
                "keep one of the two"
            )


def _check_command_line(statements: Sequence[Statement]) -> None:
    """A file may define macros and scopes for others; on a command line one that nothing uses is a misspelling."""
    values = [leaf for statement in statements for leaf in leaves(statement.value)]
    macros = {leaf.name for leaf in values if isinstance(leaf, Macro)}
    scopes = {leaf.scope for leaf in values if isinstance(leaf, Reference) and leaf.scope}
    for where, name, is_macro in ((s.where, s.scope, s.selector == MACRO) for s in statements if s.source == "--bind"):
        if is_macro and name not in macros:
            raise UserError(
                f"{where}: nothing uses the macro %{name}{did_you_mean(name, macros) or '.'} Macros in use: "
                f"{listed(macros)}. To bind a parameter write NAME.PARAMETER = value"
            )
        if not is_macro and name and not any(f"{scope}/".startswith(f"{name}/") for scope in scopes):
            raise UserError(
                f"{where}: nothing opens the scope {name!r}{did_you_mean(name, scopes) or '.'} Scopes in use: "
                f"{listed(scopes)}; for a parameter everywhere write it without {name}/"
            )
