"""What the training framework asks of each kind that a gin file can swap.

These are Protocols: an implementation needs the attributes and methods, not the base class. Nothing here
computes anything. Images inside the networks are float [batch, 3, height, width] in ImageNet-normalised space
(``stylenat.pixels``); images outside are uint8 in the same layout.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from registry import AttentionSite, HeadGroup
from stylenat.draws import Shard


class Partition(Protocol):
    """Kind ``partition``: splits the heads of one attention layer into groups (StyleNAT, section 3.2)."""

    def __call__(self, site: AttentionSite) -> list[HeadGroup]:
        """Groups in head order; their heads must add up to ``site.num_heads``."""


class AttentionBackend(Protocol):
    """Kind ``attention``: one way to compute ``stylenat.attention.neighborhood_attention``."""

    name: str

    def unsupported(self, q: Tensor, kernel_size: int, dilation: int, bias: Tensor | None) -> str | None:
        """Why this machine or these arguments cannot use the backend; None when they can."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        kernel_size: int,
        dilation: int,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        """q, k, v, result: [batch, height, width, heads, head_dim]; bias: [heads, 2k-1, 2k-1].

        A bias of -inf masks a key. A query whose keys are all masked gives 0, and its gradients are 0.
        """


class Block(Protocol):
    """Kind ``block`` (bound as a class): one generator block, an ``nn.Module``.

    Constructed as ``block(site=AttentionSite, style_dim=int)``; all other parameters come from gin.
    """

    def __init__(self, *, site: AttentionSite, style_dim: int, **options: Any) -> None: ...

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]. Returns x's shape."""


class DescribedBlock(Protocol):
    """What a block may also offer, for the table of ``--dry-run``, which says nothing of a block without it."""

    def describe(self) -> str:
        """One line: what its layers see, such as ``4 x k7 d2 (66%)``. Called on the meta device, without weights."""


class Generator(Protocol):
    """Kind ``generator`` (bound as a class): an ``nn.Module`` from latents to images.

    It may also have ``num_classes`` (0 where it is not said), above which it is given labels, one-hot float
    [batch, num_classes]; and ``draws``, names to ``stylenat.draws.Draw``: tensors [batch, *shape] that it is given by
    these names and does not draw itself.
    """

    resolution: int
    latent_dim: int

    def __call__(self, latents: Tensor, labels: Tensor | None = None, **draws: Tensor) -> Tensor:
        """[batch, latent_dim] to images [batch, 3, resolution, resolution]."""


class StyleBased(Generator, Protocol):
    """A generator in two halves. Only such a one is truncated, mixed and inverted, and has path lengths."""

    num_styles: int

    def mapping(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, latent_dim] to styles w [batch, style_dim]."""

    def synthesis(self, styles: Tensor, **draws: Tensor) -> Tensor:
        """[batch, num_styles, style_dim] (w+) to images [batch, 3, resolution, resolution]."""


class Discriminator(Protocol):
    """Kind ``discriminator`` (bound as a class): an ``nn.Module`` from images to logits.

    It may also have ``num_classes``, as a generator; and ``features(images)``.
    """

    resolution: int

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, 3, resolution, resolution] to logits [batch, any number]. Raises UserError for a batch it cannot
        take."""


class Loss(Protocol):
    """Kind ``loss``: an adversarial loss, two functions of logits [batch, any number], each a mean.

    Attributes:
        paired: whether ``generator`` looks at ``real_logits``, as relativistic losses do; they are computed only then.
            False where it is not said.
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss, a scalar."""

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """The generator's loss, a scalar. ``real_logits`` is None unless the loss is ``paired``."""


@dataclass(frozen=True)
class Time:
    """When an iteration happens.

    Attributes:
        iteration: its number, from 0; iterations: of the whole run.
        images: real images seen before it, over all processes; batch_size: images an iteration.
    """

    iteration: int
    images: int
    iterations: int
    batch_size: int


class Schedule(Protocol):
    """Kind ``schedule``: a number that moves in time.

    It may stand wherever a parameter's type says so (learning rates, R1's gamma, the average's half-life, Adam's betas,
    an augmentation's p). ``train.learning_rate_schedule`` is a factor of both learning rates.
    """

    def __call__(self, time: Time) -> float:
        """The number in that iteration. A function of ``time`` alone, so that a resume finds it again."""


def at(number: "float | Schedule", time: Time) -> float:
    """A number that may move, in an iteration."""
    return number(time) if callable(number) else number


