"""The interface of each kind that a gin file can name.

These are Protocols: an implementation needs the attributes and methods, not the base class. Images inside the networks
are float [batch, 3, height, width] in the experiment's pixel space (``stylenat.pixels``); images outside are uint8 in
the same layout.
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

    Optional method ``lower_precision()``: changes weights to bfloat16, so that without a graph the block takes and
    returns maps of bfloat16 and float32 styles (``Generator``). If one block has none, autocast is used for all.
    """

    def __init__(self, *, site: AttentionSite, style_dim: int, **options: Any) -> None: ...

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        """x: [batch, height, width, channels]; style: [batch, style_dim]. Returns x's shape."""


class DescribedBlock(Protocol):
    """Optional interface of a block: a line for the table of ``--dry-run``."""

    def describe(self) -> str:
        """One line: what its layers attend to, such as ``4 x k7 d2 (66%)``. Called on the meta device."""


class AttendingBlock(Protocol):
    """Optional interface of a block: a check of its attention backends before a run, and a line that names them."""

    def attention_backends(self, dtype: torch.dtype) -> set[str]:
        """The names of the backends that it takes where it is, in this precision. Raises UserError where it cannot."""


@dataclass(frozen=True)
class Shown:
    """What a group of heads looks at.

    Attributes:
        label: of the group, such as ``k7 d2``.
        weights: attention weights [batch, heads, queries, height, width], each map adding up to 1.
    """

    label: str
    weights: Tensor


class ShowsAttention(Protocol):
    """Optional interface of an attention layer over a square map, an ``nn.Module``: attention maps
    (``tools/attention_maps.py``, ``tracker.attention``).

    A layer may have a method ``attended(qkv)`` or ``attend(qkv)``, which its block calls in place of the layer itself.
    """

    def qkv(self, x: Tensor) -> Tensor:
        """From the layer's input, in any arrangement, to its projections [batch, height, width, anything]."""

    def shown(self, qkv: Tensor, queries: Tensor) -> "Sequence[Shown]":
        """The groups of heads, in head order. queries: int64 [queries, 2], row and column. Does not change qkv."""


class Generator(Protocol):
    """Kind ``generator`` (bound as a class): an ``nn.Module`` from latents to images.

    Optional attributes: ``num_classes`` (default 0); if it is above 0, labels are one-hot float [batch, num_classes].
    ``draws``, a dictionary of ``stylenat.draws.Draw``: random tensors [batch, *shape] that are passed under these
    names, so that the network draws nothing itself. It may be a property that depends on ``training``.

    Optional method ``observe(latents, labels=None)``: called in training with every new batch of latents, that of all
    processes and microbatches, before the step that uses it, without gradient. For running statistics in buffers, so
    that these do not depend on how the batch is divided.

    Optional method ``begin()``: called once, when a run begins without a checkpoint and without
    ``train.initial_weights``. It may take weights from elsewhere, such as another run, and returns plain values to
    record in ``environment.json``, or None. Raises UserError where they are missing or do not fit.

    Optional method ``lower_precision()``: called once, for ``--precision bf16`` on a CPU. It changes weights to
    bfloat16, so that images are made faster without a graph, and returns True, or changes nothing and returns False;
    then autocast is used.

    Any module of a network may have ``note``, one line that is printed when a run begins and by a dry run.
    """

    resolution: int
    latent_dim: int

    def __call__(self, latents: Tensor, labels: Tensor | None = None, **draws: Tensor) -> Tensor:
        """[batch, latent_dim] to images [batch, 3, resolution, resolution]."""


