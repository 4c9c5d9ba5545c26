"""Extractors' weights as they were published: where a file comes from, what its checksum is, how it is read.

No file is unpickled beyond tensors, and nothing is downloaded unless it is asked for.
"""

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, hub

from registry import UserError
from stylenat import weights
from stylenat.evaluation.evaluate import MissingWeights
from stylenat.weights import checksum


@dataclass(frozen=True)
class Published:
    """One published file of weights.

    Attributes:
        what: whose weights they are, in words; selector: the gin parameter that names the file.
        mark: a tensor that such a file holds and the other extractors' do not.
    """

    what: str
    selector: str
    url: str
    sha256: str
    mark: str

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def needs_torch_fidelity(what: str) -> None:
    """Raises MissingWeights where torch-fidelity is not installed; ``what`` uses it. Imports nothing."""
    if find_spec("torch_fidelity") is None:
        raise MissingWeights(f"{what} needs torch-fidelity, which is not installed: pip install torch-fidelity")


def found(published: Published, given: str | None, download: bool) -> Path:
    """The file: the one given, else in PyTorch's cache, else fetched into it where that is allowed.

    Raises:
        MissingWeights: there is none; says which file is expected, where to get it, and its checksum.
        UserError: the one given is not there, or cannot be fetched.
    """
    if given is not None:
        if not Path(given).is_file():
            raise UserError(f"there is no file {given}; {_how(published)}")
        return Path(given)
    cached = Path(hub.get_dir()) / "checkpoints" / published.file
    if not cached.exists():
        if not download:
            raise MissingWeights(f"{published.what} needs weights that are not here; {_how(published)}")
        print(f"fetching {published.url}", file=sys.stderr)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            hub.download_url_to_file(published.url, str(cached), hash_prefix=published.sha256)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"cannot fetch {published.url} ({reason}); {_how(published)}") from error
    return cached


def _how(published: Published) -> str:
    return (
        f"fetch {published.url} (sha256 {published.sha256}) and bind {published.selector} = 'FILE', or give it to "
        "tools/evaluate.py or tools/memorisation.py with --extractor-weights FILE"
    )


def state_of(path: Path, published: Published) -> Mapping[str, Tensor]:
    """The tensors of a weights file, by name. Raises UserError when it is damaged or another network's."""
    state = tensors_in(path)
    if published.mark not in state:
        raise UserError(f"{path} does not hold {published.what}'s weights: it has no {published.mark}")
    return state


def tensors_in(path: Path) -> Mapping[str, Tensor]:
    """Raises UserError when it is not a readable file of tensors alone."""
    held = weights.loaded(path)
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path} does not hold a network's tensors by their names")
    return held


@functools.lru_cache
def _checksum(path: Path, size: int, modified: int) -> str:
    return checksum(path)


def checksum_of(path: Path) -> str:
    """The file's SHA-256, computed once while the file stays the same."""
    status = path.stat()
    return _checksum(path, status.st_size, status.st_mtime_ns)


@contextmanager
def in_place_of(owner: Any, **names: Any) -> Iterator[None]:
    """The owner's functions replaced for a moment: torch-fidelity's networks fetch their weights when they are built,
    and are handed the ones that are here instead."""
    before = {name: getattr(owner, name) for name in names}
    try:
        for name, value in names.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def fitted(build: Any, path: Path, what: str) -> Any:
    """What ``build()`` gives, drawn from no generator. Raises UserError when the file does not fit its network."""
    try:
        with torch.random.fork_rng(devices=[]):
            return build()
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise UserError(f"{path} does not fit {what}: {lines[1] if len(lines) > 1 else lines[0]}") from error
