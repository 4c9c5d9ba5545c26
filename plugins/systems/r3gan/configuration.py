"""Networks from the configurations of R3GAN's own code, whose lists begin at 4x4 for G and at the image for D."""

from collections.abc import Mapping
from typing import Any

from plugins.checkpoint_layouts.configurations import Options
from plugins.systems.r3gan.discriminator import R3Discriminator
from plugins.systems.r3gan.generator import R3Generator
from registry import UserError


def generator(config: Mapping[str, Any]) -> R3Generator:
    """Raises UserError for an option that is missing, unknown or not built here."""
    take = Options(config, "generator")
    sizes = _sizes(take, from_image=False)
    network = R3Generator(latent_dim=take("NoiseDimension"), **sizes, **_labels(take, 64))
    take.done()
    return network


def discriminator(config: Mapping[str, Any]) -> R3Discriminator:
    """Raises UserError for an option that is missing, unknown or not built here."""
    take = Options(config, "discriminator")
    sizes = _sizes(take, from_image=True)
    network = R3Discriminator(**sizes, **_labels(take, None))
    take.done()
    return network


def _sizes(take: Options, from_image: bool) -> dict[str, Any]:
    widths, groups, blocks = (list(take(f"{name}PerStage")) for name in ("Width", "Cardinality", "Blocks"))
    if len({len(widths), len(groups), len(blocks)}) > 1:
        raise UserError(
            f"the configuration's {take.what} has {len(widths)} widths, {len(groups)} cardinalities and {len(blocks)} "
            "numbers of blocks; a recorded configuration has one of each for every stage"
        )
    take.only("ResamplingFilter", [1, 2, 1], (1, 2, 1))
    low = list(take("FP16Stages", ()))
    largest = list(range(len(low)) if from_image else range(-1, -len(low) - 1, -1))
    if sorted(low) != sorted(largest):
        raise UserError(
            f"the configuration's {take.what}.FP16Stages = {low} is not built here, only the largest resolutions: "
            f"{largest}"
        )
    order = -1 if from_image else 1
    return {
        "resolution": 2 << len(widths),
        "channels": widths[::order],
        "cardinality": groups[::order],
        "blocks": blocks[::order],
        "expansion": take("ExpansionFactor", 2),
        "kernel_size": take("KernelSize", 3),
        "bf16_resolutions": len(low),
    }


def _labels(take: Options, default: int | None) -> dict[str, Any]:
    classes, label_dim = take("ConditionDimension", None), take("ConditionEmbeddingDimension", default)
    found = {"num_classes": classes or 0}
    return found if label_dim is None else found | {"label_dim": label_dim}