class StyleBased(Generator, Protocol):
    """A generator with a mapping and a synthesis network. Truncation, style mixing, inversion and path lengths need
    it.

    Optional: ``mean_style`` [style_dim], or [num_classes, style_dim] with one for each class: the mean of w that it
    keeps, which truncation pulls towards; without it, the mean of many styles is computed. ``styles(latents,
    labels=None, **draws)``, the w+ [batch, num_styles, style_dim] that ``forward`` passes to ``synthesis``, if they
    are not copies of w (style mixing in training). ``synthesis`` gets all draws, and works without them.
    """

    num_styles: int

    def mapping(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, latent_dim] to styles w [batch, style_dim]."""

    def synthesis(self, styles: Tensor, **draws: Tensor) -> Tensor:
        """[batch, num_styles, style_dim] (w+) to images [batch, 3, resolution, resolution]."""


class Equivariant(StyleBased, Protocol):
    """A style-based generator whose input can be sampled anywhere in the plane. Metrics of equivariance need it."""

    def synthesis(self, styles: Tensor, transform: Tensor | None = None, **draws: Tensor) -> Tensor:
        """As of ``StyleBased``.

        Args:
            transform: positions in the image, from -1/2 to 1/2, to positions where the input is sampled instead:
                homogeneous matrices (x, y, 1), [3, 3] or [batch, 3, 3]; None for the identity.
        """


class Discriminator(Protocol):
    """Kind ``discriminator`` (bound as a class): an ``nn.Module`` from images to logits.

    Optional: ``num_classes`` and ``begin()``, as for a generator, and ``features(images)``; ``draws``, a dictionary of
    ``stylenat.draws.Draw``: in training each call gets random tensors [batch, *shape] under these names, drawn anew. It
    works without them.
    """

    resolution: int

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[batch, 3, resolution, resolution] to logits [batch, any number]. Raises UserError for an impossible batch
        size."""


class Backbone(Protocol):
    """Kind ``backbone`` (bound as a class): an ``nn.Module`` from float images to feature maps, differentiable with
    respect to the images.

    It is built with its gin parameters alone and is not trained: whatever uses it keeps it in evaluation mode, with
    parameters that require no gradient. Maps come from fine to coarse, each of half the side of the one before.

    Attributes:
        channels: of each map.

    Optional: ``num_classes`` and ``logits(images)`` [batch, num_classes], of a classifier.
    """

    channels: Sequence[int]

    def __call__(self, images: Tensor) -> Sequence[Tensor]:
        """float [batch, 3, height, width], displayed colours from 0 to 1 (slightly outside for generated images), to
        maps [batch, channels, height, width]. The backbone resizes and normalises as its weights need it."""


class Loss(Protocol):
    """Kind ``loss``: an adversarial loss, two functions of logits [batch, any number], each a mean.

    The values depend only on the logits and on what the optional ``state_dict()`` holds, which is in checkpoints and
    is given to ``load_state_dict(state)`` when a run is continued. The same holds for regularizers and recipes.

    Attributes:
        paired: whether ``generator`` uses ``real_logits``, as relativistic losses do; they are computed only then.
            Optional; the default is False.

    Optional: the method ``check(generator, discriminator)``, as for a regularizer.
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """The discriminator's loss, a scalar."""

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        """The generator's loss, a scalar. ``real_logits`` is None unless the loss is ``paired``."""


@dataclass(frozen=True)
class Time:
    """The time of an iteration.

    Attributes:
        iteration: its number, from 0; iterations: the length of the run.
        images: real images seen before it, over all processes; batch_size: images an iteration.
    """

    iteration: int
    images: int
    iterations: int
    batch_size: int


class Schedule(Protocol):
    """Kind ``schedule``: a number that changes during the run.

    It can be bound to parameters whose type includes Schedule (learning rates, R1's gamma, the average's half-life,
    Adam's betas). ``train.learning_rate_schedule`` is a factor of both learning rates.
    """

    def __call__(self, time: Time) -> float:
        """The number in that iteration. It depends only on ``time``, so that a resumed run has the same numbers."""


def at(number: "float | Schedule", time: Time) -> float:
    """The value of a number or a schedule in an iteration."""
    return number(time) if callable(number) else number


