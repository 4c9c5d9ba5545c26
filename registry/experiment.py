"""An experiment: gin files and bindings, checked before anything starts, and built from what they bind."""

import functools
import hashlib
import math
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from registry import gintext
from registry.config import Call, Config, Setting, checked_config
from registry.gintext import CHARACTERS, REQUIRED, Reference, leaves, render, replace, scoped
from registry.kinds import KINDS
from registry.names import SINGLETON, Registry
from registry.signatures import MISSING, converted
from registry.wording import UserError, at


def singleton(constructor: type) -> Any:
    """One instance for all ``@scope/gin.singleton()`` of a scope. The experiment keeps it."""
    return constructor()


@dataclass(frozen=True, eq=False)
class Experiment:
    """What gin files and bindings say, ready to run.

    Attributes:
        name: stem of the first gin file.
        hash: 8 hexadecimal digits of what is in use. Comments, order, includes, macros, unused bindings and
            values bound to their defaults make no difference.
        paths: the gin files as found.
        hparams: every value in use as nested plain values: ``hparams["partition"]["split"]["kernel_size"]``.
        plugins: version by distribution, of whatever is in use.
    """

    name: str
    hash: str
    paths: tuple[Path, ...]
    hparams: dict[str, Any]
    plugins: dict[str, str]
    _config: Config = field(repr=False)
    _settings: tuple[Setting, ...] = field(repr=False)
    _singletons: dict[str, Callable[[], Any]] = field(default_factory=dict, repr=False)

    def get(self, name: str) -> Callable[..., Any]:
        """One of the core's own configurables, such as ``train``, with its parameters bound."""
        return self._configured(Call("", self._config.registry.find(name).selector), str(self.paths[-1]))

    def value(self, parameter: str) -> Any:
        """The value of one parameter, such as ``train.dataset``; of a reference, the object, newly built.

        Raises UserError for an unknown parameter, and for one with neither a binding nor a default.
        """
        selector, _, name = parameter.rpartition(".")
        entry = self._config.registry.find(selector)
        default = self._config.signature(entry.selector).find(entry, name).default
        call = Call("", entry.selector)
        if name in (bound := self._bound(call)):
            return self._built(call, name, *bound[name])
        if default is MISSING:
            raise UserError(f"{parameter} is bound nowhere and has no default; add a line `{parameter} = ...`")
        return default

    def operative_text(self) -> str:
        """Everything in use, defaults included, with full selectors and no macros or includes.

        Loading it gives this experiment again, whatever other plugins are installed by then.
        """
        plugins = ", ".join(f"{name} {version}".strip() for name, version in sorted(self.plugins.items()))
        header = f"# All that {self.name}-{self.hash} uses, defaults included; --gin and this file repeat it."
        return "\n".join([header, f"# Plugins in use: {plugins}", "", *map(str, self._settings), ""])

    def settings(self) -> dict[str, str]:
        """Everything in use as gin text by parameter, such as ``{"train.batch_size": "32"}``."""
        return {setting.shown: render(setting.value) for setting in self._settings}

    def differences(self, other_text: str, label: str = "there") -> list[str]:
        """How another ``operative_text`` differs in what it uses; empty if it does not.

        Args:
            other_text: gin text without includes.
            label: what to call the other one, in ``train.batch_size: 32 here, 16 there``.
        """
        try:
            found = self.differing(other_text, label)
        except UserError as error:  # Written with other plugins or another version: that is the difference.
            return [str(error)]
        return [
            f"{name}: {mine or 'not in use'} here, {theirs or 'not in use'} {label}"
            for name, (mine, theirs) in found.items()
        ]

    def differing(self, other_text: str, label: str = "there") -> dict[str, tuple[str | None, str | None]]:
        """By parameter, the value here and that of another ``operative_text``, where they differ; None: not in use.

        Raises UserError for a text of other plugins or of a version that this one cannot read.
        """
        config = checked_config(self._config.registry, gintext.read_text(other_text, label))
        theirs = {setting.shown: render(setting.value) for setting in config.settings(label)}
        mine = self.settings()
        names = sorted(name for name in mine | theirs if mine.get(name) != theirs.get(name))
        return {name: (mine.get(name), theirs.get(name)) for name in names}

    def _bound(self, call: Call) -> dict[str, tuple[Any, str]]:
        """What a call is given: values with macros spelt out, and the lines that bind them."""
        in_force = self._config.in_force(call)
        bound = {name: (self._config.spelt_out(found.value), found.where) for name, found in in_force.items()}
        # What is still to be bound by someone is not in use, or it would have been reported.
        return {name: pair for name, pair in bound.items() if REQUIRED not in leaves(pair[0])}

    def _built(self, call: Call, parameter: str, value: Any, where: str) -> Any:
        """A parameter's value as its call takes it, anew each time, with references built."""
        signature, entry = self._config.signature(call.selector), self._config.registry.entries[call.selector]

        def built(leaf: Any) -> Any:
            if not isinstance(leaf, Reference):
                return leaf
            configured = self._configured(call.referred(leaf), where)
            return configured() if leaf.evaluate else configured

        return replace(converted(signature.find(entry, parameter), value, self._config.target_of), built)

    def _configured(self, call: Call, where: str) -> Callable[..., Any]:
        """The target of a call, whose bound parameters are given to it unless the caller gives others.

        ``where``: the line that refers to it. What the target refuses is reported with the lines that bind it.
        """
        target = self._config.registry.entries[call.selector].load()
        names = list(self._config.signature(call.selector).parameters)

        @functools.wraps(target, updated=())
        def configured(*args: Any, **kwargs: Any) -> Any:
            given = {*names[: len(args)], *kwargs}
            bound = {name: pair for name, pair in self._bound(call).items() if name not in given}
            options = {name: self._built(call, name, *pair) for name, pair in bound.items()}
            try:
                return target(*args, **options, **kwargs)
            except Exception as error:
                self._locate(error, call, where)
                raise

        if call.selector == SINGLETON:
            return lambda: self._singletons.setdefault(call.scope, functools.cache(configured))()
        return configured

    def _locate(self, error: Exception, call: Call, where: str) -> None:
        """Adds to an error of a target the lines that bound the parameters it names, or else all of its own.

        Raises a UserError instead where the target's own package raised a ValueError: so it refuses an argument.
        """
        if isinstance(error, UserError) and error.located:
            return
        message, rows = " ".join(str(error).split()), list(self._lines(call))
        rows = [r for r in rows if re.search(rf"\b{r[1]}\b", message)] or [r for r in rows if r[0] == self._shown(call)]
        lines = [line if f"{name}.{end}" in message else f"{line}: {name}.{end}" for name, end, line in rows]
        lines = list(dict.fromkeys(lines)) or [at(where, self._shown(call))]
        prefix = ", ".join([*lines[:3], *(["..."] if len(lines) > 3 else [])])
        if isinstance(error, UserError):
            error.args, error.located = (f"{prefix}: {message}",), True
        elif isinstance(error, ValueError) and _raised_by(error) == self._package(call):
            refused = UserError(f"{prefix}: {message}")
            refused.located = True
            raise refused from error
        else:
            error.add_note(f"while building {self._shown(call)}, bound at {prefix}")

    def _lines(self, call: Call) -> Iterator[tuple[str, str, str]]:
        """(selector, parameter, line) of every binding of a call and of the instances that it is given."""
        for parameter, (value, where) in self._bound(call).items():
            yield self._shown(call), parameter, where
            for leaf in leaves(value):
                if isinstance(leaf, Reference) and leaf.evaluate:
                    yield from self._lines(call.referred(leaf))

    def _shown(self, call: Call) -> str:
        return scoped(call.scope, self._config.registry.entries[call.selector].shown)

    def _package(self, call: Call) -> str:
        return self._config.registry.entries[call.selector].load().__module__.partition(".")[0]


