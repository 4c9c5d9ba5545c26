"""Regularizers: extra terms of one network's loss."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("regularizer", "r1", "plugins.regularizers.gradient_penalty:R1")
    register("regularizer", "r2", "plugins.regularizers.gradient_penalty:R2")
    register("regularizer", "bcr", "plugins.regularizers.bcr:BalancedConsistency")
    register("regularizer", "path_length", "plugins.regularizers.path_length:PathLength")
