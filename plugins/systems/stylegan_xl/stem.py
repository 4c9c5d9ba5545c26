"""From the run of one stage to the beginning of the next: which weights are copied, and whether they fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plugins.systems.stylegan_xl.stages import REPLACED
from registry import UserError
from registry.gintext import read_text
from stylenat import checkpoint, weights
from stylenat.files import read_bounded
from stylenat.pixels import must_be_of_space

SELECTOR = "generator.stylegan_xl"
CONFIG_BYTES = 2**20


def take(generator: nn.Module, stem: str | None) -> dict[str, object]:
    """Copies the mapping network, the Fourier input, the kept layers and the mean styles of a stage into the next.

    Args:
        generator: of the next stage; stem: the run of the stage before.

    Returns:
        What is recorded of it: the folder and the file's checksum.

    Raises:
        UserError: there is none, or it is of another resolution, width or system.
    """
    before = generator.plan.sides[-2]
    if stem is None:
        raise UserError(
            f"{SELECTOR} at {generator.resolution}x{generator.resolution} continues a stage at {before}x{before}: bind "
            f"{SELECTOR}.stem to its run, such as 'runs/NAME', or train.initial_weights to weights of all layers"
        )
    try:
        folder = weights.weights_folder(Path(stem))
        config = weights.config_of(folder)
    except UserError as error:
        raise UserError(
            f"{SELECTOR}.stem = {stem!r} cannot be used: {error}; train the stage at {before}x{before} first, or bind "
            "its run"
        ) from error
    must_be_of_space(weights.manifest_of(folder).get("pixel_space"), "symmetric", str(folder))
    _check_config(folder, config, before, generator.shared)
    file = next((path for name in ("ema", "generator") if (path := folder / f"{name}.safetensors").is_file()), None)
    if file is None:
        raise UserError(f"{SELECTOR}.stem: {folder} has no generator")
    state = checkpoint.weights(folder, file.stem)
    own, kept = generator.state_dict(), generator.plan.kept
    wanted = {name: tensor for name, tensor in own.items() if _is_kept(name, kept)}
    count = len({name.split(".")[1] for name in state if name.startswith("layers.")})
    if count != kept + REPLACED:
        raise UserError(
            f"{SELECTOR}.stem: {folder} has {count} layers with ToRGB, and this stage continues {kept + REPLACED}; "
            "bind the same stem_layers, head_layers and growth"
        )
    for name, tensor in wanted.items():
        if name not in state or state[name].shape != tensor.shape:
            there = list(state[name].shape) if name in state else "missing"
            raise UserError(
                f"{SELECTOR}.stem: {folder} does not fit this stage: {name} is {there} there and {list(tensor.shape)} "
                "here; bind the same widths and classes"
            )
    weights.check_finite(state, generator, str(file))
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])
    return {"stem": str(folder), "sha256": weights.checksum(file)}


def _is_kept(name: str, kept: int) -> bool:
    part, _, rest = name.partition(".")
    return part != "layers" or int(rest.partition(".")[0]) < kept


def _check_config(folder: Path, config: Path, resolution: int, shared: Mapping[str, object]) -> None:
    """Raises UserError unless the folder's config is of this generator, at this resolution, with these options."""
    try:
        statements = read_text(read_bounded(config, CONFIG_BYTES).decode(), str(config))
    except (OSError, ValueError) as error:
        raise UserError(f"{config} cannot be read ({error})") from error
    values: dict[str, Any] = {s.parameter: s.value for s in statements if s.selector == SELECTOR and not s.scope}
    if "resolution" not in values:
        raise UserError(f"{SELECTOR}.stem: {folder} is not of {SELECTOR}, as its {config.name} says")
    if values["resolution"] != resolution:
        raise UserError(
            f"{SELECTOR}.stem: {folder} is of resolution {values['resolution']}, and this stage continues one of "
            f"{resolution}; bind the run of that stage, or another growth"
        )
    for name, value in shared.items():
        if values.get(name, value) != value:
            raise UserError(
                f"{SELECTOR}.stem: {folder} has {name} = {values[name]!r}, and this stage {value!r}, with which the "
                f"kept layers compute something else; bind {SELECTOR}.{name} = {values[name]!r}"
            )