class Optimizer(Protocol):
    """Kind ``optimizer``: makes the optimizer of one network.

    It may also have ``adjust(optimizer, time)``, called before every iteration for whatever moves in time beside the
    learning rate, which the training loop sets.
    """

    def __call__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, lazy_ratio: float = 1.0
    ) -> torch.optim.Optimizer:
        """An optimizer of these parameters.

        Args:
            lazy_ratio: c = interval / (interval + 1) where lazy regularizers add steps of their own, else 1. The
                learning rate contains it; decay rates of running averages are to be raised to its power (StyleGAN2,
                appendix B).
        """


class Average(Protocol):
    """Kind ``average``: averages of the generator's weights, which are sampled and measured instead of its own.

    An average keeps nothing itself: the networks are in the run's state and its checkpoints.
    """

    def start(self, generator: nn.Module) -> dict[str, nn.Module]:
        """New averages by name, the one that is sampled first; its name is ``ema``, of others ``ema-<which>``. Empty
        where the generator's own weights are sampled."""

    def update(self, averages: Mapping[str, nn.Module], generator: nn.Module, time: Time) -> None:
        """Called after every iteration; ``time`` is that iteration's."""


@dataclass(frozen=True)
class Phase:
    """A row of a recipe: one network's optimizer step (StyleGAN2-ADA's Dmain, Dreg, Gmain, Greg).

    Attributes:
        name: of its scalars, such as ``gradient_norm/<name>``.
        network: whose parameters it moves.
        adversarial: whether the adversarial loss is in it.
        terms: regularizers in it; each is applied in the iterations that are multiples of its interval.
    """

    name: str
    network: Literal["discriminator", "generator"]
    adversarial: bool
    terms: "tuple[Regularizer, ...]" = ()


@dataclass(frozen=True)
class Step:
    """Phases whose gradients are taken at the same weights; then each makes its optimizer step, in their order.

    Attributes:
        interval: iterations between applications.
        new_images: whether a new batch of real images is taken first; new_latents: whether latents are drawn first.
            The first step of an iteration does both.
        keep_fakes: whether later steps reuse its fakes, gradients included. With ``train.accumulate`` they are made
            again, since memory holds one microbatch's alone.
    """

    phases: tuple[Phase, ...]
    interval: int = 1
    new_images: bool = False
    new_latents: bool = False
    keep_fakes: bool = False


class Recipe(Protocol):
    """Kind ``recipe``: what an iteration steps, in which order, from which images and fakes."""

    def steps(self, regularizers: "Sequence[Regularizer]") -> Sequence[Step]:
        """The steps of an iteration, in order, every regularizer in at least one phase."""


@dataclass
class Microbatch:
    """What is known of one microbatch in an iteration; losses' terms of either network see all of it.

    Attributes:
        generator, discriminator: the networks.
        discriminate: images, and labels or None, to logits as the adversarial loss has them, augmentation included. A
            regularizer with ``second_order`` finds it in float32 and uncompiled.
        time: the iteration.
        random: the generator that every draw must come from, by the functions of ``stylenat.draws``.
        images, labels: real ones. Labels are one-hot float [batch, num_classes], None in an unconditional experiment.
        latents, fake_labels: what ``fake`` is made from; fake: generated images, detached for the discriminator.
        real_logits, fake_logits: what the newest phase with the adversarial loss computed. None before.
        draws: what the generator declares to draw for ``fake``, by name.
        shard: which part of the run's batch this is; fake_with_graph: the training step's own.
    """

    generator: nn.Module
    discriminator: nn.Module
    discriminate: Callable[..., Tensor]
    time: Time
    random: torch.Generator
    images: Tensor | None = None
    labels: Tensor | None = None
    latents: Tensor | None = None
    fake_labels: Tensor | None = None
    fake: Tensor | None = None
    real_logits: Tensor | None = None
    fake_logits: Tensor | None = None
    draws: Mapping[str, Tensor] = field(default_factory=dict)
    shard: Shard = field(default_factory=Shard)
    fake_with_graph: Tensor | None = field(default=None, repr=False)


