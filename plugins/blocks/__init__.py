"""Generator blocks."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("block", "hydra", "plugins.blocks.hydra:HydraBlock")
    register("block", "swin", "plugins.blocks.swin:SwinBlock")
    register("block", "attention", "plugins.blocks.windowed:AttentionBlock")
    register("block", "convolution", "plugins.blocks.convolution:ConvolutionBlock")
