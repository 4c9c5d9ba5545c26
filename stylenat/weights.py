"""Weights without a run around them: checkpoints of other systems read safely, and folders of our own.

A weights folder holds ``config.gin``, ``manifest.json`` (as a checkpoint's) and any of ``generator``,
``discriminator`` and ``ema`` as safetensors.
"""

import hashlib
import json
import os
import pickle
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry import UserError
from registry.wording import printable, reason
from stylenat import checkpoint, persistent_pickle, ranks
from stylenat.classes import Classes, must_have_classes, read_classes
from stylenat.files import read_bounded, save_tensors, whole_folder
from stylenat.npz import variables_of
from stylenat.pixels import Name, must_be_of_space
from stylenat.untrusted import refusal, tensors_of, unpickled

NETWORKS = ("generator", "discriminator", "ema")
NAMES = {
    **{"g_ema": "ema", "g": "generator", "d": "discriminator"},
    **{"G_ema": "ema", "G": "generator", "D": "discriminator"},
    **{name: name for name in NETWORKS},
}
"""What checkpoints call the networks."""


WRAPPERS = ("module", "_orig_mod")
CONTAINERS = ("state_dicts", "state_dict", "model_state_dict", "params_ema", "params", "model")
"""Entries below which other systems keep their networks, or one network's tensors."""


class Inert:
    """Stands in for a class that a checkpoint names: takes whatever it is given and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


# What published checkpoints hold beside tensors. None of these names is imported: plain types are Python's own,
# everything else becomes an Inert object.
PLAIN = {"builtins.int": int, "builtins.float": float, "builtins.str": str, "builtins.bool": bool,
         "builtins.list": list, "builtins.dict": dict, "builtins.tuple": tuple}  # fmt: skip
SKIPPED = [
    "argparse.Namespace",
    "collections.defaultdict",
    "typing.Any",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.Metadata",
    "omegaconf.base.ContainerMetadata",
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "numpy.dtype",
]


@dataclass(frozen=True)
class Stored:
    """A checkpoint's networks.

    Attributes:
        states: by our name of the network; by the empty name where the file holds one network's tensors and no more.
        container: the entry that the networks lay under, such as ``state_dicts``; empty for none.
        skipped: entries that are no networks.
        pixel_space: of the networks' images; None where the file does not say.
        modules: for a pickle of networks, their modules' classes and plain arguments, by our name and by path.
    """

    states: dict[str, dict[str, Tensor]]
    container: str
    skipped: list[str]
    pixel_space: str | None = None
    modules: dict[str, dict[str, persistent_pickle.Module]] = field(default_factory=dict)


def read(path: Path) -> Stored:
    """Reads a checkpoint of any system, or a folder of ours. No code of the file's is ever run.

    Raises UserError when it cannot be read, holds more than tensors and plain values, or holds no network.
    """
    if path.is_dir():
        folder = weights_folder(path)
        names = [name for name in NETWORKS if (folder / f"{name}.safetensors").exists()]
        space = manifest_of(folder).get("pixel_space")
        return Stored({name: checkpoint.weights(folder, name) for name in names}, "", [], space)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    if persistent_pickle.is_plain_pickle(path):
        return _pickled(path)
    held: Any = loaded(path)
    container, skipped = "", []
    if isinstance(held, dict) and not any(name in NAMES for name in held):
        container = next((name for name in CONTAINERS if isinstance(held.get(name), dict)), "")
        if container:
            skipped += [str(name) for name in held if name != container]
            held = _by_network(held[container])
    if not isinstance(held, dict):
        raise UserError(f"{path} holds no networks but a {type(held).__name__}")
    states = {NAMES[name]: _state(value) for name, value in held.items() if name in NAMES and _state(value)}
    if not states and _state(held):
        return Stored({"": _state(held)}, container, skipped)
    if not states:
        some = ", ".join(map(str, list(held)[:5])) or "nothing"
        raise UserError(f"{path} has no weights under {', '.join(NAMES)} or {', '.join(CONTAINERS)}; it has {some}")
    space = held.get("pixel_space")
    others = [str(name) for name in held if name not in (*NAMES, "pixel_space")]
    return Stored(states, container, [*skipped, *others], space if isinstance(space, str) else None)


def _pickled(path: Path) -> Stored:
    """The networks of a pickle of NVIDIA's GAN code, or of its successors. Raises UserError as ``read`` does."""
    try:
        contents = persistent_pickle.read(path)
    except persistent_pickle.Refused as error:
        raise UserError(f"{path} is not read: {error}; save its networks' state_dict() with torch.save") from error
    except Exception as error:  # Damaged bytes may raise almost anything.
        raise UserError(f"{path} is damaged, or no pickle of networks ({reason(error)}); get the file again") from error
    known = {NAMES.get(name, name): network for name, network in contents.networks.items() if name in ("", *NAMES)}
    if not known:
        some = ", ".join(printable(name, 40) for name in [*contents.networks, *contents.others][:5])
        raise UserError(f"{path} has no network under {', '.join(NAMES)}; it has {some or 'nothing'}")
    others = [*contents.others, *(name for name in contents.networks if name not in ("", *NAMES))]
    states = {name: _state(network.tensors) for name, network in known.items()}
    return Stored(states, "", others, modules={name: network.modules for name, network in known.items()})


