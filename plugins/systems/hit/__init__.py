"""HiT: Improved Transformer for High-Resolution GANs (Zhao et al., arXiv 2106.07631). docs/systems/hit.md."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("generator", "hit", "plugins.systems.hit.generator:HiT")
    register("discriminator", "hit", "plugins.systems.hit.discriminator:HiTDiscriminator")
    register("regularizer", "hit_bcr", "plugins.systems.hit.consistency:Consistency")
    register("checkpoint_layout", "hit", "plugins.systems.hit.layout:GeneratorLayout")
    register("checkpoint_layout", "hit_discriminator", "plugins.systems.hit.layout:DiscriminatorLayout")
