"""The table of names: what each one stands for, who registered it, and what to say when it is not there."""

import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import pluggy

from registry.kinds import KINDS, imported
from registry.watch import Watch
from registry.wording import UserError, at, did_you_mean, listed, printable, reason

Rename = str | Callable[[Any], str]
"""What an old name is read as: the new name, or a function from the old value to gin text."""
SINGLETON = "gin.singleton"
"""Shares one instance among several consumers: ``@scope/gin.singleton()``, one a scope."""
LAZY_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Origin:
    """Who registered a name: a distribution and its version, or a ``--plugin`` and no version."""

    distribution: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        kind: one of ``KINDS``; for the core's own configurables the package they live in.
        name: unique within the kind.
        target: a class or function, or ``"package.module:attribute"``, imported only when needed.
        origin: who registered it.
        watch: names an import that changes process-wide settings.
    """

    kind: str
    name: str
    target: Callable[..., Any] | str
    origin: Origin
    watch: Watch = field(default=Watch(), compare=False, repr=False)

    @property
    def selector(self) -> str:
        """The full gin selector, ``partition.split`` or ``stylenat.train``."""
        return f"{self.kind}.{self.name}"

    @property
    def shown(self) -> str:
        """The selector as people write it: the core's own configurables go without their package."""
        return self.selector if self.kind in KINDS else self.name

    def load(self) -> Callable[..., Any]:
        """The target itself, imported if need be.

        Raises UserError when it cannot be imported, after printing the traceback to stderr.
        """
        if not isinstance(self.target, str):
            return self.target
        try:
            with self.watch.over(f"{self.shown} ({self.origin})"):
                return imported(self.target)
        except (Exception, SystemExit) as error:
            traceback.print_exc(file=sys.stderr)
            problem = f"({self.origin}) cannot be imported from {self.target}: {reason(error)}"
            raise UserError(f"{self.shown} {problem}") from error


@dataclass(frozen=True)
class PluginFile:
    """A plugin that was named with ``--plugin``.

    Attributes:
        name: as it was named, a module or a .py file.
        path: of the module's file, absolute; empty where it has none.
        sha256: of the file's bytes, in hexadecimal digits; empty where it has none.
    """

    name: str
    path: str
    sha256: str

    @property
    def argument(self) -> str:
        """What ``--plugin`` takes from any current folder: the path of a file; the name of a module in a package."""
        return self.path if self.path and Path(self.path).stem in (self.name, Path(self.name).stem) else self.name


@dataclass(frozen=True)
class Suspect:
    """A plugin that is not loaded. Of interest only when a name is missing that it may have offered.

    ``outdated``: it was written for an older plugin API, which its user should know at any time. ``traceback`` is empty
    where the reason says it all.
    """

    name: str
    origin: Origin
    reason: str
    traceback: str
    outdated: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.origin}): {self.reason}"


