"""StyleGAN-XL (arXiv 2202.00273), grown stage by stage, with a projected discriminator; docs/systems/stylegan_xl.md."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    here = "plugins.systems.stylegan_xl"
    register("generator", "stylegan_xl", f"{here}.generator:StyleGANXLGenerator")
    register("discriminator", "projected", f"{here}.discriminator:ProjectedDiscriminator")
    register("loss", "projected_hinge", f"{here}.loss:ProjectedHinge")
    register("regularizer", "classifier_guidance", f"{here}.guidance:ClassifierGuidance")
    register("checkpoint_layout", "stylegan_xl_discriminator", f"{here}.layout_discriminator:Discriminator")
    register("checkpoint_layout", "stylegan_xl_generator", f"{here}.layout:Generator")
