"""Precision, compilation, recomputation and memory format change how a result is found, within their tolerance."""

import pytest
import torch

from plugins.regularizers.gradient_penalty import R1
from stylenat.pixels import to_networks
from stylenat.training.forward import Running, use_tf32
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

STEPS, CPU = 3, torch.device("cpu")


def trained(settings):
    """A state after three iterations with R1, bCR, path lengths and ADA, and the scalars of each."""
    state = TrainingState(settings, CPU)
    for scaler in state.scalers.values():
        scaler._init_scale = 64.0  # Nothing overflows, no step is lost.
    history = []
    for step in range(STEPS):
        images = torch.stack([settings.dataset[8 * step + i] for i in range(8)])
        scalars = iteration(state, iter([(to_networks(images), None)]))
        history.append({name: float(value) for name, value in scalars.items()})
        state.step += 1
    return state, history


@pytest.fixture(scope="module")
def plain(experiment):
    return trained(experiment())


def assert_alike(one, other, weight, scalar):
    """Every weight to within ``weight``, every scalar to within ``scalar`` of its size; in float32 and of one name."""
    (state, history), (plain_state, plain_history) = one, other
    for name, network in state.networks().items():
        ours, theirs = network.state_dict(), plain_state.networks()[name].state_dict()
        assert ours.keys() == theirs.keys() and all(value.dtype == torch.float32 for value in ours.values())
        for key, _ in network.named_parameters():
            where = f"{name}.{key}: "
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=weight, msg=lambda m, w=where: w + m)
    for ours, theirs in zip(history, plain_history, strict=True):
        assert ours == pytest.approx(theirs, rel=scalar, abs=scalar)


@pytest.mark.parametrize("options", [{"channels_last": True}, {"activation_checkpointing": True}])
def test_memory_options_change_nothing_but_rounding(experiment, plain, options):
    assert_alike(trained(experiment(**options)), plain, 1e-5, 1e-4)


def test_recomputed_stages_keep_no_activations(experiment):
    def kept(**options):
        state, total = TrainingState(experiment(**options), CPU), []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: total.append(x.numel()) or x, lambda x: x)
        with hooks:
            state.discriminate(state.generate(torch.zeros(8, 8)))
        return sum(total)

    assert kept(activation_checkpointing=True) < 0.5 * kept()


@pytest.mark.parametrize("precision, tolerance", [("bf16", 0.1), ("fp16", 0.02)])
def test_half_precision_stays_within_its_rounding(experiment, plain, precision, tolerance):
    found = trained(experiment(precision=precision))
    # Adam without momentum moves a weight by up to the learning rate, 1e-3, whatever the size of its gradient.
    assert_alike(found, plain, 2 * STEPS * 1e-3, tolerance)
    assert found[1] != plain[1]


def test_an_overflow_in_fp16_skips_the_step_and_lowers_the_scale(experiment):
    settings = experiment(precision="fp16")
    state = TrainingState(settings, CPU)
    before = {k: v.clone() for k, v in state.discriminator.named_parameters()}
    state.scalers["discriminator"]._init_scale = 2.0**40
    images = to_networks(torch.stack([settings.dataset[i] for i in range(8)]))
    state.step = 1  # Without R1, whose float32 gradient would not overflow.
    iteration(state, iter([(images, None)]))
    assert all(torch.equal(value, before[key]) for key, value in state.discriminator.named_parameters())
    saved = state.state_dict()
    assert saved["scalers"]["discriminator"]["scale"] == 2.0**39

    resumed = TrainingState(settings, CPU)
    resumed.load_state_dict(saved)
    assert resumed.scalers["discriminator"].get_scale() == 2.0**39
    saved.pop("scalers")  # A checkpoint from before there were any.
    TrainingState(settings, CPU).load_state_dict(saved)


def test_compiled_networks_train_alike_and_penalties_on_gradients_still_work(experiment, plain):
    """With the backend that traces everything but generates no code; inductor's own test is marked ``slow``."""
    assert_alike(trained(experiment(compile="aot_eager")), plain, 1e-5, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"compile": "inductor"}, {"compile": "aot_eager", "activation_checkpointing": True}]
)
def test_networks_compiled_by_inductor_or_recomputed_train_alike(experiment, plain, options):
    assert_alike(trained(experiment(**options)), plain, 1e-5, 1e-4)


def test_tf32_is_said_to_the_libraries_and_changes_nothing_on_a_cpu():
    x = torch.randn(64, 64)
    exact = x @ x
    use_tf32(True)
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    assert torch.equal(x @ x, exact)
    use_tf32(False)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32


def test_running_buffers_are_those_of_the_spectral_norm_and_can_be_put_back(experiment):
    network = TrainingState(experiment(), CPU).discriminator
    running = Running(network)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.zeros(4, 3, 8, 8))
    moved = {name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved and all(name.endswith((".u", ".v")) for name in moved)
    running.restore()
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())


@pytest.mark.parametrize("own_step", [True, False])
def test_penalties_on_gradients_are_in_float32(experiment, own_step):
    """In a step of their own, and as terms of the main loss, whose logits they reuse."""

    def first(**changed):
        penalty = R1(interval=1, own_step=own_step)
        settings = experiment(regularizers=[penalty], discriminator_learning_rate=0.0, **changed)
        images = to_networks(torch.stack([settings.dataset[i] for i in range(8)]))
        return float(iteration(TrainingState(settings, CPU), iter([(images, None)]))["regularizer/r1"])

    assert first(precision="bf16") == pytest.approx(first(), rel=1e-5)
