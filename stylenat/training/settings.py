"""Everything that the gin selector ``train`` can be given: the experiment as data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from registry import UserError
from stylenat.interfaces import Augmentation, Dataset, Loss, Metric, Regularizer, Tracker


@dataclass(kw_only=True)
class Training:
    """Selector ``train``.

    Args:
        generator, discriminator: classes, such as ``@generator.style``.
        loss, regularizers, augmentation, dataset, metrics, trackers: instances, such as ``@loss.hinge()``.
        iterations: discriminator and generator steps; batch_size: images an iteration, over all processes.
        seed: of every random stream.
        generator_learning_rate, discriminator_learning_rate: Adam's (two-time-scale); betas: Adam's.
        decay_start: iteration from which both rates fall linearly to 0; None for never.
        discriminator_clip: bound on the discriminator's gradient norm in its main step; None for none.
        ema_half_life: images after which a weight's share in the average halves.
        ema_rampup: the half-life is at most this share of the images seen; None for no such bound.
        share_fakes: the generator's step reuses the discriminator's fakes instead of drawing new ones: one
            generator pass less an iteration.
        horizontal_flips: of real images, with probability one half.
        workers: processes that decode images; threads: of PyTorch in this process, None for its own choice.
        checkpoint_every, sample_every, evaluate_every: iterations; all three happen at the end as well.
        keep_checkpoints: how many of the newest stay.
        sample_count: images in a sample grid; truncation_psi: of grids and metrics.
        evaluation_samples: generated images an evaluation.
        device: ``auto``, ``cpu`` or ``cuda``.
        initial_weights: folder of imported weights, run or checkpoint that a NEW run's networks start from
            (fine-tuning); a run that goes on takes its own checkpoint. None for a run from scratch.
        frozen_discriminator_layers: layers of the discriminator, counted from the image, that are not trained
            (FreezeD, arXiv 2002.10964).
    """

    generator: Callable[..., nn.Module]
    discriminator: Callable[..., nn.Module]
    loss: Loss
    augmentation: Augmentation
    dataset: Dataset
    iterations: int
    batch_size: int
    regularizers: Sequence[Regularizer] = ()
    metrics: Sequence[Metric] = ()
    trackers: Sequence[Tracker] = ()
    seed: int = 0
    generator_learning_rate: float = 5e-5
    discriminator_learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.99)
    decay_start: int | None = None
    discriminator_clip: float | None = 5.0
    ema_half_life: float = 10_000
    ema_rampup: float | None = None
    share_fakes: bool = False
    horizontal_flips: bool = True
    workers: int = 0
    threads: int | None = None
    checkpoint_every: int = 10_000
    sample_every: int = 1_000
    evaluate_every: int = 10_000
    keep_checkpoints: int = 3
    sample_count: int = 64
    truncation_psi: float = 1.0
    evaluation_samples: int = 50_000
    device: str = "auto"
    initial_weights: str | None = None
    frozen_discriminator_layers: int = 0

    def __post_init__(self) -> None:
        positive = (
            "iterations",
            "batch_size",
            "checkpoint_every",
            "sample_every",
            "evaluate_every",
            "keep_checkpoints",
        )
        for name in (*positive, "sample_count"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} must be at least 1; got {getattr(self, name)}")
        if self.decay_start is not None and not 0 <= self.decay_start < self.iterations:
            raise UserError(
                f"train.decay_start must lie before train.iterations = {self.iterations}; got {self.decay_start}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError(f"train.device must be 'auto', 'cpu' or 'cuda'; got {self.device!r}")
