"""Image embeddings for metrics."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("features", "random_convolution", "plugins.features.random_convolution:RandomConvolution")
    register("features", "inception", "plugins.features.inception:Inception")
    register("features", "dinov2", "plugins.features.dinov2:Dinov2")