def _raised_by(error: Exception) -> str:
    """The package of the code that raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def load_experiment(
    registry: Registry,
    files: Sequence[str | Path],
    bindings: Sequence[str] = (),
    *,
    search_path: Sequence[Path] = (),
) -> Experiment:
    """Reads gin files and then bindings, and checks all of it before anything starts.

    Only what the text names is imported.

    Args:
        registry: from ``load_plugins``.
        files: gin files, searched in the current folder and then in ``search_path``; the later one wins.
        bindings: ``"train.iterations = 5"``; these win over files.
        search_path: folders of shipped experiments, searched for files and includes.

    Raises:
        UserError: naming ``file:line`` or ``--bind 'text'``, whatever is wrong with the text.
    """
    if not files:
        raise UserError("no gin file is given; name one with --gin FILE")
    config = checked_config(registry, gintext.read(files, bindings, search_path), registry.say_once)
    paths = tuple(gintext.find_file(str(file), search_path) for file in files)
    settings = config.settings(str(paths[-1]))
    config.budget = math.inf  # All is known to be bounded.
    chosen = "\n".join(str(setting) for setting in settings if not setting.is_default)
    # What has no parameters has no settings, but is referred to.
    references = (leaf for setting in settings for leaf in leaves(setting.value) if isinstance(leaf, Reference))
    in_use = [setting.entry for setting in settings] + [registry.entries[leaf.selector] for leaf in references]
    experiment = Experiment(
        name=paths[0].stem,
        hash=hashlib.sha256(chosen.encode()).hexdigest()[:8],
        paths=paths,
        hparams=_nested(settings),
        plugins={entry.origin.distribution: entry.origin.version for entry in in_use},
        _config=config,
        _settings=tuple(settings),
    )
    if len(experiment.operative_text()) > CHARACTERS:
        raise UserError(f"{paths[0]}: with macros spelt out, more than {CHARACTERS:,} characters")
    for suspect in registry.suspects:
        if suspect.outdated:
            registry.say_once(f"not loaded: {suspect}")
    return experiment


def arguments(
    registry: Registry, selector: str, files: Sequence[str | Path], bindings: Sequence[str], search_path: Sequence[Path]
) -> dict[str, Any]:
    """What gin files and bindings, all of them checked, bind of one name's parameters, in no scope.

    Raises UserError as ``load_experiment`` does, for a value that is itself to be built, and for a parameter that
    nothing binds and that has no default.
    """
    entry, bound = registry.find(selector), {}
    config = checked_config(registry, gintext.read(files, bindings, search_path))
    signature = config.signature(entry.selector)
    for name, found in config.in_force(Call("", entry.selector)).items():
        value = config.spelt_out(found.value)
        if any(isinstance(leaf, Reference) for leaf in leaves(value)):
            raise UserError(f"{entry.shown}.{name} = {render(value)}: only plain values can be used here")
        bound[name] = converted(signature.find(entry, name), value, config.target_of)
    for name, parameter in signature.parameters.items():
        if parameter.required and name not in bound:
            raise UserError(f"{entry.shown} needs {name!r}: add --bind '{entry.shown}.{name} = ...'")
    return bound


def _nested(settings: Sequence[Setting]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for setting in settings:
        entry, inner = setting.entry, nested
        for part in (entry.kind, scoped(setting.scope, entry.name)) if entry.kind in KINDS else (entry.name,):
            inner = inner.setdefault(part, {})
        inner[setting.parameter] = _as_tracked(setting.value)
    return nested


def _as_tracked(value: Any) -> Any:
    """Plain values that any tracker takes: references as text, tuples as lists, text keys."""
    if isinstance(value, dict):
        return {str(key): _as_tracked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_tracked(item) for item in value]
    return str(value) if isinstance(value, Reference) else value
