"""Discriminators; the published one is the core's."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("discriminator", "wavelet", "stylenat.networks.discriminator:WaveletDiscriminator")
