"""StyleGAN2 (arXiv 1912.04958) with the details of StyleGAN2-ADA (arXiv 2006.06676); see docs/systems/stylegan2.md."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    here = "plugins.systems.stylegan2"
    register("generator", "stylegan2", f"{here}.generator:StyleGAN2Generator")
    register("discriminator", "stylegan2", f"{here}.discriminator:StyleGAN2Discriminator")
    register("recipe", "stylegan2", f"{here}.recipe:GeneratorFirst")
    register("checkpoint_layout", "stylegan2_ada_generator", f"{here}.layout_ada:Generator")
    register("checkpoint_layout", "stylegan2_ada_discriminator", f"{here}.layout_ada:Discriminator")
    register("checkpoint_layout", "stylegan2_rosinality_generator", f"{here}.layout_rosinality:Generator")
    register("checkpoint_layout", "stylegan2_rosinality_discriminator", f"{here}.layout_rosinality:Discriminator")