class Regularizer(Protocol):
    """Kind ``regularizer``: an extra term of one network's loss.

    Attributes:
        name: names the scalar ``regularizer/<name>``.
        network: whose parameters it moves.
        interval: applied every so many iterations (lazy regularisation, StyleGAN2, section 3.1).
        own_step: True for an optimiser step of its own, unclipped, after the main one; False for a term of the
            main loss.
        second_order: whether the term contains a gradient (a gradient penalty); ``own_step`` where it is not said.
        reuses_logits: whether a term of the discriminator's main loss differentiates ``real_logits`` or
            ``fake_logits`` with respect to ``images`` or ``fake``, which then require a gradient: no pass of its own,
            and the loss's draws of the augmentation (R3GAN). Implies ``second_order``; False where it is not said.
    """

    name: str
    network: Literal["discriminator", "generator"]
    interval: int
    own_step: bool

    def __call__(self, batch: Microbatch) -> Tensor:
        """The weighted term, a scalar, including the factor that makes up for laziness."""


class Augmentation(Protocol):
    """Kind ``augmentation``: what every image passes on its way into the discriminator. May adapt itself.

    It may also have ``begin(time)``, called before every iteration, for a number that moves in time.
    """

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Differentiable; same shape; draws on the CPU from ``random`` only, by the functions of ``stylenat.draws``."""

    def observe(self, real_logits: Tensor) -> None:
        """Sees the discriminator's logits [batch, any number] on real images once an iteration, detached."""

    def scalars(self) -> Mapping[str, float]:
        """What to track, such as ``augmentation/p``; empty when there is nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors (readable with ``weights_only=True``)."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Demonstrates(Protocol):
    """What an augmentation may also offer, for ``tools/show_augmentations.py``."""

    def demonstrate(self, image: Tensor, strengths: list[float], random: torch.Generator) -> Mapping[str, Tensor]:
        """One row of images [strengths, 3, side, side] for each transform, by name.

        Args:
            image: [3, side, side]; strengths: in (0, 1).
        """


class Dataset(Protocol):
    """Kind ``dataset``: real images, indexable. Constructing one touches no file, so that a dry run needs no data.

    Attributes:
        resolution: side of the square images in pixels.
    """

    resolution: int

    def describe(self) -> str:
        """One line: what it is and where its files are expected."""

    def prepare(self) -> None:
        """Opens (or, for small built-in sets, writes) the files.

        Raises UserError naming what is missing and the command that makes it.
        """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor:
        """uint8 [3, resolution, resolution], RGB."""


class Identified(Protocol):
    """What a data set may also offer: either method alone, or both. Called after ``prepare()``.

    Without them a checkpoint remembers the number of images and some of their pixels.
    """

    def content_hash(self) -> str | None:
        """Changes whenever an image does; None when it is not known. Cached statistics are found by it."""

    def identity(self) -> Mapping[str, Any]:
        """Plain values that most likely change when an image does and are quick to tell, such as a digest of the
        files' names and sizes. A resume on a data set with other values is refused."""


class Labelled(Protocol):
    """What a data set of labelled images also offers, once it is prepared. An experiment uses labels where its networks
    have ``num_classes``.

    Attributes:
        num_classes: 0 where there are no labels.
        class_names: one each, for grids and tables.
    """

    num_classes: int
    class_names: Sequence[str]

    def label(self, index: int) -> int:
        """The class of an image, from 0."""


class Creates(Protocol):
    """What a data set must also offer if its ``prepare()`` creates files.

    Attributes:
        creates: the path that ``prepare()`` would create now; None once it is there. Commands that only read a run
            ask before they let a path of its config be created.
    """

    creates: Path | None


