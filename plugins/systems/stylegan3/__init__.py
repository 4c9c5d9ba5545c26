"""StyleGAN3 (arXiv 2106.12423): alias-free synthesis, configurations T and R; see docs/systems/stylegan3.md."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    here = "plugins.systems.stylegan3"
    register("generator", "stylegan3", f"{here}.generator:StyleGAN3Generator")
    register("checkpoint_layout", "stylegan3_generator", f"{here}.layout:Generator")
