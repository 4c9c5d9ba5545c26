"""A toy framework with a core, a plugin and real distribution metadata, written afresh for each test."""

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from registry import Experiment, Registry, load_experiment, load_plugins

TOY_CORE = '''
from collections.abc import Callable
from typing import Protocol

from registry import UserError


class Loss(Protocol):
    name: str

    def discriminator(self, real, fake): ...


def train(
    run,
    *,
    iterations: int,
    generator: Callable[..., object] | None = None,
    loss: Loss | None = None,
    name: str | None = None,
    verbose: bool = False,
    rates: tuple[float, float] = (0.0, 0.99),
    learning_rate: float = 1e-3,
    metrics: list[object] = [],
    things: list[object] = [],
):
    """Trains.

    At length.
    """
    if iterations < 0:
        raise UserError("iterations must not be negative")
    return run, iterations, generator() if generator else None, loss, rates
'''

TOY_PLUGIN = '''
from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from registry import hookimpl

if TYPE_CHECKING:
    from somewhere import Unknowable


class Partition(Protocol):
    def __call__(self, site): ...


class Split:
    """Half and half.

    More about it.
    """

    def __init__(self, kernel_size: int = 7):
        self.kernel_size = kernel_size

    def __call__(self, site):
        return self.kernel_size


class Table:
    def __init__(self, dilations: dict[int, list[int]], site: Unknowable = None):
        self.dilations = dilations

    def __call__(self, site):
        return self.dilations


class Mix:
    def __init__(self, parts: list[Partition] = (), weight: float = 0.5, best: Partition = None):
        self.parts = parts

    def __call__(self, site):
        return self.parts


class Hydra:
    def __init__(
        self, *, site: int, style_dim: int, partition: Partition, mode: Literal["fast", "exact"] = "fast"
    ):
        self.partition, self.mode = partition, mode


class Style:
    def __init__(self, resolution: int = 256, block: type = None, gain: float = 1.0, inner: type = None):
        self.resolution, self.gain = resolution, gain
        self.block = block(site=1, style_dim=2) if block else None


class Hinge:
    name = "hinge"

    def discriminator(self, real, fake):
        return 0


def anything(**options: int):
    return options


@hookimpl
def stylenat_register(register):
    register("partition", "split", Split)
    register("partition", "table", Table)
    register("partition", "mix", "toy_plugin:Mix")
    register("block", "hydra", Hydra)
    register("generator", "style", Style)
    register("loss", "hinge", Hinge)
    register("metric", "anything", anything)
    register("metric", "broken", "no_such_module:Metric")
'''


class Workshop:
    """Writes modules, distributions and gin files into a folder that is also the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, path: str, text: str) -> Path:
        """A file, with its parents; relative to the folder."""
        full = self.folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_text(text, encoding="utf-8")
        return full

    def distribution(self, name: str, version: str, module: str, source: str | None = None) -> None:
        """What `pip install` leaves behind of a plugin: its metadata and, given a source, its module."""
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        self.write(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        self.write(f"{info}/entry_points.txt", f"[stylenat]\n{name} = {module}\n")
        if source is not None:
            self.write(f"{module.partition(':')[0]}.py", source)

    def entry_points(self) -> list[metadata.EntryPoint]:
        found = metadata.distributions(path=[str(self.folder)])
        return [point for distribution in found for point in distribution.entry_points.select(group="stylenat")]

    def plugins(self, *extra: str) -> Registry:
        return load_plugins(extra, core={"train": "toy_core:train"}, entry_points=self.entry_points())

    def experiment(self, text: str, *bindings: str, registry: Registry | None = None) -> Experiment:
        """Loads ``test.gin`` with the given text."""
        self.write("test.gin", text)
        search_path = [self.folder / "shipped"]
        return load_experiment(registry or self.plugins(), ["test.gin"], bindings, search_path=search_path)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    made = Workshop(tmp_path)
    made.write("toy_core.py", TOY_CORE)
    made.distribution("toy", "1.2", "toy_plugin", TOY_PLUGIN)
    yield made
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def mistake(workshop: Workshop) -> Callable[..., str]:
    """The one line that a gin text or bindings are refused with."""
    from registry import UserError

    def refuse(text: str, *bindings: str) -> str:
        with pytest.raises(UserError) as caught:
            workshop.experiment(text, *bindings)
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refuse