def loaded(path: Path) -> Any:
    """Tensors and plain values from a regular file; None in the place of anything else.

    Raises UserError when it cannot be read, or would run code.
    """
    if path.is_file() and not path.stat().st_size:
        raise UserError(f"{path} is empty; get the file again")
    try:
        if path.suffix == ".safetensors":
            return tensors_of(path)
        if path.suffix == ".npz":
            return variables_of(path, NAMES)
        allowed: list[Any] = [(Inert, name) for name in SKIPPED] + [(kind, name) for name, kind in PLAIN.items()]
        return unpickled(path, allowed, strict=False)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is not read: {refusal(error)}; save it again with tensors only") from error
    except Exception as error:  # The unpickler raises almost anything on damaged bytes.
        raise UserError(f"{path} is damaged, or no checkpoint ({reason(error)}); get the file again") from error


def _by_network(held: Mapping[str, Any]) -> Mapping[str, Any]:
    """Networks by name of one flat state, such as Lightning's, whose names begin with ``generator.`` or ``g_ema.``; a
    state of one network as it is."""
    parts: dict[str, dict[str, Any]] = {}
    for key, value in held.items():
        network, _, name = str(key).partition(".")
        parts.setdefault(network, {})[name] = value
    named = {name: part for name, part in parts.items() if name in NAMES and "" not in part}
    return named or held


