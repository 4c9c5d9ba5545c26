"""Every system's generator becomes a graph of standard operations that draws the same images for any batch."""

from importlib.util import find_spec

import pytest
from weights_folders import weights_folder

from stylenat.commands.export import _onnx
from stylenat.exporting import agreement, graphs_of, program_of
from stylenat.trained import opened

EIGHT = ["generator.style.resolution = 8", "discriminator.wavelet.resolution = 8", "dataset.lfw_faces.resolution = 8"]
SYSTEMS = {  # StyleNAT's is in test_export.py.
    "shifted windows": (
        "quickstart.gin",
        *EIGHT,
        "generator.style.block = @block.swin",
        "block.swin.window = 4",
        "block.swin.full_resolution = 4",
    ),
    "full attention": ("quickstart.gin", *EIGHT, "generator.style.block = @block.attention"),
    "stylegan2": ("stylegan2_quickstart.gin", "SIDE = 8", "generator.stylegan2.channel_base = 64"),
    "stylegan3": ("stylegan3_quickstart.gin", "generator.stylegan3.num_layers = 4"),
    "stylegan_xl": ("stylegan_xl_faces8.gin", "generator.stylegan_xl.stem_layers = 4"),
    "r3gan": ("r3gan_quickstart.gin", "generator.r3gan.channels = [8, 8, 8]"),
    "hit": ("hit_quickstart.gin", "generator.hit.channels = [8, 8]"),
}
ONNX = all(map(find_spec, ("onnx", "onnxscript", "onnxruntime")))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("onnx", [False, pytest.param(True, marks=pytest.mark.slow)])  # Half a minute for all.
def test_a_graph_for_any_batch_draws_the_networks_images(system, onnx, tmp_path):
    if onnx and not ONNX:
        pytest.skip("needs onnx, onnxscript and onnxruntime")
    found = opened(weights_folder(tmp_path / "model", *SYSTEMS[system]))
    graph = graphs_of(found)[-1]
    assert graph.output == "images"
    program = program_of(found, graph, None)
    call = _onnx(program, graph, tmp_path, None)[1] if onnx else program.module()
    assert agreement(found, [graph], {graph.name: call}, [1, 3])[graph.name] < 1e-4
