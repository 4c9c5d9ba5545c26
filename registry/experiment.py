"""An experiment: gin files and bindings, checked as a whole and handed to gin."""

import copy
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config

from registry import gintext
from registry.checks import MISSING
from registry.config import Config, Setting, checked_config
from registry.errors import UserError
from registry.gintext import MACRO, REQUIRED, Reference, leaves, render, replace, scoped
from registry.kinds import KINDS
from registry.names import Registry

LOADED = "registry_loaded/gin.macro.value"
"""Where the loaded experiment is noted: in gin's own state, so that clearing it clears the note."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """What gin files and bindings say, ready to run. Only the last one loaded is: gin's state is global.

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

    def get(self, name: str) -> Callable[..., Any]:
        """One of the core's own configurables, such as ``train``, with its parameters bound."""
        self._must_be_loaded()
        configured = gin.get_configurable(self._config.registry.find(name).selector)

        @functools.wraps(configured, updated=())
        def call(*args: Any, **kwargs: Any) -> Any:
            with _one_line_errors():
                return configured(*args, **kwargs)

        return call

    def value(self, parameter: str) -> Any:
        """The value of one parameter, such as ``train.dataset``; of a reference, the object, newly built.

        Raises UserError for an unknown parameter, and for one with neither a binding nor a default.
        """
        self._must_be_loaded()
        selector, _, name = parameter.rpartition(".")
        entry = self._config.registry.find(selector)
        own = self._config.signature(entry.selector).find(entry, name)
        bound = self._config.in_force("", entry.selector).get(name)
        if bound is not None and REQUIRED not in leaves(bound.value):
            with _one_line_errors():
                return copy.deepcopy(gin.query_parameter(f"{entry.selector}.{name}"))
        if own.default is MISSING or own.default is gin.REQUIRED:
            raise UserError(f"{parameter} is bound nowhere and has no default; add a line `{parameter} = ...`")
        return own.default

    def operative_text(self) -> str:
        """Everything in use, defaults included, with full selectors and no macros or includes.

        Loading it gives this experiment again, whatever other plugins are installed by then.
        """
        plugins = ", ".join(f"{name} {version}".strip() for name, version in sorted(self.plugins.items()))
        header = f"# All that {self.name}-{self.hash} uses, defaults included; --gin and this file repeat it."
        return "\n".join([header, f"# Plugins in use: {plugins}", "", *map(str, self._settings), ""])

    def config_text(self) -> str:
        """What the gin files and bindings bind, in use or not, with full selectors; macros first."""
        macros, others = [], []
        for (scope, selector), bound in self._config.bindings.items():
            for parameter, (value, _) in bound.items():
                if selector == MACRO:
                    macros.append(f"{scope} = {render(value)}")
                else:
                    others.append(f"{scoped(scope, selector)}.{parameter} = {render(value)}")
        return "\n".join([*sorted(macros), *sorted(others), ""])

    def settings(self) -> dict[str, str]:
        """Everything in use as gin text by parameter, such as ``{"train.batch_size": "32"}``."""
        return {_shown(setting): render(setting.value) for setting in self._settings}

    def differences(self, other_text: str, label: str = "there") -> list[str]:
        """How another ``operative_text`` or ``config_text`` differs in what it uses; empty if it does not.

        Args:
            other_text: gin text without includes.
            label: what to call the other one, in ``train.batch_size: 32 here, 16 there``.
        """
        try:
            other_config = checked_config(self._config.registry, gintext.read_text(other_text, label))
            other_settings = other_config.settings(label)
        except UserError as error:  # Written with other plugins or another version: that is the difference.
            return [str(error)]
        mine = self.settings()
        theirs = {_shown(setting): render(setting.value) for setting in other_settings}
        return [
            f"{name}: {mine.get(name, 'not in use')} here, {theirs.get(name, 'not in use')} {label}"
            for name in sorted(mine | theirs)
            if mine.get(name) != theirs.get(name)
        ]

    def _must_be_loaded(self) -> None:
        try:
            loaded = gin.query_parameter(LOADED)
        except ValueError:
            loaded = None
        if loaded is not self:
            raise RuntimeError(f"{self.name}-{self.hash} is no longer loaded: load_experiment was called again since")


def load_experiment(
    registry: Registry,
    files: Sequence[str | Path],
    bindings: Sequence[str] = (),
    *,
    search_path: Sequence[Path] = (),
) -> Experiment:
    """Reads gin files and then bindings, checks all of it before anything starts, and hands it to gin.

    Only what the text names is imported. Forgets any experiment that was loaded before.

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
    _hand_to_gin(config)
    gin.bind_parameter(LOADED, experiment)
    gin.finalize()
    for suspect in registry.suspects:
        if suspect.outdated:
            registry.say_once(f"not loaded: {suspect}")
    return experiment


def _hand_to_gin(config: Config) -> None:
    """Replaces gin's state by the configuration. Macros are spelt out, so gin sees none."""
    gin.clear_config()
    named = {selector for _, selector in config.bindings if selector != MACRO}
    named |= {entry.selector for entry in config.registry.core()}
    for bound in config.bindings.values():
        for value, _ in bound.values():
            named |= {leaf.selector for leaf in leaves(config.spelt_out(value)) if isinstance(leaf, Reference)}
    # An earlier experiment in this process may have registered another target of the same name.
    with gin_config.interactive_mode():
        for selector in sorted(named - {"gin.singleton"}):
            entry = config.registry.entries[selector]
            gin.external_configurable(entry.load(), name=entry.name, module=entry.kind)

    for (scope, selector), bound in config.bindings.items():
        for parameter, (value, _) in bound.items():
            spelt_out = config.spelt_out(value)
            # What is still to be bound by someone is not in use here, or it would have been reported.
            if selector != MACRO and REQUIRED not in leaves(spelt_out):
                gin.bind_parameter((scope, selector, parameter), replace(spelt_out, _as_gin_has_it))


def _as_gin_has_it(leaf: Any) -> Any:
    if isinstance(leaf, Reference):
        return gin_config.ConfigurableReference(scoped(leaf.scope, leaf.selector), leaf.evaluate)
    return leaf


def _shown(setting: Setting) -> str:
    return f"{scoped(setting.scope, setting.entry.shown)}.{setting.parameter}"


def _nested(settings: Sequence[Setting]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for setting in settings:
        entry = setting.entry
        path = [entry.kind, scoped(setting.scope, entry.name)] if entry.kind in KINDS else [entry.name]
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[setting.parameter] = _as_tracked(setting.value)
    return nested


def _as_tracked(value: Any) -> Any:
    """Plain values that any tracker takes: references as text, tuples as lists, text keys."""
    if isinstance(value, dict):
        return {str(key): _as_tracked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_tracked(item) for item in value]
    return str(value) if isinstance(value, Reference) else value


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Gin appends the call to the message of what is raised in it; a user's mistake keeps its one line."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).partition("\n  In call to configurable")[0]) from error