def _state(value: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, without the names of wrappers; empty if it is none.

    The wrappers are DistributedDataParallel (``module``) and ``torch.compile`` (``_orig_mod``), in any order and at any
    depth.

    Raises:
        UserError: two names differ by wrappers alone.
    """
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for key, tensor in value.items():
        if isinstance(tensor, Tensor):
            name = ".".join(part for part in str(key).split(".") if part not in WRAPPERS)
            if name in found:
                raise UserError(f"two tensors are called {name!r}, once without the names of wrapped modules")
            found[name] = tensor
    return found


def weights_folder(path: Path, needed: checkpoint.Needed | None = None) -> Path:
    """The folder with the weights that RUN means: the newest checkpoint of a run, or the folder itself; verified.

    Args:
        needed: the files that will be read, see ``checkpoint.verify``; None for all.

    Raises UserError when there are none, or they are damaged.
    """
    folder: Path | None = path
    verified = False
    if not path.exists():
        raise UserError(f"{path} does not exist: give a run, one of its checkpoints or imported weights")
    if not (path / checkpoint.MANIFEST).exists():
        if (path / "checkpoints").is_symlink():
            raise UserError(f"{path / 'checkpoints'} is a link; give the run or the checkpoint that it leads to")
        checkpoints = path / "checkpoints"
        folder = checkpoint.newest_for_all(checkpoints, lambda line: print(printable(line), file=sys.stderr), needed)
        verified = ranks.rank() == 0
    if folder is None and (path / "checkpoints").is_dir():
        raise UserError(f"{path} has no undamaged checkpoint yet; train on with the command that made it")
    if folder is None:
        raise UserError(f"{path} is not a folder of weights: give a run, one of its checkpoints or imported weights")
    try:
        if not verified:
            checkpoint.verify(folder, needed)
    except checkpoint.Damaged as error:
        raise UserError(f"{error}; import it again or choose another checkpoint") from error
    return folder


def generator_files(average: str | None) -> checkpoint.Needed:
    """Those that ``generator_of`` reads, and the config of a folder of weights."""

    def needed(files: Collection[str]) -> Collection[str]:
        return {f"{_network({Path(file).stem for file in files}, average)}.safetensors", "config.gin"}

    return needed


def _network(names: Collection[str], average: str | None) -> str:
    """The network that ``average`` means, of a folder with these."""
    return average if average is not None else "ema" if "ema" in names else "generator"


def config_of(folder: Path) -> Path:
    """The gin file that says what networks the weights belong to. Raises UserError when it is not there.

    It lies in an imported folder itself, and two folders above a run's checkpoint; a link to a checkpoint may lead to
    the run.
    """
    for directory in (folder, folder.absolute().parents[1], folder.resolve().parents[1]):
        config = directory / "config.gin"
        if config.is_file():
            return config
    raise UserError(f"{folder} has no config.gin next to its weights")


def generator_of(folder: Path, build: Callable[[], nn.Module], average: str | None = None) -> tuple[nn.Module, str]:
    """The generator of a weights folder, ready to sample from.

    Args:
        average: which of its averages, ``generator`` for the weights without one; None for ``ema``, or ``generator``
            where there is no average.

    Returns:
        The network and its name in the folder.

    Raises:
        UserError: the folder has no such weights, weights of another network, or weights that are not finite.
    """
    names = sorted(path.stem for path in folder.glob("*.safetensors"))
    there = [name for name in names if name in ("ema", "generator") or name.startswith("ema-")]
    if not there:
        raise UserError(f"{folder} has no generator")
    name = _network(there, average)
    if name not in there:
        raise UserError(f"{folder} has no average {name!r}; it has {', '.join(there)}")
    with torch.random.fork_rng(devices=[]):
        generator = build()
    _load_into(generator, folder / f"{name}.safetensors", "the generator of its config.gin")
    return generator.eval().requires_grad_(False), name


def _load_into(network: nn.Module, file: Path, what: str) -> None:
    """Raises UserError where the file's tensors are of another network, or not finite."""
    state = checkpoint.weights(file.parent, file.stem)
    if unfit := _unfit(state, network):
        there, here = recorded_resolution(file.parent), getattr(network, "resolution", None)
        other = f"they are of resolution {there}, and this is {here}: " if there and here and there != here else ""
        raise UserError(f"{file} does not fit {what}: {other}{unfit}")
    check_finite(state, network, str(file))
    network.load_state_dict(state)


def _unfit(state: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """What tells the state's tensors from the network's, in a few words."""
    own = network.state_dict()
    shapes = [name for name in own if name in state and state[name].shape != own[name].shape]
    found = {"missing": set(own) - set(state), "too many": set(state) - set(own)}
    lines = [f"{len(names)} tensors are {what}, such as {min(names)}" for what, names in found.items() if names]
    if shapes:
        first = shapes[0]
        lines.append(f"{first} is {list(state[first].shape)}, the network's {list(own[first].shape)}")
    return "; ".join(lines) or None


def recorded_resolution(folder: Path) -> int | None:
    """What the config beside the weights says of the generator's side, for a message; None where it does not."""
    try:
        text = read_bounded(config_of(folder), 2**20).decode(errors="replace")
    except (UserError, OSError, ValueError):
        return None
    found = re.search(r"^generator\.\w+\.resolution = (\d{1,5})$", text, re.MULTILINE)
    return int(found[1]) if found else None


def check_resolution(path: Path, network: nn.Module) -> None:
    """Raises UserError where a folder of ours says that its networks are of another resolution."""
    there = recorded_resolution(weights_folder(path)) if path.is_dir() else None
    here = getattr(network, "resolution", None)
    if there and here and there != here:
        raise UserError(f"{path} has resolution {there}, and the experiment's network resolution {here}; bind the same")


def check_finite(state: Mapping[str, Tensor], network: nn.Module, where: str) -> None:
    """Raises UserError naming the first tensor with NaN, or with an infinite value where it is a parameter.

    A buffer may hold infinities, such as those of an attention mask.
    """
    parameters = {name for name, _ in network.named_parameters()}
    for name, tensor in state.items():
        if tensor.sum().isfinite():  # One pass, and NaN and infinities reach it. So may an overflow, which is no fault.
            continue
        bad = ~tensor.isfinite() if name in parameters else tensor.isnan()
        if count := int(bad.sum()):
            raise UserError(
                f"{where}: {count} of {tensor.numel()} values of {name} are not finite; the training that wrote them "
                "had diverged: use an earlier checkpoint"
            )


def classes_of_weights(folder: Path, generator: nn.Module) -> Classes | None:
    """The classes of a weights folder's training, for its generator; None for an unconditional one.

    Raises:
        UserError: the generator has classes, and the folder does not say which, or says others.
    """
    number = getattr(generator, "num_classes", 0)
    if not number:
        return None
    classes = read_classes(manifest_of(folder).get("classes"), str(folder))
    if classes is None:
        return Classes((1,) * number, tuple(map(str, range(number))))
    must_have_classes(number, classes, f"the training that wrote {folder}")
    return classes


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a weights folder that was verified."""
    return json.loads(read_bounded(folder / checkpoint.MANIFEST, checkpoint.MANIFEST_BYTES))


def write(
    directory: Path,
    states: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    manifest: Mapping[str, Any],
) -> None:
    """Writes a weights folder, completely or not at all.

    Args:
        states: tensors by network; texts: of further files by name, such as ``config.gin``.

    Raises UserError when the folder exists and is not empty, or cannot be written.
    """
    if os.path.lexists(directory) and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is not an empty folder; choose another --out")
    try:
        with whole_folder(directory) as folder:
            for name, state in states.items():
                tensors = {key: tensor.contiguous() for key, tensor in state.items()}
                save_tensors(tensors, folder / f"{name}.safetensors")
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
            sums = {path.name: checksum(path) for path in sorted(folder.iterdir())}
            whole = {"format_version": checkpoint.FORMAT_VERSION, **manifest, "sha256": sums}
            (folder / checkpoint.MANIFEST).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror}") from error


def checksum(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def initialise(networks: Mapping[str, nn.Module], path: Path, pixel_space: Name = "imagenet") -> dict[str, Any]:
    """Starts a run's networks from a folder of weights: whichever of them are there.

    The generator and its average stand in for each other where one is missing; the discriminator keeps its own
    initialisation where there is none.

    Returns:
        What the run should record: the folder and its networks with their checksums.

    Raises:
        UserError: no weights there, or weights of other networks.
    """
    folder = weights_folder(path)
    must_be_of_space(manifest_of(folder).get("pixel_space"), pixel_space, str(folder))
    there = {name: folder / f"{name}.safetensors" for name in NETWORKS}
    there = {name: file for name, file in there.items() if file.exists()}
    for name, network in networks.items():
        # Averages of other widths than that of ``ema`` start where it does.
        stand_in = "ema" if name == "generator" or name.startswith("ema-") else "generator" if name == "ema" else None
        source = name if name in there else stand_in
        if source not in there:
            continue
        _load_into(network, there[source], f"the {name} of this experiment (train.initial_weights)")
    return {"path": str(folder), "sha256": {name: checksum(file) for name, file in there.items()}}
