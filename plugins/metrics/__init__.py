"""Metrics. Those that need no download are the default; the others need an extractor's weights."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("metric", "swd", "plugins.metrics.sliced_wasserstein:SlicedWasserstein")
    register("metric", "spectrum", "plugins.metrics.spectrum:Spectrum")
    register("metric", "frechet_random_features", "plugins.metrics.frechet:FrechetRandomFeatures")
    register("metric", "fid", "plugins.metrics.frechet:FID")
    register("metric", "fd_dinov2", "plugins.metrics.frechet:FDDinov2")
    register("metric", "kid", "plugins.metrics.kernel:KID")
    register("metric", "precision_recall", "plugins.metrics.manifold:PrecisionRecall")
    register("metric", "density_coverage", "plugins.metrics.manifold:DensityCoverage")
    register("metric", "inception_score", "plugins.metrics.inception_score:InceptionScore")
    register("metric", "ppl", "plugins.metrics.path_length:PerceptualPathLength")
    register("metric", "equivariance_translation", "plugins.metrics.equivariance:EquivarianceTranslation")
    register("metric", "equivariance_rotation", "plugins.metrics.equivariance:EquivarianceRotation")
