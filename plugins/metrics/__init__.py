"""Metrics. Those that need no download are the default; FID needs Inception's weights."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("metric", "swd", "plugins.metrics.sliced_wasserstein:SlicedWasserstein")
    register("metric", "frechet_random_features", "plugins.metrics.frechet:FrechetRandomFeatures")
    register("metric", "fid", "plugins.metrics.frechet:FID")