class Optimizer(Protocol):
    """Kind ``optimizer``: makes the optimizer of one network.

    Optional: ``adjust(optimizer, time)``, called before every iteration, for numbers that change in time. The training
    loop sets the learning rate.
    """

    def __call__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, lazy_ratio: float = 1.0
    ) -> torch.optim.Optimizer:
        """An optimizer of these parameters.

        Args:
            lazy_ratio: interval / (interval + 1) if lazy regularizers add steps of their own, else 1. The learning
                rate already contains this factor. Raise decay rates of running averages to this power (StyleGAN2,
                appendix B).
        """


class Average(Protocol):
    """Kind ``average``: averages of the generator's weights, used for samples and metrics.

    An average has no state of its own: the averaged networks are in the run's state and its checkpoints.
    """

    def start(self, generator: nn.Module) -> dict[str, nn.Module]:
        """New averages by name. The first, ``ema``, is used for samples and metrics; the names of others begin with
        ``ema-``. Empty if the generator's own weights are used."""

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
        keep_fakes: whether later steps reuse its generated images, with their graph. With ``train.accumulate`` they are
            generated again, since only one microbatch is in memory.
    """

    phases: tuple[Phase, ...]
    interval: int = 1
    new_images: bool = False
    new_latents: bool = False
    keep_fakes: bool = False


class Recipe(Protocol):
    """Kind ``recipe``: what an iteration steps, in which order, from which images and fakes.

    Optional: ``state_dict()``, as for a loss.
    """

    def steps(self, regularizers: "Sequence[Regularizer]") -> Sequence[Step]:
        """The steps of an iteration, in order, every regularizer in at least one phase."""


@dataclass
class Microbatch:
    """One microbatch of an iteration, as losses and regularizers of either network see it.

    Attributes:
        generator, discriminator: the networks.
        discriminate: images, and labels or None, to logits, including the augmentation. For a regularizer with
            ``second_order`` it is in float32 and uncompiled.
        time: the iteration.
        random: the only generator to draw from, with the functions of ``stylenat.draws``.
        images, labels: real ones. Labels are one-hot float [batch, num_classes], None in an unconditional experiment.
        latents, fake_labels: what ``fake`` is made from; fake: generated images, detached for the discriminator.
        real_logits, fake_logits: logits of the last phase with the adversarial loss. None before it.
        draws: the generator's declared random tensors for ``fake``, by name.
        shard: the part of the run's batch; fake_with_graph: internal to the training step.
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
    """Kind ``regularizer``: an extra term of one network's loss. Optional: ``state_dict()``, as for a loss.

    Attributes:
        name: names the scalar ``regularizer/<name>``.
        network: whose parameters it moves.
        interval: applied every so many iterations (lazy regularisation, StyleGAN2, section 3.1).
        own_step: True for an optimiser step of its own, unclipped, after the main one; False for a term of the
            main loss.
        second_order: whether the term contains a gradient (a gradient penalty). Optional; the default is ``own_step``.
        reuses_logits: whether a term of the discriminator's main loss differentiates ``real_logits`` or
            ``fake_logits`` with respect to ``images`` or ``fake``, which then require a gradient. It needs no forward
            pass of its own and sees the main loss's augmentation (R3GAN). Implies ``second_order``. Optional; the
            default is False.

    Optional: the method ``check(generator, discriminator)``, which raises UserError before the run if it cannot be
    computed for these networks; ``depends_on_microbatches`` (of networks, too), one line that says what
    ``train.accumulate`` changes in a term that couples the images of a batch, shown by ``--dry-run``.
    """

    name: str
    network: Literal["discriminator", "generator"]
    interval: int
    own_step: bool

    def __call__(self, batch: Microbatch) -> Tensor:
        """The weighted term, a scalar, including the factor for its interval. A phase whose terms are all constants (of
        a weight that is 0 for now) makes no step."""


