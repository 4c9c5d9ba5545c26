"""With ``train.deterministic`` no operator that sums in varying order on CUDA runs in a step."""

from itertools import repeat

import pytest
import torch
from pretended_gpu import pretended_gpu
from torch.utils._python_dispatch import TorchDispatchMode

from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.augmentations.bands import reflected
from plugins.augmentations.diffaugment import DiffAugment
from plugins.augmentations.warp import _Warp
from plugins.regularizers.bcr import BalancedConsistency
from plugins.regularizers.gradient_penalty import R1
from registry import UserError, load_experiment, load_plugins
from stylenat.commands._command import ASIDE, CORE, experiments_folder
from stylenat.commands.run import main
from stylenat.pixels import to_networks
from stylenat.training import launch
from stylenat.training.determinism import check_determinism, deterministic
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration

# "torch.use_deterministic_algorithms" names these as raising, as of PyTorch 2.14; others change their algorithm.
RAISING = (
    "grid_sampler_2d_backward grid_sampler_3d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward "
    "upsample_linear1d_backward upsample_trilinear3d_backward upsample_nearest1d_backward reflection_pad1d_backward "
    "reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward "
    "replication_pad3d_backward adaptive_avg_pool2d_backward _adaptive_avg_pool2d_backward "
    "adaptive_max_pool2d_backward fractional_max_pool2d_backward max_pool3d_with_indices_backward avg_pool3d_backward "
    "max_unpool2d max_unpool3d _ctc_loss _ctc_loss_backward embedding_bag _embedding_bag nll_loss2d median "
    "histc bincount kthvalue put_ resize_ _scaled_dot_product_flash_attention_backward"
).split()


NARROW = [
    "SIDE = 16",
    "train.batch_size = 4",
    "train.accumulate = 1",
    "train.precision = 'float32'",
    "train.initial_weights = None",
    "train.trackers = []",
    "generator.style.channels = [16, 16, 16]",
    "generator.style.min_heads = 2",
    "discriminator.wavelet.channels = [8, 8]",
    "generator.stylegan2.channel_base = 256",
    "generator.stylegan3.channel_base = 256",
    "discriminator.stylegan2.channel_base = 256",
    "generator.r3gan.channels = [32, 32, 32]",
    "discriminator.r3gan.channels = [32, 32, 32]",
    "generator.r3gan.cardinality = [2, 2, 2]",
    "discriminator.r3gan.cardinality = [2, 2, 2]",
    "generator.hit.channels = [64, 64]",
    "generator.hit.layers = [1]",
    "generator.hit.heads = [4]",
    "generator.hit.latent_dim = 64",
    "discriminator.hit.channels = [64, 48, 24]",
]


class Images:
    resolution = 16

    def __init__(self, num_classes):
        self.num_classes = num_classes

    def __len__(self):
        return 1000

    def label(self, index):
        return index % self.num_classes

    def describe(self):
        return "images"


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("augmentation", ["ada", "diffaugment"])
def test_no_operator_of_a_step_varies(experiment, augmentation):
    ada = AdaptiveAugmentation("bgcfnc", initial_p=0.6)
    settings = experiment(
        augmentation=ada if augmentation == "ada" else DiffAugment(),
        regularizers=[R1(interval=4), BalancedConsistency()],
    )
    with pretended_gpu(), deterministic(True):
        state = TrainingState(settings, torch.device("cuda", 0))
        for step in range(2):
            images = torch.stack([settings.dataset[8 * step + i] for i in range(8)]).to("cuda")
            with Seen() as seen:
                iteration(state, iter([(to_networks(images), None)]))
            state.step += 1
            assert "convolution_backward" in seen.names
            assert not seen.names & set(RAISING)


def test_no_operator_of_any_shipped_experiments_steps_varies():
    """One of each kind: its networks, terms and augmentation, at 16x16 and narrow, every penalty due."""
    registry, seen_kinds = load_plugins(core=CORE, aside=ASIDE), set()
    for path in sorted(experiments_folder().glob("*.gin")):
        if "include 'base/stylegan_xl.gin'" in path.read_text():
            continue  # Its backbones are in timm, which may not be here; the small StyleGAN-XL has the rest.
        settings = load_experiment(registry, [path], NARROW, search_path=[path.parent]).get("train")()
        if settings.augmentation.__class__ is AdaptiveAugmentation:
            settings.augmentation = AdaptiveAugmentation("bgcfnc", initial_p=0.6)
        count = getattr(settings.generator(), "num_classes", 0)
        settings.dataset = Images(count)
        with pretended_gpu(), deterministic(True):
            state = TrainingState(settings, torch.device("cuda", 0))
            state.find_classes()
            parts = state.generator, *state.generator.modules(), state.discriminator, settings.augmentation
            kind = frozenset(map(type, (*parts, *settings.regularizers, settings.loss, settings.recipe)))
            if kind in seen_kinds:
                continue
            seen_kinds.add(kind)
            images, labels = to_networks(torch.zeros(4, 3, 16, 16, dtype=torch.uint8)).to("cuda"), None
            if count:
                labels = torch.eye(count)[[0, 1, 2, 3]].to("cuda")
            with Seen() as seen:
                iteration(state, repeat((images, labels)))
        assert "convolution_backward" in seen.names
        assert not seen.names & set(RAISING), path
    assert len(seen_kinds) >= 8


def test_the_deterministic_adjoint_of_sampling_is_pytorchs():
    random = torch.Generator().manual_seed(0)
    grid = 5 * torch.rand(2, 7, 6, 2, generator=random, dtype=torch.float64) - 2.5  # Reflected more than once.
    images = torch.randn(2, 3, 5, 4, generator=random, dtype=torch.float64, requires_grad=True)
    found = []
    for asked in (False, True):
        with deterministic(asked):
            out = _Warp.apply(images, grid)
            (slope,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
            (second,) = torch.autograd.grad(slope.square().sum(), images)
        found.append((slope.detach(), second))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_deterministic_reflection_is_that_of_padding():
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for asked in (False, True):
        with deterministic(asked):
            wide = reflected(images, 11)
            (slope,) = torch.autograd.grad((wide * torch.arange(27.0)).square().sum(), images)
        found += [(wide.detach(), slope)]
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-12, atol=1e-9)


def test_what_varies_is_refused(monkeypatch):
    with pytest.raises(UserError, match="backend 'flex' sums the gradient of its bias"):
        check_determinism(True, {"flex"}, torch.device("cuda"))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":1:1")
    with pytest.raises(UserError, match="CUBLAS_WORKSPACE_CONFIG to be :4096:8 or :16:8; it is ':1:1'"):
        check_determinism(True, set(), torch.device("cuda"))
    check_determinism(True, set(), torch.device("cpu"))
    with pytest.raises(UserError, match="put_ has no deterministic form; leave out"), deterministic(True):
        raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_varies_is_refused_before_the_run_folder_is_made(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "attention_backends", lambda *networks: {"flex"})
    assert main([*tiny, "--run-dir", "run", "--bind", "train.deterministic = True"]) == 2
    assert "sums the gradient of its bias" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_run_is_deterministic_if_asked_and_no_longer_afterwards(tiny, tmp_path):
    (tmp_path / "asks.py").write_text(
        "import torch\nfrom registry import hookimpl\n\n\n@hookimpl\ndef step_ended(run, step, scalars):\n"
        "    assert torch.are_deterministic_algorithms_enabled()\n"
    )
    assert main([*tiny, "--plugin", "asks.py", "--run-dir", "run", "--bind", "train.deterministic = True"]) == 0
    assert not torch.are_deterministic_algorithms_enabled()
