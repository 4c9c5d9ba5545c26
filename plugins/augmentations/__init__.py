"""Augmentations of the discriminator's images."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("augmentation", "none", "plugins.augmentations.none:NoAugmentation")
    register("augmentation", "ada", "plugins.augmentations.ada:AdaptiveAugmentation")
    register("augmentation", "diffaugment", "plugins.augmentations.diffaugment:DiffAugment")
    register("augmentation", "bcr", "plugins.augmentations.bcr:BalancedConsistencyTransforms")
    register("augmentation", "blur", "plugins.augmentations.blur:FadingBlur")