class Features(Protocol):
    """Kind ``features``: an image embedding that metrics are measured in.

    It may also have ``check()``, which raises UserError when its weights are missing, and ``protocol()``, plain
    values that say all that its vectors depend on: weights' checksum, resize, precision, parameters. Features of
    equal protocols are computed once for all metrics, and only those with a protocol are kept for the next run.

    Attributes:
        name: goes into metric names; dim: length of a feature vector.
    """

    name: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, height, width] to float32 [batch, dim] on their device. No gradient."""


class Sampler(Protocol):
    """The generator that is measured. Sample number i depends on the seed and i alone."""

    def __call__(self, start: int, count: int) -> Tensor:
        """uint8 [count, 3, resolution, resolution] of those sample indices, on the generator's device."""

    def latents(self, start: int, count: int) -> Tensor:
        """[count, latent_dim] of those sample indices."""

    def labels(self, start: int, count: int) -> Tensor | None:
        """[count, num_classes] of those sample indices; None where there are no classes."""

    def styles(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Truncated styles [count, style_dim]."""

    def pixels(self, styles: Tensor) -> Tensor:
        """float32 [count, 3, resolution, resolution], 0 to 255, neither rounded nor clamped."""


class Walk(Protocol):
    """What a metric of the generator itself needs in the place of features: vectors of samples, not of images.

    It may also have ``check()`` and ``protocol()`` as features do.
    """

    name: str

    def along(self, sampler: Sampler, start: int, count: int) -> Tensor:
        """float32 [count, dim] of those sample indices, each the same whatever the count."""


class Accumulator(Protocol):
    """Collects what a metric needs of one set of images.

    It may also have

    * ``shared_as``: a name; metrics with equal needs share the accumulator of that name;
    * ``state_dict()`` and ``load_state_dict()`` of tensors: with ``shared_as``, what makes those of the real set last.
      ``load_state_dict()`` raises ValueError, TypeError or KeyError for what is not such a state;
    * ``limit``: images after which it takes no more.
    """

    def update(self, images: Tensor) -> None:
        """uint8 [batch, 3, height, width]; of a metric that ``needs`` something, that thing's [batch, dim]."""


@dataclass(frozen=True)
class Measured:
    """A value that knows its uncertainty.

    Attributes:
        spread: one standard deviation, over subsets or splits.
        interval: 95 %.
    """

    value: float
    spread: float | None = None
    interval: tuple[float, float] | None = None


class Metric(Protocol):
    """Kind ``metric``: compares two sets of images, each seen once, in a fixed order and in blocks of 16.

    It may also have

    * ``needs``: the ``Features`` (or ``Walk``) whose vectors its accumulators take instead of images. Each is
      computed once for all metrics;
    * ``protocol()``: plain values that define it beside ``needs``: its parameters, a version;
    * ``higher_is_better``: True for all its values; ``uses_real``: False when ``compare`` looks at ``fake`` alone;
    * ``names``: of its values where they are several, so that each is null when the metric fails;
    * ``check()``: raises UserError when it cannot be measured here. The others go on;
    * ``check_images(real, generated)``: raises UserError when it cannot be measured with so many images of each set
      (``real`` is None where that is not known); asked before a run starts, and by a dry run.

    A metric that raises, or gives what is not finite, costs a line and its value; the others go on.

    Attributes:
        name: key in metrics.jsonl and of the tracked series.
    """

    name: str

    def accumulator(self) -> Accumulator:
        """A fresh, empty one."""

    def compare(self, real: Accumulator, fake: Accumulator) -> "float | Measured | Mapping[str, float | Measured]":
        """The metric's value, or several values by their names; lower is better unless it says otherwise."""


class Tracker(Protocol):
    """Kind ``tracker``: an object with lifecycle hooks (``registry.hooks``), each marked ``@hookimpl``.

    One that keeps something to look at may have ``where() -> dict[str, str]``: lines printed when the run ends. One
    that takes evaluations after training may have ``record_evaluation(step, metrics, details)``, called by
    ``tools/evaluate.py`` once its state is loaded, outside of any run. One that has to make a store before its first
    use may have ``prepare()``, called once before runs that start together.
    """

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on after a resume, such as its run's identity."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Pair:
    """One tensor of ours, and what another system calls it.

    Attributes:
        ours: its name in the network's ``state_dict``.
        theirs: its name there; several names for parts that are joined along the first dimension, in equal shares.
        to_ours, to_theirs: rearrangements of the numbers, each the inverse of the other.
    """

    ours: str
    theirs: str | tuple[str, ...]
    to_ours: Callable[[Tensor], Tensor] = _same
    to_theirs: Callable[[Tensor], Tensor] = _same


class CheckpointLayout(Protocol):
    """Kind ``checkpoint_layout``: how another system names the weights of a network that this project builds.

    Attributes:
        networks: which of ``generator``, ``discriminator`` and ``hydra`` (an attention layer) it can name.
    """

    networks: tuple[str, ...]

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a state with these names is in this layout."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """The network of ours that the other system's configuration describes.

        Raises UserError for an option that is missing, unknown or cannot be built.
        """

    def pairs(self, network: nn.Module) -> Sequence[Pair]:
        """One for each tensor of the network's ``state_dict`` that the layout has a place for."""

    def constants(self, network: nn.Module) -> Mapping[str, Tensor]:
        """What the other system stores beside the weights, such as filters: skipped on reading, added on writing."""
