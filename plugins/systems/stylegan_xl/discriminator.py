"""Discriminator ``projected`` (arXiv 2111.01007 and 2202.00273): small discriminators on the features of fixed
networks."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from plugins.systems.stylegan_xl.diffaug import DRAWS, augmented
from plugins.systems.stylegan_xl.embeddings import ClassEmbeddings, check_rows
from plugins.systems.stylegan_xl.projection import Projector
from plugins.systems.stylegan_xl.scale_discriminator import ScaleDiscriminator
from registry import Count, CountOrZero, UserError
from stylenat.draws import Draw
from stylenat.networks.layers import given
from stylenat.networks.widths import Width
from stylenat.pixels import SPACES, Name
from stylenat.sampling import in_evaluation

POLICIES = ("color", "translation", "cutout")


class ProjectedNetwork(nn.Module):
    """One backbone, its projector, and a discriminator a scale; backbone and projector are never trained."""

    def __init__(
        self, backbone: nn.Module, projector_width: int, scale: Callable[[int, int], ScaleDiscriminator]
    ) -> None:
        super().__init__()
        self.backbone = backbone.eval().requires_grad_(False)
        self.projector = Projector(backbone.channels, projector_width).requires_grad_(False)
        self.scales = nn.ModuleList(scale(i, width) for i, width in enumerate(self.projector.channels))

    def train(self, mode: bool = True) -> "ProjectedNetwork":
        """The backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, colours: Tensor, labels: Tensor | None) -> Tensor:
        """Colours [batch, 3, side, side] from 0 to 1 to logits [batch, positions of all scales]."""
        mixed = self.projector(self.backbone(colours))
        return torch.cat([scale(x, labels) for scale, x in zip(self.scales, mixed, strict=True)], dim=1)


class ProjectedDiscriminator(nn.Module):
    """Discriminator ``projected``: images through one or more fixed backbones, random mixing of their maps, and a small
    discriminator a scale, whose logits are those of all positions.

    Args:
        resolution: side of the images.
        backbones: classes, such as ``[@deit/backbone.timm, @lite/backbone.timm]``.
        width: of the mixed maps at the finest scale; twice as many at each coarser one.
        channels: of the strided blocks, after that of the finest scale: it has a block an entry, each coarser one a
            block less, the last ones.
        diffaugment: of ``color``, ``translation`` and ``cutout``, with commas between, in training, drawn anew for each
            backbone; empty for none.
        norm_group: images that batch norm normalises together; None for all of a microbatch over all processes. The
            code normalises the images of a GPU.
        num_classes: of a conditional one; label_dim: of its projection. embedding_rows, embedding_dim: of each
            scale's table of classes, whose first rows are the classes; embeddings: file of the values that they begin
            from (``plugins.systems.stylegan_xl.embeddings``), None for random ones.
        pixel_space: of the images, the same as ``train.pixel_space``.
    """

    def __init__(
        self,
        *,
        resolution: Count,
        backbones: Sequence[Callable[..., nn.Module]],
        width: Width = 64,
        channels: Sequence[Width] = (64, 128, 256, 512),
        diffaugment: str = "color,translation,cutout",
        norm_group: Count | None = None,
        num_classes: CountOrZero = 0,
        label_dim: Width = 64,
        embedding_rows: Count = 1000,
        embedding_dim: Width = 320,
        embeddings: str | None = None,
        pixel_space: Name = "symmetric",
    ) -> None:
        super().__init__()
        if not backbones:
            raise UserError("discriminator.projected.backbones is empty; bind it to a list such as [@backbone.timm]")
        self.policy = [name.strip() for name in diffaugment.split(",") if name.strip()]
        if unknown := [name for name in self.policy if name not in POLICIES]:
            raise UserError(
                f"discriminator.projected.diffaugment has no {unknown[0]!r}; there are {', '.join(POLICIES)}"
            )
        if num_classes:
            check_rows("discriminator.projected", num_classes, embedding_rows)
        self.resolution, self.num_classes = resolution, num_classes
        self.embeddings, self.pixel_space = embeddings, pixel_space
        table = (embedding_rows, embedding_dim) if num_classes else None

        def scale(number: int, inputs: int) -> ScaleDiscriminator:
            return ScaleDiscriminator(inputs, list(channels[number:]), norm_group, table, label_dim)

        self.networks = nn.ModuleList(ProjectedNetwork(build(), width, scale) for build in backbones)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(SPACES[pixel_space], name)).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def draws(self) -> dict[str, Draw]:
        """In training: DiffAugment's numbers, for each backbone."""
        if not (self.training and self.policy):
            return {}
        return {f"augmentation{i}": Draw((DRAWS,), "uniform") for i in range(len(self.networks))}

    def forward(self, images: Tensor, labels: Tensor | None = None, **draws: Tensor) -> Tensor:
        """[batch, 3, resolution, resolution] and labels [batch, num_classes] to logits [batch, positions], network by
        network; without draws, without DiffAugment."""
        return torch.cat(list(self._by_network(images, labels, draws)), dim=1)

    @torch.no_grad()
    def logit_sizes(self) -> list[int]:
        """How many of an image's logits are each network's."""
        images = torch.zeros(1, 3, self.resolution, self.resolution, device=self.mean.device)
        labels = images.new_zeros(1, self.num_classes) if self.num_classes else None
        with in_evaluation(self):
            return [logits.shape[1] for logits in self._by_network(images, labels, {})]

    def begin(self) -> dict[str, object] | None:
        """Takes the class embeddings from their file, at the beginning of a run."""
        if self.embeddings is None or not self.num_classes:
            return None
        given_rows = ClassEmbeddings(self.embeddings, "discriminator.projected.embeddings")
        for network in self.networks:
            for scale in network.scales:
                given_rows.into(scale.classes.table)
        return given_rows.record()

    def _by_network(self, images: Tensor, labels: Tensor | None, draws: dict[str, Tensor]) -> Iterator[Tensor]:
        labels = given(labels, self.num_classes) if self.num_classes else None
        colours = images * self.std + self.mean
        for i, network in enumerate(self.networks):
            seen = colours
            if (drawn := draws.get(f"augmentation{i}")) is not None:
                seen = (augmented(2 * colours - 1, drawn, self.policy) + 1) / 2
            yield network(seen, labels)
