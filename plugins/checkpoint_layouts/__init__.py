"""How the published systems name their weights: StyleNAT in its two layouts, StyleSwin, and their discriminator."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("checkpoint_layout", "stylenat", "plugins.checkpoint_layouts.generators:StyleNAT")
    register("checkpoint_layout", "stylenat_older", "plugins.checkpoint_layouts.generators:OlderStyleNAT")
    register("checkpoint_layout", "styleswin", "plugins.checkpoint_layouts.generators:StyleSwin")
    register("checkpoint_layout", "wavelet", "plugins.checkpoint_layouts.discriminators:Wavelet")