class Augmentation(Protocol):
    """Kind ``augmentation``: transforms every image before it enters the discriminator. It may adapt.

    Optional: ``begin(time)``, called before every iteration, for numbers that change in time.
    """

    def __call__(self, images: Tensor, random: torch.Generator) -> Tensor:
        """Differentiable; same shape; draws on the CPU from ``random`` only, by the functions of ``stylenat.draws``."""

    def observe(self, real_logits: Tensor) -> None:
        """Gets the discriminator's logits [batch, any number] of real images once an iteration, detached."""

    def scalars(self) -> Mapping[str, float]:
        """What to track, such as ``augmentation/p``; empty when there is nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors (readable with ``weights_only=True``)."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Demonstrates(Protocol):
    """Optional interface of an augmentation, for ``tools/show_augmentations.py``."""

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
    """Optional interface of a data set: one of these methods, or both. They are called after ``prepare()``.

    Without them a checkpoint records the number of images and some of their pixels.
    """

    def content_hash(self) -> str | None:
        """A hash of all images, or None if it is not known. It is part of the key of cached statistics."""

    def identity(self) -> Mapping[str, Any]:
        """Plain values that are fast to compute and very likely change with the images, such as a digest of the files'
        names and sizes. A resume with other values is refused."""


class Labelled(Protocol):
    """Interface of a data set with labels, after ``prepare()``. Labels are used if the networks have ``num_classes``.

    Attributes:
        num_classes: 0 without labels.
        class_names: one for each class, for grids and tables.

    Optional: ``labels()``, the classes of all images as int64 [count]. Without it, ``label`` is called for each image
    before a run starts.
    """

    num_classes: int
    class_names: Sequence[str]

    def label(self, index: int) -> int:
        """The class of an image, from 0."""


class Creates(Protocol):
    """Required interface of a data set whose ``prepare()`` creates files.

    Attributes:
        creates: the path that ``prepare()`` would create now; None if it exists. Commands that only read a run do not
            create a path of its config without ``--make-data``.
    """

    creates: Path | None


class Features(Protocol):
    """Kind ``features``: an image embedding that metrics are measured in.

    Optional: ``check()``, which raises UserError if its weights are missing, and ``protocol()``, plain values that
    determine the vectors: weights' checksum, resize, precision, parameters. Features of equal protocols are computed
    once for all metrics, and only features with a protocol are cached for the next run. ``published_sha256``, of the
    weights that published numbers were measured with, is compared with the protocol's ``weights_sha256``.

    Attributes:
        name: part of metric names; dim: length of a feature vector.
    """

    name: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [batch, 3, height, width] to float32 [batch, dim] on their device. No gradient."""


