"""What the page of ``tools/serve.py`` shows, from the values of its controls. Knows nothing of the page."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from registry import UserError
from stylenat.attention.shown import shows_attention
from stylenat.commands._attention_figure import Group
from stylenat.commands.attention_maps import of_image
from stylenat.commands.interpolate import of_walks
from stylenat.sampling import Sampler, for_all_layers, is_style_based, mean_style
from stylenat.trained import Opened
from stylenat.walks import linear, mixed


@dataclass(frozen=True)
class Choice:
    """What is to be drawn.

    Attributes:
        seed, other: sample indices; psi: truncation; number: the class, None for one drawn as in the data.
        amount: how far the styles ``first`` to ``last`` are moved from the seed's to the other's, 0 to 1.
    """

    seed: int = 0
    psi: float = 1.0
    number: int | None = None
    other: int = 1
    amount: float = 0.0
    first: int = 0
    last: int = 0


class Viewer:
    """A trained generator, one image at a time.

    Attributes:
        num_styles: 0 for a generator without styles; class_names: empty without classes.
        psi: the truncation of the training's own samples.
        layers: number and side of each attention layer that shows its maps, in the order of the computation.

    Raises:
        NotFinite: of a generator whose images are.
    """

    def __init__(self, opened: Opened) -> None:
        self.generator, self.resolution = opened.generator, opened.generator.resolution
        self.num_styles: int = opened.generator.num_styles if is_style_based(opened.generator) else 0
        self.class_names = opened.classes.names if opened.classes is not None else ()
        self.psi = opened.truncation_psi
        centre = mean_style(opened.generator, classes=opened.classes) if self.num_styles else None
        self._sampler = replace(opened.sampler(1.0, batch=1), centre=centre)
        self.layers: dict[int, int] = {}
        if any(map(shows_attention, self.generator.modules())):
            self.layers = {group.layer: group.side for group in self.attention(Choice(), (0, 0))[1]}

    def image(self, choice: Choice) -> Tensor:
        """uint8 [3, resolution, resolution]. Raises UserError for a choice that does not fit, and NotFinite."""
        sampler = self._sampler_of(choice)
        if not choice.amount:
            return sampler.images(range(choice.seed, choice.seed + 1))[0].cpu()  # As tools/sample.py draws it.
        if choice.first > choice.last:
            raise UserError(f"the first mixed style is {choice.first}, and the last {choice.last}")
        own, other = for_all_layers(sampler.styles_at([choice.seed, choice.other]), self.generator)
        moved = linear(own, other, torch.tensor(choice.amount, device=own.device))
        return sampler.of_styles(mixed(own, moved, list(range(choice.first, choice.last + 1)))[None])[0].cpu()

    def attention(self, choice: Choice, pixel: tuple[int, int]) -> tuple[Tensor, list[Group]]:
        """The image, and what each group of heads looks at from the token over a pixel (row, column)."""
        return of_image(self.generator, lambda: self.image(choice), pixel)

    def walk(self, choice: Choice, frames: int) -> Iterator[Tensor]:
        """From the seed to the other and back, 2 * frames images uint8 [3, resolution, resolution]: linear in w, or
        spherical in z for a generator without styles. Without mixing."""
        space, method = ("w", "linear") if self.num_styles else ("z", "spherical")
        seeds = [[choice.seed, choice.other]]
        for images in of_walks(self._sampler_of(choice), seeds, frames, True, space, method, None):
            yield images[0].cpu()

    def _sampler_of(self, choice: Choice) -> Sampler:
        sampler = replace(self._sampler, truncation_psi=choice.psi)
        return sampler if choice.number is None else sampler.of_class(choice.number)
