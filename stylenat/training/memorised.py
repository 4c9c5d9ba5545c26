"""At the end of a training on few images: those that are nearest to samples, which may be copies of them."""

from pathlib import Path

import torch

from stylenat.evaluation import nearest as spaces
from stylenat.grids import labelled_rows, save_png
from stylenat.sampling import NotFinite, Sampler, in_evaluation
from stylenat.training.settings import Training

SMALL = 1000
"""Images of a data set, at most."""
SAMPLES, ROWS = 64, 8


def nearest_training_images(settings: Training, sampler: Sampler, path: Path) -> str | None:
    """Writes the samples that are nearest to a training image in pixels, each with that image, as a picture.

    Args:
        path: of the picture.

    Returns:
        A sentence on all ``SAMPLES``; None for a data set that is not small, and for images that are not finite.
    """
    if not 2 <= len(settings.dataset) <= SMALL:
        return None
    items = [settings.dataset[i] for i in range(len(settings.dataset))]
    real = torch.stack([item[0] if isinstance(item, tuple) else item for item in items])
    try:
        with in_evaluation(sampler.generator):
            samples = sampler.at(range(SAMPLES)).cpu()
    except NotFinite:
        return None
    found = spaces.nearest(samples, real, spaces.pixels, lambda done: None)
    order = found.distance.argsort()[:ROWS].tolist()
    rows = {"samples": samples[order], "nearest": real[found.index[order]]}
    save_png(path, labelled_rows(rows, [str(i) for i in order]))
    share = f"{found.closer:.0%} of {SAMPLES} samples are nearer to a training image"
    return f"{share} than 95 % of training images to another (5 % expected): {path}"