class Sampler(Protocol):
    """The generator that metrics are computed of. Sample i depends only on the seed and i."""

    def __call__(self, start: int, count: int) -> Tensor:
        """uint8 [count, 3, resolution, resolution] of those sample indices, on the generator's device."""

    def latents(self, start: int, count: int) -> Tensor:
        """[count, latent_dim] of those sample indices."""

    def labels(self, start: int, count: int) -> Tensor | None:
        """[count, num_classes] of those sample indices; None where there are no classes."""

    def styles(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Truncated styles [count, style_dim]."""

    def pixels(self, styles: Tensor, transform: Tensor | None = None) -> Tensor:
        """float32 [count, 3, resolution, resolution], 0 to 255, neither rounded nor clamped. ``transform``
        [count, 3, 3] is that of an ``Equivariant`` generator."""


class Walk(Protocol):
    """Replaces features for a metric of the generator itself: vectors of samples, not of images.

    Optional: ``check()`` and ``protocol()``, as for features.
    """

    name: str

    def along(self, sampler: Sampler, start: int, count: int) -> Tensor:
        """float32 [count, dim] of those sample indices, each the same whatever the count."""


class Accumulator(Protocol):
    """Collects the statistics of one set of images for a metric.

    Optional:

    * ``shared_as``: a name; metrics with equal ``needs`` share the accumulator of that name.
    * ``state_dict()`` and ``load_state_dict()`` of tensors: with ``shared_as``, the statistics of the real images are
      cached. ``load_state_dict()`` raises ValueError, TypeError or KeyError for an invalid state.
    * ``limit``: number of images that it uses at most.
    """

    def update(self, images: Tensor) -> None:
        """uint8 [batch, 3, height, width]; for a metric with ``needs``, its vectors [batch, dim]."""


@dataclass(frozen=True)
class Measured:
    """A value with its uncertainty.

    Attributes:
        spread: one standard deviation, over subsets or splits.
        interval: 95 %.
    """

    value: float
    spread: float | None = None
    interval: tuple[float, float] | None = None


class Metric(Protocol):
    """Kind ``metric``: compares two sets of images, each seen once, in a fixed order and in blocks of 16.

    Optional:

    * ``needs``: the ``Features`` (or ``Walk``) whose vectors its accumulators take instead of images. Each is
      computed once for all metrics.
    * ``protocol()``: plain values that define it in addition to ``needs``: its parameters, a version.
    * ``higher_is_better``: True for all its values; ``uses_real``: False if ``compare`` uses only ``fake``.
    * ``names``: of its values if there are several, so that each is null if the metric fails.
    * ``check()``: raises UserError if it cannot be computed on this machine. The other metrics continue.
    * ``check_generator(generator)``: raises UserError if it cannot be computed of this generator, such as one without
      styles. Called before a run starts, and by a dry run; the network may be on PyTorch's ``meta`` device.
    * ``check_images(real, generated)``: raises UserError if it cannot be computed with these numbers of images
      (``real`` may be None, if it is not known). Called before a run starts, and by a dry run.

    A metric that raises, or whose value is not finite, is null, with one line; the others continue.

    Attributes:
        name: key in metrics.jsonl and name of the tracked series.
    """

    name: str

    def accumulator(self) -> Accumulator:
        """A fresh, empty one."""

    def compare(self, real: Accumulator, fake: Accumulator) -> "float | Measured | Mapping[str, float | Measured]":
        """The metric's value, or several values by name. Lower is better unless ``higher_is_better``."""


class Tracker(Protocol):
    """Kind ``tracker``: an object with lifecycle hooks (``registry.hooks``), each marked ``@hookimpl``.

    Optional:

    * ``check()``: raises UserError where it cannot record anything, such as for a missing package; called before the
      run folder is made.
    * ``where() -> dict[str, str]``: lines that are printed at the end of the run.
    * ``record_evaluation(step, metrics, details)``: called by ``tools/evaluate.py`` after training, with the state
      loaded.
    * ``prepare()``: creates its storage; called once before runs that start at the same time.
    """

    def state_dict(self) -> dict[str, Any]:
        """What it needs to continue after a resume, such as the identity of its run."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Pair:
    """One tensor of a network of this project, and its name in another system.

    Attributes:
        ours: its name in the network's ``state_dict``.
        theirs: its name there; several names for equal parts that are concatenated along the first dimension.
        to_ours, to_theirs: rearrangements of the values, each the inverse of the other.
    """

    ours: str
    theirs: str | tuple[str, ...]
    to_ours: Callable[[Tensor], Tensor] = _same
    to_theirs: Callable[[Tensor], Tensor] = _same


class CheckpointLayout(Protocol):
    """Kind ``checkpoint_layout``: how another system names the weights of a network that this project builds.

    Optional: ``pixel_space``, the system's, if it is not ``imagenet``; ``dimensions(state)``, ``resolution`` and
    ``num_classes`` (or one of them) as a state in its names has them, so that an import into another network can say
    what differs.

    Attributes:
        networks: which of ``generator``, ``discriminator`` and ``hydra`` (an attention layer) it can name.
    """

    networks: tuple[str, ...]

    def recognises(self, names: Collection[str]) -> bool:
        """Whether a state with these names is in this layout."""

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """This project's network for the other system's configuration.

        Raises UserError for an option that is missing, unknown or not supported.
        """

    def pairs(self, network: nn.Module) -> Sequence[Pair]:
        """One for each tensor of the network's ``state_dict`` that the layout contains."""

    def constants(self, network: nn.Module) -> Mapping[str, Tensor]:
        """Other tensors that the system stores, such as filters: ignored on import, added on export."""
