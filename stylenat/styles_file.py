"""Styles as a NumPy file: what one command saves, another draws."""

from pathlib import Path

import torch
from torch import Tensor, nn

from registry import UserError
from stylenat.files import read_bounded, whole_file

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
    import io

    import numpy as np

    try:
        held = np.load(io.BytesIO(read_bounded(path, BYTES)), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path} is not a readable NPY file of styles: {reason}") from error
    if not isinstance(held, np.ndarray) or held.dtype.kind != "f":
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
    with np.errstate(over="ignore"):  # Beyond float32 they are infinite, which is refused below.
        styles = torch.from_numpy(held.astype("float32"))
    if not styles.isfinite().all():
        raise UserError(f"{path} holds numbers that are not finite")
    return styles


def _zero_labels(generator: nn.Module) -> tuple[Tensor, ...]:
    classes = getattr(generator, "num_classes", 0)
    return (torch.zeros(1, classes, device=next(generator.parameters()).device),) if classes else ()
