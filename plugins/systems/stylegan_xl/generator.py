"""Generator ``stylegan_xl`` (arXiv 2202.00273): StyleGAN3's layers, grown stage by stage, with class embeddings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from plugins.systems.stylegan3.generator import AliasFreeGenerator, chain
from plugins.systems.stylegan3.input import FourierInput
from plugins.systems.stylegan_xl import stem as stems
from plugins.systems.stylegan_xl.embeddings import ClassEmbeddings, check_rows
from plugins.systems.stylegan_xl.scale_discriminator import ClassProjection
from plugins.systems.stylegan_xl.stages import grown, sides_of
from registry import Count, CountOrZero, Positive, Share, UserError
from stylenat.draws import conditions
from stylenat.networks.generator import Mapping
from stylenat.networks.widths import Width

NAME = "generator.stylegan_xl"


class StyleGANXLGenerator(AliasFreeGenerator):
    """Generator ``stylegan_xl``: images in [-1, 1] (``train.pixel_space = 'symmetric'``).

    A stem at ``stem_resolution`` is trained first. Each further stage is a run of its own: it takes the averaged
    weights of the run of the stage before, drops the last three layers, adds a head of new ones, and trains the head
    (and the Fourier input, as the code does). Configuration T is the default; R has ``kernel_size`` 1,
    ``radial_filters``, and twice ``channel_base`` and ``channel_max``.

    Args:
        resolution: side of the image; stem_resolution: of the stem's.
        stem_layers: of the stem; head_layers: of each later stage, a number or one for each stage; without ToRGB.
        growth: sides of the stages after the stem; None for each twice the one before.
        stem: the run of the stage before, one of its checkpoints, or imported weights. Its weights are copied when the
            run begins and never read again. None for a stem, or where ``train.initial_weights`` gives all weights.
        train_kept: whether layers of earlier stages and the mapping network are trained as well; train_input: whether
            the Fourier input is, in a later stage.
        channel_base, channel_max: min(channel_base / 2 / cutoff, channel_max) channels after a layer.
        latent_dim: length of z; style_dim: length of w.
        mapping_layers, mapping_lr_multiplier: of the mapping network.
        margin, kernel_size, radial_filters, conv_clamp: as those of ``generator.stylegan3``.
        mean_style_decay: of the running means of w that truncation pulls towards, one for each class; None for none.
        num_classes: of a class-conditional generator; 0 for an unconditional one.
        embedding_rows, embedding_dim: of the table of class embeddings, whose first rows are the classes. The published
            unconditional generators hold an unused table of 1000 x 320; 0 rows for none.
        embeddings: file of the values that a stem's table begins from (``plugins.systems.stylegan_xl.embeddings``);
            None for random ones. The table is trained.

    Attributes:
        shared: options of the kept layers that no tensor's shape shows, and that a stage has as its stem has them.

    Raises:
        UserError: stages that do not lead to the resolution, or more classes than embeddings.
    """

    def __init__(
        self,
        *,
        resolution: Count,
        stem_resolution: Count = 16,
        stem_layers: Count = 10,
        head_layers: Count | Sequence[Count] = 7,
        growth: Sequence[Count] | None = None,
        stem: str | None = None,
        train_kept: bool = False,
        train_input: bool = True,
        channel_base: Width = 65536,
        channel_max: Width = 1024,
        latent_dim: Width = 64,
        style_dim: Width = 512,
        mapping_layers: Width = 2,
        mapping_lr_multiplier: Positive = 0.01,
        margin: CountOrZero = 10,
        kernel_size: Count = 3,
        radial_filters: bool = False,
        conv_clamp: Positive | None = 256.0,
        mean_style_decay: Share | None = 0.998,
        num_classes: CountOrZero = 0,
        embedding_rows: CountOrZero = 1000,
        embedding_dim: Width = 320,
        embeddings: str | None = None,
    ) -> None:
        sides = sides_of(resolution, stem_resolution, growth, NAME)
        heads = [head_layers] * (len(sides) - 1) if isinstance(head_layers, int) else list(head_layers)
        if len(heads) < len(sides) - 1:
            raise UserError(
                f"{NAME}.head_layers has {len(heads)} numbers for {len(sides) - 1} stages after the stem; give each one"
            )
        layers = [stem_layers, *heads[: len(sides) - 1]]
        check_rows(NAME, num_classes, embedding_rows)
        plan = grown(sides, layers, channel_base, channel_max, margin)
        embed = ClassProjection(embedding_rows, embedding_dim, latent_dim) if num_classes else None
        super().__init__(
            resolution,
            latent_dim,
            style_dim,
            Mapping(latent_dim, style_dim, mapping_layers, mapping_lr_multiplier, num_classes, embed, latent_dim),
            FourierInput(plan.first, style_dim),
            chain(plan.layers, style_dim, kernel_size, radial_filters, conv_clamp, magnitude_decay=None),
            num_classes,
        )
        self.plan, self.stem, self.embeddings, self.mean_style_decay = plan, stem, embeddings, mean_style_decay
        self.shared = {
            "margin": margin,
            "radial_filters": radial_filters,
            "conv_clamp": conv_clamp,
            "mapping_lr_multiplier": mapping_lr_multiplier,
        }
        if embedding_rows and not num_classes:
            table = torch.randn(embedding_rows, embedding_dim)
            self.unused_embeddings = nn.Parameter(table, requires_grad=False)
        if mean_style_decay is not None:
            shape = (num_classes, style_dim) if num_classes else (style_dim,)
            self.register_buffer("mean_style", torch.zeros(shape))
        if plan.kept and not train_kept:
            self.mapping.requires_grad_(False)
            self.layers[: plan.kept].requires_grad_(False)
        if plan.kept and not train_input:
            self.input.requires_grad_(False)

    def begin(self) -> dict[str, object] | None:
        """Takes the weights of the stage before, or the stem's class embeddings, at the beginning of a run.

        Raises UserError where they are missing or of another network.
        """
        if self.plan.kept:
            return stems.take(self, self.stem)
        if self.stem is not None:
            raise UserError(
                f"{NAME}.stem is bound, but at {self.resolution}x{self.resolution} this generator is itself a stem; "
                "bind stem_resolution to that of the run, or leave stem out"
            )
        if self.embeddings is None or not self.num_classes:
            return None
        given = ClassEmbeddings(self.embeddings, f"{NAME}.embeddings")
        given.into(self.mapping.embed.table)
        return given.record()

    @torch.no_grad()
    def observe(self, latents: Tensor, labels: Tensor | None = None) -> None:
        """Moves the running means of w by a batch of latents [batch, latent_dim], each that of its class."""
        decay = self.mean_style_decay
        if decay is None:
            return
        styles = self.mapping(latents, *conditions(labels))
        if labels is None:
            self.mean_style.copy_(styles.mean(dim=0).lerp(self.mean_style, decay))
            return
        # As if one style after the other moved the mean: each counts less by those of its class that follow it.
        followers = (labels @ labels.t()).triu(diagonal=1).sum(dim=1)
        parts = (1 - decay) * decay**followers
        moved = labels.t() @ (parts[:, None] * styles)
        self.mean_style.copy_(self.mean_style * decay ** labels.sum(dim=0)[:, None] + moved)
