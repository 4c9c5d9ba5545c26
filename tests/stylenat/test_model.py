"""``stylenat.load``: a trained model in one line, with the images of ``tools/sample.py``."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from weights_folders import weights_folder

import stylenat
from registry import UserError
from stylenat import checkpoint
from stylenat.classes import Classes
from stylenat.commands.sample import main as sample
from stylenat.weights import check_finite

CONDITIONAL = ["generator.style.num_classes = 3", "discriminator.wavelet.num_classes = 3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return weights_folder(tmp_path_factory.mktemp("weights") / "model")


@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_samples_are_those_of_the_command_in_any_order(folder, tmp_path, psi):
    argv = [str(folder), "--seeds", "0-20", "--truncation-psi", str(psi), "--out", str(tmp_path / "out")]
    assert sample(argv) == 0
    images = stylenat.load(folder).sample([17, 3, 17], psi=psi)
    assert images.dtype == torch.uint8 and images.shape == (3, 3, 16, 16)
    for image, seed in zip(images, [17, 3, 17], strict=True):
        drawn = np.asarray(Image.open(tmp_path / f"out/seed-{seed:06d}.png"))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), drawn)


def test_mapping_and_synthesis_make_the_same_images_and_have_gradients(folder):
    model = stylenat.load(folder)
    styles = model.mapping(model.latents([5, 2])).requires_grad_()
    images = model.synthesis(styles)
    rounded = images.detach().round().clamp(0, 255).to(torch.uint8)
    assert (rounded.int() - model.sample([5, 2]).int()).abs().max() <= 1
    wide = styles[:, None].expand(-1, model.num_styles, -1)
    torch.testing.assert_close(model.synthesis(wide), images)
    images.sum().backward()
    assert styles.grad.abs().sum() > 0
    assert all(not p.requires_grad for p in model.generator.parameters())


@pytest.mark.parametrize("gin", ["stylegan2_quickstart.gin", "r3gan_quickstart.gin", "hit_quickstart.gin"])
def test_every_system_is_loaded_the_same_way(gin, tmp_path):
    model = stylenat.load(weights_folder(tmp_path / "model", gin))
    assert model.sample(range(3)).shape == (3, 3, 16, 16)
    if model.num_styles is None:
        with pytest.raises(ValueError, match="has no styles; use sample"):
            model.mapping(model.latents(0))
        with pytest.raises(UserError, match="has no styles to truncate"):
            model.sample(0, psi=0.5)


def test_classes_are_those_that_are_asked_for(tmp_path):
    classes = Classes((3, 4, 5), ("cat", "dog", "cow"))
    model = stylenat.load(weights_folder(tmp_path / "model", "quickstart.gin", *CONDITIONAL, classes=classes))
    assert model.class_names == ("cat", "dog", "cow")
    mixed = model.sample([4, 4, 4], classes=[0, 2, 1])
    for image, number in zip(mixed, [0, 2, 1], strict=True):
        assert torch.equal(image, model.sample(4, classes=number)[0])
    assert not torch.equal(mixed[0], mixed[1])
    for wrong in ([0, 1], 3, [0, 1, -1]):
        with pytest.raises(ValueError, match="classes must be numbers from 0 to 2"):
            model.sample([4, 4, 4], classes=wrong)


def test_wrong_seeds_and_classes_are_refused(folder):
    model = stylenat.load(folder)
    for wrong in ([], [-1], ["3"], 0.5 and [0.5], [True]):
        with pytest.raises(ValueError, match="seeds must be sample indices"):
            model.sample(wrong)
    with pytest.raises(ValueError, match="has no classes"):
        model.sample([0], classes=0)
    with pytest.raises(UserError, match="does not exist"):
        stylenat.load(folder / "nowhere")


def test_a_run_is_read_no_further_than_its_generator(folder, tmp_path, monkeypatch):
    """The checksums of a checkpoint of FFHQ-256, optimizer included, take seconds, and its generator's a tenth."""
    run, state = tmp_path / "run", stylenat.load(folder).generator.state_dict()
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "config.gin", run)
    other = {name: tensor + 1 for name, tensor in state.items()}
    for step in (1, 2):
        saved = checkpoint.save(run / "checkpoints", step, {"generator": other, "ema": state}, {"images": 1})
    hashed, own = [], checkpoint._checksum
    monkeypatch.setattr(checkpoint, "_checksum", lambda path: (hashed.append(path), own(path))[1])
    assert torch.equal(stylenat.load(run).sample(3), stylenat.load(folder).sample(3))
    assert [path for path in hashed if run in path.parents] == [saved / "ema.safetensors"]
    (saved / "ema.safetensors").write_bytes(b"")
    assert stylenat.load(run).opened.folder.name == "step-000000001"
    assert stylenat.load(run, average="generator").opened.folder.name == "step-000000002"
    with pytest.raises(UserError, match="ema.safetensors is missing or damaged"):
        stylenat.load(saved)
    (saved / "state.pt").unlink()
    with pytest.raises(UserError, match="state.pt is missing or damaged"):
        stylenat.load(saved, average="generator")


@pytest.mark.parametrize("values, bad", [([3e38, 3e38], 0), ([torch.inf, -torch.inf], 2), ([0.0, torch.nan], 1)])
def test_weights_that_are_not_finite_are_counted_and_large_ones_are_none(values, bad):
    network = torch.nn.Linear(2, 1)
    state = network.state_dict() | {"weight": torch.tensor([values])}
    if not bad:
        return check_finite(state, network, "file")
    with pytest.raises(UserError, match=f"file: {bad} of 2 values of weight are not finite"):
        check_finite(state, network, "file")


def test_loading_imports_neither_kornia_nor_aim_and_importing_the_package_no_torch(folder):
    code = (
        "import sys, stylenat; assert 'torch' not in sys.modules; stylenat.load(sys.argv[1]).sample(0)\n"
        "print(*({'kornia', 'aim', 'torchvision', 'scipy', 'skimage', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
