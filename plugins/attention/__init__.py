"""Backends of the attention operation. The bundled ones are implemented in ``stylenat.attention``."""

from registry import hookimpl


@hookimpl
def stylenat_register(register):
    register("attention", "compiled", "stylenat.attention.compiled:Compiled")
    register("attention", "tiled", "stylenat.attention.tiled:Tiled")
    register("attention", "triton", "stylenat.attention.triton_fused:Triton")
    register("attention", "natten", "stylenat.attention.natten_fused:Natten")
    register("attention", "flex", "stylenat.attention.flex:Flex")
    register("attention", "dense", "stylenat.attention.dense:Dense")
