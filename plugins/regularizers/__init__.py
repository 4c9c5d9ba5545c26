"""Regularizers: extra terms of one network's loss."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("regularizer", "r1", "plugins.regularizers.r1:R1")
    register("regularizer", "bcr", "plugins.regularizers.bcr:BalancedConsistency")
