"""Finds plugins and calls the ``stylenat_register`` of each by itself: a broken one does not affect the others."""

import hashlib
import importlib
import importlib.util
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pluggy

from registry import hooks
from registry.kinds import API_VERSION, CHANGES, OLDEST_API_VERSION
from registry.names import SINGLETON, Entry, Origin, PluginFile, Registry, Suspect
from registry.watch import Watch
from registry.wording import UserError, printable, reason

GROUP = "stylenat"
SLOW = 2.0
"""Seconds that a plugin may take to import before it is named."""


def load_plugins(
    extra: Sequence[str | PluginFile] = (),
    *,
    core: Mapping[str, str] | None = None,
    aside: Mapping[str, str] | None = None,
    entry_points: Iterable[metadata.EntryPoint] | None = None,
    watched: Callable[[], Mapping[str, object]] = dict,
) -> Registry:
    """Loads every installed plugin, and those named on the command line.

    Args:
        extra: modules or .py files (``--plugin``); modules are also searched in the current folder. A ``PluginFile`` is
            run only if the file still has those bytes.
        core: the core's own configurables by name, such as ``{"train": "stylenat.training.train:train"}``.
        aside: the same for what an experiment's file may hold beside the experiment, such as an ablation's variants.
        entry_points: where plugins come from; the installed ones of the group ``stylenat`` by default.
        watched: process-wide settings by name. An import that changes one is named on stderr.

    Raises:
        UserError: no plugin at all is installed, or one of ``extra`` does not load. An installed plugin that
            does not load becomes a suspect, named only when something is missing.
    """
    registry = Registry(pluggy.PluginManager(hooks.PROJECT))
    registry.watch = Watch(watched, registry.say_once)
    registry.manager.add_hookspecs(hooks)
    registry.entries[SINGLETON] = Entry("gin", "singleton", "registry.experiment:singleton", Origin("gin-config"))
    for name, target in (core or {}).items():
        registry.add_core(name, target)
    for name, target in (aside or {}).items():
        registry.add_core(name, target, aside=True)

    found = _installed(registry) if entry_points is None else list(entry_points)
    if not found:
        raise UserError("no plugin is installed, not even the bundled ones; run `pip install -e .` in the repository")
    for entry_point in sorted(found, key=lambda point: (_origin(point).distribution, point.name)):
        origin = _origin(entry_point)
        try:
            with _imports(registry, f"the plugin {entry_point.name} ({origin})"):
                plugin = entry_point.load()
            _register(registry, plugin, origin)
        except (Exception, SystemExit) as error:
            # Whatever foreign code raises: kept with its traceback, for when a name is missing.
            declared = _declared_in_source(entry_point.value.partition(":")[0].strip())
            why, trace = _other_api(declared), ""
            outdated = bool(why) and declared is not None and declared < OLDEST_API_VERSION
            if not why:
                why, trace = reason(error), traceback.format_exc()
            registry.suspects.append(Suspect(entry_point.name, origin, why, trace, outdated))

    for wanted in extra:
        name = wanted if isinstance(wanted, str) else wanted.name
        try:
            with _imports(registry, f"the plugin --plugin {name}"):
                plugin, file = _import(wanted)
            _register(registry, plugin, Origin(f"--plugin {name}"))
            registry.plugin_files.append(file)
        except UserError as error:
            raise UserError(f"--plugin {name}: {error}") from error
        except (Exception, SystemExit) as error:
            if why := _other_api(_declared_in_source(name)):
                raise UserError(f"--plugin {name}: {why}") from error
            traceback.print_exc(file=sys.stderr)
            raise UserError(f"--plugin {name} does not load: {reason(error)}") from error
    return registry


def _installed(registry: Registry) -> list[metadata.EntryPoint]:
    """Of all distributions. One whose list of entry points cannot be read becomes a suspect."""
    try:
        return list(metadata.entry_points(group=GROUP))
    except Exception:  # Any package's metadata may be damaged, and importlib.metadata checks nothing.
        found: dict[tuple[str, str], metadata.EntryPoint] = {}
        for distribution in metadata.distributions():
            try:
                for point in distribution.entry_points.select(group=GROUP):
                    found.setdefault((point.name, point.value), point)
            except Exception as error:
                origin = _distribution(distribution)
                why = f"its entry_points.txt cannot be read ({reason(error)}); install it again"
                name = origin.distribution or "a distribution without metadata"
                registry.suspects.append(Suspect(name, origin, why, ""))
        return list(found.values())


def _origin(entry_point: metadata.EntryPoint) -> Origin:
    if entry_point.dist is None:
        return Origin(entry_point.value.partition(":")[0])
    origin = _distribution(entry_point.dist)
    return origin if origin.distribution else Origin(entry_point.value.partition(":")[0])


def _distribution(distribution: metadata.Distribution) -> Origin:
    """Name and version; empty where there is no METADATA, as an interrupted installation leaves it."""
    try:
        return Origin(str(distribution.metadata["Name"] or ""), str(distribution.metadata["Version"] or ""))
    except Exception:  # As above: what it raises depends on Python's version.
        return Origin("")


