"""Finds plugins and calls the ``stylenat_register`` of each by itself: a broken one takes no other along."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from registry import hooks
from registry.errors import UserError
from registry.names import Entry, Origin, Registry, Suspect

GROUP = "stylenat"


def load_plugins(
    extra: Sequence[str] = (),
    *,
    core: Mapping[str, str] | None = None,
    entry_points: Iterable[metadata.EntryPoint] | None = None,
) -> Registry:
    """Loads every installed plugin, and those named on the command line.

    Args:
        extra: modules or .py files (``--plugin``); modules are also searched in the current folder.
        core: the core's own configurables by name, such as ``{"train": "stylenat.training.train:train"}``.
        entry_points: where plugins come from; the installed ones of the group ``stylenat`` by default.

    Raises:
        UserError: no plugin at all is installed, or one of ``extra`` does not load. An installed plugin that
            does not load becomes a suspect, named only when something is missing.
    """
    registry = Registry(pluggy.PluginManager(hooks.PROJECT))
    registry.manager.add_hookspecs(hooks)
    # gin's own way to share one instance between several consumers.
    registry.entries["gin.singleton"] = Entry("gin", "singleton", "gin.config:singleton", Origin("gin-config"))
    for name, target in (core or {}).items():
        registry.add_core(name, target)

    found = list(metadata.entry_points(group=GROUP) if entry_points is None else entry_points)
    if not found:
        raise UserError("no plugin is installed, not even the bundled ones; run `pip install -e .` in the repository")
    for entry_point in sorted(found, key=lambda point: (_origin(point).distribution, point.name)):
        try:
            _take_in(registry, entry_point.load(), _origin(entry_point))
        except Exception:  # Whatever a stranger's module raises: kept with its traceback, for when a name is missing.
            registry.suspects.append(Suspect(entry_point.name, _origin(entry_point), traceback.format_exc()))

    for name in extra:
        try:
            _take_in(registry, _import(name), Origin(f"--plugin {name}"))
        except UserError as error:
            raise UserError(f"--plugin {name}: {error}") from error
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            raise UserError(f"--plugin {name} does not load: {type(error).__name__}: {error}") from error
    return registry


def _origin(entry_point: metadata.EntryPoint) -> Origin:
    distribution = entry_point.dist
    if distribution is None:
        return Origin(entry_point.value.partition(":")[0])
    return Origin(distribution.name, distribution.version)


def _take_in(registry: Registry, plugin: object, origin: Origin) -> None:
    """Registers a plugin's hooks and names; all of them or none."""
    manager = registry.manager
    if manager.is_registered(plugin):  # Installed and named with --plugin too, or offered by two entry points.
        return
    before = dict(registry.entries)

    def register(kind: str, name: str, target: Callable[..., Any] | str) -> None:
        registry.add(kind, name, target, origin)

    try:
        manager.register(plugin)
        manager.check_pending()  # A misspelt hook would never be called.
        others = [other for other in manager.get_plugins() if other is not plugin]
        manager.subset_hook_caller("stylenat_register", others)(register=register)
    except BaseException:
        if manager.is_registered(plugin):
            manager.unregister(plugin)
        registry.entries = before
        raise


def _import(name: str) -> ModuleType:
    importlib.invalidate_caches()
    if name.endswith(".py"):
        return _import_file(Path(name).absolute())
    _search(Path.cwd())
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Runs a .py file, anew each time, as the module of its stem, which lazy targets and pickles can name."""
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if not path.stem.isidentifier():
        raise UserError(f"{path.name} cannot be imported; rename it to letters, digits and underscores")
    if not hasattr(sys.modules.get(path.stem), "__plugin_file__"):
        taken = importlib.util.find_spec(path.stem)
        if taken is not None and taken.origin != str(path):
            raise UserError(f"{path.name} has the name of another module ({taken.origin}); rename the file")
    _search(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__plugin_file__"] = True
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _search(folder: Path) -> None:
    # Last, so that a file of the user's cannot stand in for an installed package.
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
