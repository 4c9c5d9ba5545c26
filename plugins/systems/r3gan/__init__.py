"""R3GAN (arXiv 2501.05441): networks, relativistic pairing loss, augmentation with a scheduled strength, layouts."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("generator", "r3gan", "plugins.systems.r3gan.generator:R3Generator")
    register("discriminator", "r3gan", "plugins.systems.r3gan.discriminator:R3Discriminator")
    register("loss", "relativistic", "plugins.systems.r3gan.loss:Relativistic")
    register("augmentation", "r3gan", "plugins.systems.r3gan.augmentation:ScheduledAugmentation")
    register("checkpoint_layout", "r3gan", "plugins.systems.r3gan.layout:GeneratorLayout")
    register("checkpoint_layout", "r3gan_pickle", "plugins.systems.r3gan.layout:PickledGeneratorLayout")
    register("checkpoint_layout", "r3gan_discriminator", "plugins.systems.r3gan.layout:DiscriminatorLayout")
    register(
        "checkpoint_layout", "r3gan_discriminator_pickle", "plugins.systems.r3gan.layout:PickledDiscriminatorLayout"
    )
