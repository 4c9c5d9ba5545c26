"""Networks from images to feature maps, for projected discriminators and classifier guidance."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("backbone", "convolution", "plugins.backbones.convolution:Convolution")
    register("backbone", "timm", "plugins.backbones.timm_networks:TimmBackbone")
