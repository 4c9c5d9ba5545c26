"""Recipe ``stylegan2``: the order of StyleGAN2's training loop."""

from collections.abc import Sequence
from dataclasses import replace

from stylenat.interfaces import Regularizer, Step
from stylenat.training.step import lazy_steps, main_phase


class GeneratorFirst:
    """Recipe ``stylegan2``: the generator, its lazy regularizers, the discriminator, its lazy regularizers; each of the
    first three has latents of its own (StyleGAN2-ADA's phases Gmain, Greg, Dmain, Dreg)."""

    def steps(self, regularizers: Sequence[Regularizer]) -> list[Step]:
        generator, discriminator = (main_phase(name, regularizers) for name in ("generator", "discriminator"))
        return [
            Step((generator,), new_images=True, new_latents=True),
            *(replace(step, new_latents=True) for step in lazy_steps("generator", regularizers)),
            Step((discriminator,), new_latents=True),
            *lazy_steps("discriminator", regularizers),
        ]
