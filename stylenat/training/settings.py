"""Everything that the gin selector ``train`` can be given: the experiment as data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import nn

from registry import Bounds, Count, CountOrZero, Finite, NotNegative, Positive, UserError
from stylenat.interfaces import (
    Augmentation,
    Average,
    Dataset,
    Loss,
    Metric,
    Optimizer,
    Recipe,
    Regularizer,
    Schedule,
    Tracker,
)
from stylenat.pixels import Name
from stylenat.training.average import Exponential
from stylenat.training.calls import check_calls
from stylenat.training.optimizers import Adam
from stylenat.training.schedules import check_schedules
from stylenat.training.step import Alternating, steps_of


@dataclass(kw_only=True)
class Training:
    """Selector ``train``.

    Args:
        generator, discriminator: classes, such as ``@generator.style``.
        loss, regularizers, augmentation, dataset, metrics, trackers: instances, such as ``@loss.hinge()``.
        recipe: what an iteration steps, in which order; None for ``@recipe.alternating()``.
        generator_optimizer, discriminator_optimizer: None for ``@optimizer.adam()``.
        average: of the generator's weights, sampled and measured; None for ``@average.exponential()``.
        iterations: discriminator and generator steps; batch_size: images an iteration, over all processes.
        accumulate: microbatches into which each process splits its images to save memory; the result is the same.
        seed: of every random stream.
        generator_learning_rate, discriminator_learning_rate: numbers or schedules (two-time-scale).
        learning_rate_schedule: a factor of both rates, such as ``@schedule.linear_decay()``; None for 1.
        discriminator_clip: bound on the discriminator's gradient norm in its main step; None for none.
        horizontal_flips: of real images, with probability one half.
        workers: processes that decode images; threads: of PyTorch in this process, None for its own choice.
        checkpoint_every, sample_every, evaluate_every: iterations; all three happen at the end as well.
        keep_checkpoints: how many of the newest stay; keep_every: so do those at its multiples; keep_best: so does
            that of the best of these values among the metrics', for which one is written. None for neither.
        sample_count: images in a sample grid; truncation_psi: of grids and metrics.
        evaluation_samples: generated images an evaluation.
        max_skipped: iterations in a row with a skipped step (a loss or gradient that is not finite) after which the
            run goes back to its last checkpoint with other noise; max_roll_backs: how often, before it gives up.
        device: ``auto`` (the GPU of CUDA, else the CPU), ``cpu``, ``cuda`` or ``mps`` (float32, one process).
        precision: of the networks' passes: ``float32``, ``bf16`` or ``fp16`` (with loss scaling). Weights, optimisers,
            average, losses, statistics and gradient penalties are in float32 always.
        compile: backend of ``torch.compile`` for the networks: ``inductor`` for speed, ``aot_eager`` to find faults;
            None for none. Gradient penalties run uncompiled.
        cuda_graphs: with ``inductor``, replay what was compiled as CUDA graphs.
        activation_checkpointing: keep the inputs of the networks' stages alone and compute the rest again: less memory,
            about a third more time. With ``compile``, not of stages under spectral norm.
        channels_last: images and features of the discriminator in that memory format.
        deterministic: on CUDA, equal inputs give equal bits, at some cost in time; what cannot is refused.
        pixel_space: of the images inside the networks: ``imagenet``, normalised by its statistics (StyleNAT,
            StyleSwin), or ``symmetric``, [-1, 1]. R1's gamma depends on it.
        tf32: whether CUDA may round the factors of float32 products to TF32.
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
    iterations: Count
    batch_size: Count
    regularizers: Sequence[Regularizer] = ()
    metrics: Sequence[Metric] = ()
    trackers: Sequence[Tracker] = ()
    accumulate: Count = 1
    seed: int = 0
    recipe: Recipe | None = None
    generator_optimizer: Optimizer | None = None
    discriminator_optimizer: Optimizer | None = None
    average: Average | None = None
    generator_learning_rate: NotNegative | Schedule = 5e-5
    discriminator_learning_rate: NotNegative | Schedule = 2e-4
    learning_rate_schedule: Schedule | None = None
    discriminator_clip: Positive | None = 5.0
    horizontal_flips: bool = True
    workers: CountOrZero = 0
    threads: Count | None = None
    checkpoint_every: Count = 10_000
    sample_every: Count = 1_000
    evaluate_every: Count = 10_000
    keep_checkpoints: Count = 3
    keep_every: Count | None = None
    keep_best: str | None = None
    sample_count: Count = 64
    truncation_psi: Finite = 1.0
    evaluation_samples: Annotated[int, Bounds(2)] = 50_000
    max_skipped: Count = 20
    max_roll_backs: CountOrZero = 3
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    compile: Literal["inductor", "aot_eager"] | None = None
    cuda_graphs: bool = False
    activation_checkpointing: bool = False
    channels_last: bool = False
    deterministic: bool = False
    pixel_space: Name = "imagenet"
    tf32: bool = False
    initial_weights: str | None = None
    frozen_discriminator_layers: int = 0

    def __post_init__(self) -> None:
        for name in ("metrics", "regularizers"):
            names = [part.name for part in getattr(self, name)]
            if len(set(names)) < len(names):
                raise UserError(f"train.{name} has two of one name: {', '.join(names)}; keep one of each")
        if self.device == "mps" and self.precision != "float32":
            raise UserError(
                f"train.precision = {self.precision!r}, but the device 'mps' takes 'float32' only; bind that"
            )
        if self.cuda_graphs and self.compile != "inductor":
            raise UserError(
                "train.cuda_graphs needs train.compile = 'inductor', which makes the graphs; bind both or neither"
            )
        if self.cuda_graphs and self.device in ("cpu", "mps"):
            raise UserError(
                f"train.cuda_graphs is for CUDA, and train.device is {self.device!r}; bind train.cuda_graphs = False"
            )
        if self.keep_best is not None and not self.metrics:
            raise UserError(f"train.keep_best = {self.keep_best!r}, but train.metrics has none; bind it there")
        check_calls(self.loss, tuple(self.regularizers), self.augmentation)
        self.recipe = self.recipe or Alternating()
        self.generator_optimizer = self.generator_optimizer or Adam()
        self.discriminator_optimizer = self.discriminator_optimizer or Adam()
        self.average = self.average or Exponential()
        self.steps = steps_of(self.recipe, self.regularizers)
        check_schedules(self)
