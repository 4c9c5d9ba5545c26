"""Styles as a NumPy file: what one command saves, another draws."""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat.files import read_bounded, whole_file
from stylenat.npz import array_of

BYTES = 2**31


def save_styles(path: Path, styles: Tensor) -> None:
    """float32 [count, style_dim] or [count, num_styles, style_dim]. Raises UserError where it cannot be written."""
    import numpy as np

    try:
        with whole_file(path) as file:
            np.save(file, styles.detach().float().cpu().numpy(), allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def read_styles(path: Path, generator: nn.Module) -> Tensor:
    """Styles [count, style_dim] or [count, num_styles, style_dim] for this generator.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        data = read_bounded(path, BYTES)
        held = array_of(io.BytesIO(data), len(data), path.name)
    except Exception as error:  # NumPy's reader raises almost anything on damaged bytes.
        lines = (getattr(error, "strerror", None) or str(error)).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise UserError(f"{path} is not a readable NPY file of styles: {reason}") from error
    if not held.is_floating_point():
        raise UserError(f"{path} does not hold an array of floating-point numbers")
    length = generator.mapping(
        torch.zeros(1, generator.latent_dim, device=next(generator.parameters()).device),
        *_zero_labels(generator),
    ).shape[1]
    wanted = (length,), (generator.num_styles, length)
    if held.ndim < 2 or not len(held) or held.shape[1:] not in wanted:
        raise UserError(
            f"{path} has the shape {list(held.shape)}; the generator takes [count, {length}] or "
            f"[count, {generator.num_styles}, {length}]"
        )
    styles = held.float()
    if not styles.isfinite().all():
        raise UserError(f"{path} holds numbers that are not finite")
    return styles


def _zero_labels(generator: nn.Module) -> tuple[Tensor, ...]:
    classes = getattr(generator, "num_classes", 0)
    return (torch.zeros(1, classes, device=next(generator.parameters()).device),) if classes else ()
