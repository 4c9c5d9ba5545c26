"""Generators; the published one is the core's."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("generator", "style", "stylenat.networks.generator:StyleGenerator")