def _register(registry: Registry, plugin: object, origin: Origin) -> None:
    """Registers a plugin's hooks, names and old names; all of them or none."""
    manager = registry.manager
    if manager.is_registered(plugin):  # Installed and named with --plugin too, or offered by two entry points.
        return
    declared = getattr(plugin, "STYLENAT_API", None)
    if declared is not None and type(declared) is not int:
        raise UserError(f"its STYLENAT_API is {declared!r}; it must be a number such as {API_VERSION}")
    if why := _other_api(declared):
        raise UserError(why)
    before, renames = dict(registry.entries), dict(registry.renames)
    try:
        manager.register(plugin)
        manager.check_pending()  # A misspelt hook would never be called.
        others = [other for other in manager.get_plugins() if other is not plugin]
        register = partial(registry.add, origin=origin)
        manager.subset_hook_caller("stylenat_register", others)(register=register)
        manager.subset_hook_caller("stylenat_renamed", others)(renamed=registry.renames.__setitem__)
    except BaseException:
        if manager.is_registered(plugin):
            manager.unregister(plugin)
        registry.entries, registry.renames = before, renames
        raise


def _other_api(declared: int | None) -> str:
    """Why a plugin that was written for this API cannot be loaded; empty where it can."""
    if declared is None or OLDEST_API_VERSION <= declared <= API_VERSION:
        return ""
    if declared > API_VERSION:
        return f"it needs plugin API {declared} and this stylenat offers {API_VERSION}; upgrade stylenat"
    changing = 'docs/plugins.md, "From API 1 to 2", says how to change it'
    return f"it was written for plugin API {declared}, before {CHANGES}; {changing}"


def _declared_in_source(plugin: str) -> int | None:
    """The API that a module or file says it needs, when importing it has failed: most likely for want of that API."""
    try:
        spec = None if plugin.endswith(".py") else importlib.util.find_spec(plugin)
        source = plugin if plugin.endswith(".py") else spec and spec.origin
        text = Path(source).read_text(encoding="utf-8") if source else ""
    except (Exception, SystemExit):  # Its package, which find_spec imports, is what fails; or there is no source.
        return None
    found = re.search(r"^STYLENAT_API\s*(?::\s*int\s*)?=\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


@contextmanager
def _imports(registry: Registry, plugin: str) -> Iterator[None]:
    """Names a plugin that takes long to import, while it does and with the total, or that changes watched settings."""
    plugin, began = printable(plugin), time.monotonic()
    waiting = threading.Timer(SLOW, lambda: print(f"still importing {plugin} ...", file=sys.stderr))
    waiting.daemon = True
    waiting.start()
    try:
        with registry.watch.over(plugin):
            yield
    finally:
        waiting.cancel()
        if (took := time.monotonic() - began) > SLOW:
            print(
                f"{plugin} took {took:.1f} s to import; targets in the lazy form 'package.module:Attribute' "
                f"would cost that only where they are used",
                file=sys.stderr,
            )


def _import(wanted: str | PluginFile) -> tuple[ModuleType, PluginFile]:
    if isinstance(wanted, PluginFile):
        return _import_file(Path(wanted.path), wanted.sha256)[0], wanted
    importlib.invalidate_caches()
    if wanted.endswith(".py"):
        path = Path(wanted).absolute()
        module, digest = _import_file(path)
        return module, PluginFile(wanted, str(path), digest)
    _search(Path.cwd())
    try:
        module = importlib.import_module(wanted)
    except ModuleNotFoundError as error:
        if error.name and f"{wanted}.".startswith(f"{error.name}."):  # Itself, not what it imports.
            raise UserError(
                f"there is no module {error.name!r}, installed or in {Path.cwd()}; check the name, or give its file"
            ) from error
        raise
    if not module.__file__:  # A namespace package.
        return module, PluginFile(wanted, "", "")
    source = Path(module.__file__).absolute()
    return module, PluginFile(wanted, str(source), hashlib.sha256(source.read_bytes()).hexdigest())


def _import_file(path: Path, expected: str = "") -> tuple[ModuleType, str]:
    """Runs a .py file, anew each time, as the module of its stem, which lazy targets and pickles can name.

    Returns the module and the SHA-256 of the very bytes that were run.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if not path.stem.isidentifier():
        raise UserError(f"{path.name} cannot be imported; rename it to letters, digits and underscores")
    if not hasattr(sys.modules.get(path.stem), "__plugin_file__"):
        taken = importlib.util.find_spec(path.stem)
        if taken is not None and taken.origin != str(path):
            raise UserError(f"{path.name} has the name of another module ({taken.origin}); rename the file")
    source = path.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    if expected and digest != expected:
        raise UserError("the file has changed meanwhile; run the command again")
    _search(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__plugin_file__"] = True
    sys.modules[path.stem] = module
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module, digest


def _search(folder: Path) -> None:
    # Last, so that a file of the user's cannot stand in for an installed package.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
