"""Backbones: the small random one, and timm's networks where timm is installed."""

from importlib.util import find_spec

import pytest
import torch

from plugins.backbones import timm_networks
from plugins.backbones.convolution import Convolution
from plugins.backbones.timm_networks import TimmBackbone
from registry import UserError
from stylenat.testing import check_backbone

LITE = "tf_efficientnet_lite0"


def test_the_random_convolutions_keep_the_contract():
    check_backbone(Convolution, side=32, channels=(4, 8, 8))


def test_random_maps_keep_the_magnitude_of_their_input():
    torch.manual_seed(0)
    maps = Convolution(channels=(64, 64, 64, 64))(torch.rand(4, 3, 64, 64))
    assert all(0.3 < found.square().mean().sqrt().item() < 2 for found in maps)


def test_a_side_that_cannot_be_halved_so_often_is_refused():
    with pytest.raises(UserError, match=r"side = 40 is not a multiple of 16, which 4 halvings need"):
        Convolution(side=40)


def test_a_missing_timm_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(timm_networks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs timm, which is not installed: pip install 'stylenat\[timm\]'"):
        TimmBackbone(LITE)


needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")


@needs_timm
def test_a_convolutional_network_of_timm_keeps_the_contract():
    check_backbone(TimmBackbone, name="mobilenetv3_small_050", side=64)


@needs_timm
def test_a_transformer_gives_a_pyramid_and_logits():
    check_backbone(TimmBackbone, name="deit_tiny_distilled_patch16_224", classifies=True)


@needs_timm
def test_weights_are_read_from_a_file_and_others_are_refused(tmp_path):
    torch.manual_seed(0)
    network = timm_networks.network_of(LITE)
    path, other = tmp_path / "lite.pth", tmp_path / "other.pth"
    torch.save({"model": network.state_dict()}, path)
    torch.save(timm_networks.network_of("mobilenetv3_small_050").state_dict(), other)
    loaded = TimmBackbone(LITE, weights=str(path))
    assert torch.equal(loaded.network.conv_stem.weight, network.conv_stem.weight) and not hasattr(loaded, "note")
    assert "random weights" in TimmBackbone(LITE).note
    with pytest.raises(UserError, match=f"there is no file .*absent.pth; give the weights of timm's {LITE}"):
        TimmBackbone(LITE, weights=str(tmp_path / "absent.pth"))
    with pytest.raises(UserError, match=f"other.pth .* is not of timm's {LITE}: it does not fit the network"):
        TimmBackbone(LITE, weights=str(other))
    with torch.device("meta"):  # A dry run needs no file.
        TimmBackbone(LITE, weights=str(tmp_path / "absent.pth"))


@needs_timm
def test_weights_with_more_than_the_network_has_are_refused(tmp_path):
    state = timm_networks.network_of(LITE).state_dict()
    torch.save(state | {"extra.weight": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(UserError, match="that has no extra.weight"):
        TimmBackbone(LITE, weights=str(tmp_path / "more.pth"))


@needs_timm
def test_a_network_that_timm_does_not_know_is_refused_with_the_nearest_name():
    with pytest.raises(
        UserError, match="timm has no network 'tf_efficientnet_lite00'; did you mean 'tf_efficientnet_lite0'"
    ):
        TimmBackbone("tf_efficientnet_lite00")
