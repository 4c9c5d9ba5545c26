"""Extractors from files of random weights: what they compute, and what they say of files that are no good."""

import os
from pathlib import Path

import pytest
import torch
from torch import hub, nn

from plugins.features import published
from plugins.features.dinov2 import WEIGHTS, Dinov2
from plugins.features.inception import INCEPTION, Inception
from plugins.features.lpips import LINEAR, VGG16, Lpips
from plugins.features.vision_transformer import PATCH, VisionTransformer
from plugins.metrics.path_length import PerceptualPathLength
from registry import UserError
from stylenat.evaluation.evaluate import MissingWeights
from stylenat.testing import check_features, check_metric
from stylenat.testing.contract import pictures


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    """PyTorch's cache of weights, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def drawn(network):
    with torch.no_grad():
        random = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.normal_(0, 0.05, generator=random)
    return network


def test_the_transformer_is_pytorchs_own_pre_norm_encoder_where_both_can_say_it():
    """Without layer scale, at the resolution that it was trained at, each block is a TransformerEncoderLayer."""
    ours = drawn(VisionTransformer(128, depth=2))
    for block in ours.blocks:
        block.ls1.gamma.data.fill_(1)
        block.ls2.gamma.data.fill_(1)
    images = torch.randn(1, 3, 518, 518, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = ours.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([ours.cls_token, x], dim=1) + ours.pos_embed
        for block in ours.blocks:
            layer = nn.TransformerEncoderLayer(
                128, 2, 512, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
            )
            theirs = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1."}
            theirs |= {"linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
            state = block.state_dict()
            layer.load_state_dict({a + k: state[b + k] for a, b in theirs.items() for k in ("weight", "bias")})
            x = layer(x)
        expected = ours.norm(x)[:, 0]
        torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)


def test_the_transformer_has_the_published_number_of_parameters():
    with torch.device("meta"):
        large = VisionTransformer(1024, depth=24)
    assert sum(p.numel() for p in large.parameters()) == 304_368_640 - 1024  # Without the mask token.


def test_positions_are_interpolated_as_the_published_model_does():
    network = drawn(VisionTransformer(64, depth=1))
    assert network._positions(37) is network.pos_embed
    grid = network._positions(16)[:, 1:].reshape(1, 16, 16, 64)
    assert network._positions(16).shape == (1, 257, 64)
    whole = network.pos_embed[:, 1:].reshape(1, 37, 37, 64).permute(0, 3, 1, 2)
    expected = nn.functional.interpolate(whole, scale_factor=16.1 / 37, mode="bicubic").permute(0, 2, 3, 1)
    torch.testing.assert_close(grid, expected)


@pytest.fixture(scope="module")
def dinov2_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("dinov2") / "small.pth"
    state = drawn(VisionTransformer(384, depth=12)).state_dict()
    torch.save(state | {"mask_token": torch.zeros(1, 384)}, path)
    return str(path)


def test_dinov2_keeps_the_contract_and_says_what_it_is(dinov2_weights):
    features = Dinov2("s", dinov2_weights)
    check_features(features)
    protocol = features.protocol()
    assert (protocol["size"], protocol["weights_sha256"]) == ("s", published.checksum(Path(dinov2_weights)))
    assert PATCH * 16 == 224


def test_dinov2_of_another_size_is_refused(dinov2_weights):
    with pytest.raises(UserError, match=r"small.pth does not fit DINOv2 ViT-B/14 \(features.dinov2\): size mismatch"):
        Dinov2("b", dinov2_weights).check()


@pytest.fixture(scope="module")
def lpips_weights(tmp_path_factory):
    """Files of VGG16's convolutions and of LPIPS's weights, both random."""
    import torchvision

    folder = tmp_path_factory.mktemp("lpips")
    with torch.device("meta"):
        convolutions = torchvision.models.vgg16().features
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, meta in convolutions.state_dict().items():
        scale = (2 / meta[0].numel()) ** 0.5 if meta.dim() > 1 else 0.01
        state[f"features.{name}"] = scale * torch.randn(meta.shape, generator=random)
    torch.save(state, folder / "vgg16.pth")
    widths = (64, 128, 256, 512, 512)
    linear = {f"lin{i}.model.1.weight": torch.rand(1, w, 1, 1, generator=random) for i, w in enumerate(widths)}
    torch.save(linear, folder / "lpips.pth")
    return str(folder / "vgg16.pth"), str(folder / "lpips.pth")


def test_lpips_is_the_weighted_distance_of_normalised_activations(lpips_weights):
    import torchvision

    vgg16, linear = (torch.load(path, weights_only=True) for path in lpips_weights)
    lpips = Lpips(*lpips_weights, download=False, resize=None)
    one, other = pictures(2, 32), pictures(2, 32, seed=1)
    with torch.device("meta"):
        layers = torchvision.models.vgg16().features
    layers.load_state_dict({name.removeprefix("features."): w for name, w in vgg16.items()}, assign=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((images.float() / 127.5 - 1 - shift[:, None, None]) / scale[:, None, None] for images in (one, other))
    expected = torch.zeros(2)
    with torch.no_grad():
        for i, layer in enumerate(layers[:30]):
            x, y = layer(x), layer(y)
            if i in (3, 8, 15, 22, 29):
                level = (3, 8, 15, 22, 29).index(i)
                units = [t / t.square().sum(dim=1, keepdim=True).sqrt() for t in (x, y)]
                weighted = (units[0] - units[1]).square() * linear[f"lin{level}.model.1.weight"]
                expected += weighted.sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(lpips(one, other), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(lpips(one, one), torch.zeros(2))


def test_the_path_length_keeps_the_contract_of_a_metric(lpips_weights):
    check_metric(PerceptualPathLength("w", "end", 1e-2, 0, *lpips_weights), resolution=16)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (Inception, INCEPTION),
        (Dinov2, WEIGHTS["l"]),
        (PerceptualPathLength, VGG16),
    ],
)
def test_missing_weights_name_the_file_its_source_and_its_checksum(make, what):
    with pytest.raises(MissingWeights) as caught:
        make().check()
    line = str(caught.value)
    assert what.url in line and what.sha256 in line and what.selector in line and "\n" not in line
    with pytest.raises(UserError, match=f"there is no file nowhere.pth; fetch {what.url}"):
        published.found(what, "nowhere.pth", download=True)


@pytest.mark.parametrize("what", [INCEPTION, VGG16, LINEAR, *WEIGHTS.values()])
def test_the_sources_are_the_librarys_own(what):
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    from torch_fidelity.sample_similarity_lpips import URL_VGG16_LPIPS
    from torchvision.models import VGG16_Weights

    own = {URL_INCEPTION_V3, URL_VGG16_LPIPS, VGG16_Weights.IMAGENET1K_V1.url}
    assert what.url in own or what in WEIGHTS.values()
    assert len(what.sha256) == 64 and int(what.sha256, 16)
    prefix = what.file.removesuffix(".pth").rsplit("-", 1)[-1]
    assert what.sha256.startswith(prefix) or len(prefix) != 8


def test_a_file_in_pytorchs_cache_is_found_without_being_named(monkeypatch):
    cached = Path(hub.get_dir()) / "checkpoints" / INCEPTION.file
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    monkeypatch.setattr(hub, "download_url_to_file", lambda *args, **kwargs: pytest.fail("fetched"))
    assert published.found(INCEPTION, None, download=True) == cached


def test_a_download_happens_only_when_asked_for_and_is_checked(monkeypatch, capsys):
    asked = []

    def fetch(url, path, hash_prefix):
        asked.append((url, hash_prefix))
        raise OSError("no network")

    monkeypatch.setattr(hub, "download_url_to_file", fetch)
    with pytest.raises(MissingWeights):
        published.found(INCEPTION, None, download=False)
    assert not asked
    with pytest.raises(UserError, match="cannot fetch https.*no network"):
        published.found(INCEPTION, None, download=True)
    assert asked == [(INCEPTION.url, INCEPTION.sha256)] and INCEPTION.url in capsys.readouterr().err


class Trap:
    def __reduce__(self):
        return os.system, ("touch sprung",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; get the file again"),
        (b"text", "is damaged, or no checkpoint"),
        (Trap(), "is not read: it holds [a-z]+.system, which could run code"),
        ([1, 2], "does not hold a network's tensors"),
        ({"cls_token": torch.zeros(1)}, r"does not hold Inception \(features.inception\)'s weights"),
        ({INCEPTION.mark: torch.zeros(2)}, r"does not fit Inception \(features.inception\)"),
    ],
)
def test_a_file_that_is_no_good_is_one_line_and_runs_no_code(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message) as caught:
        Inception(str(path)).check()
    assert "\n" not in str(caught.value) and not Path("sprung").exists()