@dataclass
class Registry:
    """Everything that one ``load_plugins`` found. There is no other state than this object.

    Attributes:
        manager: pluggy's, with the hooks of ``registry.hooks``, as in ``manager.hook.run_started(run=run)``.
        entries: by full selector.
        contested: full selectors that two plugins claim, and the second claimant.
        suspects: plugins that failed to load.
        plugin_files: plugins named with ``--plugin``.
        renames: by a parameter's old name, such as ``train.betas``, what it is read as (``hooks.stylenat_renamed``).
        aside: selectors of the core that a gin file may bind, but that no experiment starts from.
        said: lines that ``say_once`` printed.
        watch: of process-wide settings that no import must change.
    """

    manager: pluggy.PluginManager
    entries: dict[str, Entry] = field(default_factory=dict)
    contested: dict[str, Origin] = field(default_factory=dict)
    suspects: list[Suspect] = field(default_factory=list)
    plugin_files: list[PluginFile] = field(default_factory=list)
    renames: dict[str, Rename] = field(default_factory=dict)
    aside: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    watch: Watch = field(default_factory=Watch)

    def say_once(self, line: str) -> None:
        """Prints a line on stderr, unless it was printed before or another process of the same run prints it."""
        if line not in self.said and os.environ.get("RANK", "0") == "0":
            print(printable(line), file=sys.stderr)
        self.said.add(line)

    def core(self) -> list[Entry]:
        """The core's own configurables, such as ``train``, which every experiment starts from."""
        known = [entry for entry in self.entries.values() if entry.kind not in (*KINDS, "gin")]
        return [entry for entry in known if entry.selector not in self.aside]

    def names(self, kind: str) -> list[str]:
        """What is registered of a kind, sorted."""
        return sorted(entry.name for entry in self.entries.values() if entry.kind == kind)

    def check_kind(self, kind: str) -> None:
        """Raises UserError unless there is such a kind."""
        if kind not in KINDS:
            guess = did_you_mean(kind, KINDS) or "."
            raise UserError(f"there is no kind {kind!r}{guess} The kinds are {listed(KINDS)}")

    def add(self, kind: str, name: str, target: Callable[..., Any] | str, origin: Origin) -> None:
        """Registers one name.

        Raises:
            UserError: for an unknown kind, a name that is taken or that gin cannot spell, or a target that is
                neither a class, a function nor ``"module:attribute"``.
        """
        self.check_kind(kind)
        entry = Entry(kind, name, target, origin, self.watch)
        lazy = isinstance(target, str) and LAZY_TARGET.fullmatch(target)
        if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
            raise UserError(f"{name!r} cannot name a {kind} in a gin file; use letters, digits and underscores")
        if any(name == other.name for other in self.entries.values() if other.kind not in KINDS):
            raise UserError(f"{entry.selector} would make the core's own {name!r} ambiguous; choose another name")
        if not lazy and not inspect.isroutine(target) and not inspect.isclass(target):
            what = "a class, a function or 'package.module:Attribute'"
            raise UserError(f"{entry.selector}: the target must be {what}, not {target!r}")
        if entry.selector in self.entries:
            first, self.contested[entry.selector] = self.entries[entry.selector].origin, origin
            raise UserError(f"{entry.selector} is registered by both {first} and {origin}; one of them must go")
        self.entries[entry.selector] = entry

    def add_core(self, name: str, target: str, aside: bool = False) -> None:
        """Registers one of the core's configurables, such as ``"train", "stylenat.training.train:train"``.

        ``aside``: an experiment does not start from it, so that it is no part of what a run uses.
        """
        package = target.partition(":")[0].partition(".")[0]
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:  # Run from a checkout that was never installed.
            version = ""
        entry = Entry(package, name, target, Origin(package, version))
        self.entries[entry.selector] = entry
        if aside:
            self.aside.add(entry.selector)

    def rename_of(self, selector: str, parameter: str) -> tuple[str, Rename] | None:
        """The old name and what to read instead, if a gin text's ``selector.parameter`` is one."""
        rows = [row for row in self.renames.items() if row[0].endswith(f".{parameter}")]
        full = [name for name in self.entries if rows and name.endswith(f".{selector}")]
        spelt = [f".{name}.{parameter}" for name in (selector, *full)]
        return next((row for row in rows if any(text.endswith(f".{row[0]}") for text in spelt)), None)

    def find(self, selector: str, where: str = "") -> Entry:
        """The entry that a gin selector names: ``partition.split``, or ``split`` where that is enough.

        Raises:
            UserError: nothing, or more than one thing, is called so. Plugins that failed to load are then
                listed as suspects, and their tracebacks printed to stderr.
        """
        matches = [selector] if selector in self.entries else []
        matches = matches or [full for full in self.entries if full.endswith(f".{selector}")]
        if not matches:
            raise UserError(at(where, self._unknown(selector)))
        if len(matches) > 1:
            raise UserError(at(where, f"{selector!r} could be {' or '.join(sorted(matches))}; write it in full"))
        entry = self.entries[matches[0]]
        if entry.selector in self.contested:
            both = f"{entry.origin} and {self.contested[entry.selector]}"
            raise UserError(at(where, f"{entry.selector} is registered by both {both}; uninstall one of them"))
        return entry

    def _unknown(self, selector: str) -> str:
        kind, _, name = selector.rpartition(".")
        if selector in KINDS:
            names = listed(f"{selector}.{name}" for name in self.names(selector))
            return f"{selector!r} is a kind; write {selector}.NAME.PARAMETER = value. There are {names}"
        if kind in KINDS:
            known = f"Known names of this kind: {listed(self.names(kind))}"
            guess = did_you_mean(name, self.names(kind)).replace("mean '", f"mean '{kind}.")
        else:
            shown = {entry.shown for entry in self.entries.values() if entry.kind != "gin"}
            known = f"Known names: {listed(shown)}"
            guess = did_you_mean(selector, shown) or did_you_mean(selector, {e.name for e in self.entries.values()})
        if self.suspects:
            print(*(s.traceback for s in self.suspects if s.traceback), sep="\n", end="", file=sys.stderr)
            known += f". Plugins that failed to load: {'; '.join(map(str, self.suspects))}"
        return f"nothing is called {selector!r}{guess or '.'} {known}"
