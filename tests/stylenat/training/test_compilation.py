"""Networks are traced as one graph each, with attention as an operator in it; what cannot be compiled is refused."""

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from registry import UserError, load_experiment
from stylenat.commands._plugins import loaded_plugins
from stylenat.commands.run import main
from stylenat.training import compilation
from stylenat.training.state import TrainingState

GIN = Path(__file__).parents[3] / "gin"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def registry():
    return loaded_plugins([])


class Traced:
    """A backend of torch.compile that runs what was traced as it is and keeps the graph."""

    def __init__(self):
        self.graphs = []

    def __call__(self, graph, inputs):
        parts = [part for part in graph.modules() if isinstance(part, torch.fx.GraphModule)]
        self.graphs.append([str(node.target) for part in parts for node in part.graph.nodes])
        return graph.forward


def pretended(network, mode):
    """The network with parameters that have shapes, types and a CUDA device, and no numbers."""
    for module in network.modules():
        for held in (module._parameters, module._buffers):
            for name, value in held.items():
                if value is not None:
                    moved = mode.from_tensor(value).detach().to("cuda:0")
                    held[name] = torch.nn.Parameter(moved) if isinstance(value, torch.nn.Parameter) else moved
    return network


@pytest.mark.parametrize(
    "file", ["ffhq256.gin", pytest.param("styleswin_ffhq256.gin", marks=pytest.mark.slow), "digits.gin"]
)
def test_both_networks_of_shipped_experiments_are_one_graph_each_on_cuda(file, registry, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    bindings = [] if file == "digits.gin" else ["SIDE = 16"]
    settings = load_experiment(registry, [str(GIN / file)], bindings, search_path=[GIN]).get("train")()
    mode, traced = FakeTensorMode(), Traced()
    generator, discriminator = settings.generator(), settings.discriminator()
    labels = () if file != "digits.gin" else (torch.eye(10)[:2],)
    torch.compiler.reset()
    with mode:
        compiled = [
            torch.compile(pretended(network, mode), backend=traced, fullgraph=True)
            for network in (generator, discriminator)
        ]
        labels = tuple(mode.from_tensor(value).to("cuda:0") for value in labels)
        latents = torch.empty(2, generator.latent_dim, device="cuda:0")
        images = compiled[0](latents, *labels)
        logits = compiled[1](images.detach(), *labels)
    assert images.shape[1:] == (3, generator.resolution, generator.resolution) and str(logits.device) == "cuda:0"
    assert len(traced.graphs) == 2
    attention = sum("grouped_attention" in name for name in traced.graphs[0])
    layers = sum(
        hasattr(module, "relative_position_bias") and hasattr(module, "groups") for module in generator.modules()
    )
    assert attention == layers and (layers > 0) is (file != "styleswin_ffhq256.gin")
    # AdaIN is plain operations, which the compiler joins with those around them.
    assert any("var_mean" in name for name in traced.graphs[0])
    assert not any("modulated_norm" in name for graph in traced.graphs for name in graph)


def test_a_graph_on_a_cpu_gives_the_same_image_and_gradients(experiment):
    state, traced = TrainingState(experiment(), CPU), Traced()
    latents = torch.randn(2, 8)
    torch.compiler.reset()
    compiled = torch.compile(state.generator, backend=traced, fullgraph=True)
    found = []
    for network in (state.generator, compiled):
        state.generator.zero_grad()
        image = network(latents)
        image.square().sum().backward()
        found.append([image.detach(), *(p.grad.clone() for p in state.generator.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(traced.graphs) == 1 and any("stylenat.grouped_attention" in name for name in traced.graphs[0])


@pytest.mark.slow
def test_inductor_takes_both_networks_as_one_graph(experiment):
    state = TrainingState(experiment(), CPU)
    torch.compiler.reset()
    image = torch.compile(state.generator, fullgraph=True)(torch.zeros(8, 8))
    torch.testing.assert_close(image, state.generator(torch.zeros(8, 8)), rtol=1e-4, atol=1e-5)
    torch.compile(state.discriminator, fullgraph=True)(image).sum().backward()


def test_what_cannot_be_compiled_here_is_refused_in_one_line(experiment, monkeypatch):
    with pytest.raises(UserError, match="is for CUDA, and the run is on cpu"):
        compilation.check_compilation(experiment(cuda_graphs=True, compile="inductor", device="auto"), CPU)
    for compiler in ("/nonexistent/g++", "false", "true", "g++ -nostdinc", "'"):
        monkeypatch.setenv("CXX", compiler)
        with pytest.raises(UserError, match="needs a compiler on this machine and Python's headers, and CXX = "):
            compilation.check_compilation(experiment(compile="inductor"), CPU)
    compilation.check_compilation(experiment(compile="aot_eager"), CPU)
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    compilation.check_compilation(experiment(compile=None), CPU)
    with pytest.raises(UserError, match="TORCH_COMPILE_DISABLE=1 in the environment switches compilation off"):
        compilation.check_compilation(experiment(compile="aot_eager"), CPU)
    monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    monkeypatch.setenv("CXX", "g++ -O0")
    compilation.check_compilation(experiment(compile="inductor"), CPU)


def test_settings_that_contradict_each_other_are_refused_on_any_machine(experiment):
    with pytest.raises(UserError, match="cuda_graphs needs train.compile = 'inductor'"):
        experiment(cuda_graphs=True)
    with pytest.raises(UserError, match="cuda_graphs is for CUDA, and train.device is 'cpu'"):
        experiment(cuda_graphs=True, compile="inductor", device="cpu")


def test_graphs_are_asked_of_inductor_and_their_outputs_are_copied(experiment, monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda network, **options: asked.update(options) or network)
    state = TrainingState(experiment(compile="inductor", cuda_graphs=True), CPU)
    assert asked["options"] == {"triton.cudagraphs": True} and asked["dynamic"] is False
    kept = torch.zeros(2, 3, 8, 8)
    state.generate._call = lambda *inputs: kept
    assert state.generate(torch.zeros(2, 8)).data_ptr() != kept.data_ptr()


HOOKED = """
from registry import hookimpl


@hookimpl
def run_started(run):
    run.networks["generator"].stages[0].register_forward_hook(lambda *_: None)
"""


def test_a_forward_hook_on_a_compiled_network_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "hooked.py").write_text(HOOKED)
    arguments = [*tiny, "--plugin", "hooked.py", "--run-dir", "run"]
    assert main([*arguments, "--bind", "train.compile = 'aot_eager'"]) == 2
    assert "a hook on generator.stages.0, and compiled networks call no hooks" in capsys.readouterr().err
