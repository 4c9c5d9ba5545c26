"""Every bundled plugin passes its kind's checker; one that is newly registered is picked up by itself."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from plugins.augmentations.ada import AdaptiveAugmentation
from plugins.backbones.convolution import Convolution
from plugins.blocks.hydra import HydraBlock
from plugins.blocks.swin import SwinBlock
from plugins.datasets.folder import Folder
from plugins.features.random_convolution import RandomConvolution
from plugins.partitions.pyramid import Pyramid
from plugins.partitions.split import Split
from plugins.partitions.table import Table
from plugins.systems.hit.discriminator import HiTDiscriminator
from plugins.systems.hit.generator import HiT
from registry import KINDS, AttentionSite, load_plugins
from stylenat.networks.discriminator import WaveletDiscriminator
from stylenat.networks.generator import StyleGenerator
from stylenat.testing import CHECKERS, CannotCheck, check_partition
from stylenat.testing.contract import pictures

SMALL_BLOCK = {"partition": Split(kernel_size=3), "mlp_ratio": 2}
PYRAMID = Pyramid(kernel_size=3)
SMALL_STYLEGAN3 = {
    "resolution": 16, "channel_base": 128, "channel_max": 12, "latent_dim": 8, "style_dim": 8, "num_layers": 4,
}  # fmt: skip


def small_block(**supplied):
    return HydraBlock(**supplied, **SMALL_BLOCK)


def folder(tmp_path: Path) -> dict:
    for i, picture in enumerate(pictures(3, 20)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    return {"path": str(tmp_path), "resolution": 16}


def lmdb(tmp_path: Path) -> dict:
    from stylenat.commands.prepare import main

    folder(tmp_path)
    assert main([str(tmp_path), str(tmp_path / "x.lmdb"), "--resolution", "16", "--workers", "1"]) == 0
    return {"path": str(tmp_path / "x.lmdb"), "resolution": 16}


def subset(tmp_path: Path) -> dict:
    return {"dataset": Folder(**folder(tmp_path)), "count": 2}


def zipped(tmp_path: Path) -> dict:
    options = folder(tmp_path)
    shutil.make_archive(str(tmp_path / "pictures"), "zip", tmp_path)
    return options | {"path": str(tmp_path / "pictures.zip")}


def named_by(selector: str) -> dict:
    """A small network that the layout has names for."""
    if selector == "checkpoint_layout.wavelet":
        return {"network": WaveletDiscriminator(**OPTIONS["discriminator.wavelet"])}
    if selector.startswith("checkpoint_layout.stylegan2_"):
        kind = selector.rpartition("_")[2]
        unnamed = {"mean_style_decay": None} if selector.endswith("rosinality_generator") else {}
        network = REGISTRY.entries[f"{kind}.stylegan2"].load()
        return {"network": network(**OPTIONS[f"{kind}.stylegan2"] | unnamed)}
    if selector == "checkpoint_layout.stylegan3_generator":
        return {"network": REGISTRY.entries["generator.stylegan3"].load()(**OPTIONS["generator.stylegan3"])}
    if selector == "checkpoint_layout.stylegan_xl_generator":
        return {"network": REGISTRY.entries["generator.stylegan_xl"].load()(**OPTIONS["generator.stylegan_xl"])}
    if selector == "checkpoint_layout.stylegan_xl_discriminator":
        backbones = [partial(REGISTRY.entries["backbone.timm"].load(), "tf_efficientnet_lite0")]
        options = OPTIONS["discriminator.projected"] | {"backbones": backbones, "channels": [8, 8, 8, 8]}
        return {"network": REGISTRY.entries["discriminator.projected"].load()(**options)}
    if selector == "checkpoint_layout.hit":
        return {"network": HiT(**OPTIONS["generator.hit"])}
    if selector == "checkpoint_layout.hit_discriminator":
        return {"network": HiTDiscriminator(**OPTIONS["discriminator.hit"])}
    if selector.startswith("checkpoint_layout.r3gan"):
        network = "discriminator.r3gan" if "discriminator" in selector else "generator.r3gan"
        return {"network": REGISTRY.entries[network].load()(**OPTIONS[network])}
    block = SwinBlock if selector == "checkpoint_layout.styleswin" else small_block
    return {"network": StyleGenerator(**OPTIONS["generator.style"] | {"block": block})}


OPTIONS: dict[str, Callable[[Path], dict] | dict] = {
    "partition.table": {"dilations": {8: [1], 16: [1, 2], 64: [1, 4, 8]}},
    "block.hydra": SMALL_BLOCK,
    "block.attention": {"full_resolution": 8, "window": 4, "mlp_ratio": 2},
    "generator.style": {
        "resolution": 16, "block": small_block, "channels": [32, 32, 16], "latent_dim": 16, "style_dim": 16,
        "mapping_layers": 2,
    },
    "discriminator.wavelet": {"resolution": 16, "channels": [16, 16]},
    "generator.stylegan2": {
        "resolution": 16, "channel_base": 128, "channel_max": 16, "latent_dim": 16, "style_dim": 16,
        "mapping_layers": 2,
    },
    "discriminator.stylegan2": {"resolution": 16, "channel_base": 128, "channel_max": 16},
    "generator.hit": {
        "resolution": 32, "channels": [16, 16, 8], "heads": [4, 4, 2], "latent_dim": 8, "norm_group": 3,
    },
    "discriminator.hit": {"resolution": 16, "channels": [16, 16, 8], "stddev_group": 2},
    "generator.stylegan3": SMALL_STYLEGAN3,
    "generator.stylegan_xl": {
        "resolution": 16, "stem_resolution": 16, "stem_layers": 4, "channel_base": 128, "channel_max": 12,
        "latent_dim": 8, "style_dim": 8, "margin": 3, "embedding_rows": 4,
    },
    "discriminator.projected": {
        "resolution": 16, "backbones": [partial(Convolution, 16, [8, 8])], "width": 8, "channels": [8, 8],
        "diffaugment": "",
    },
    "backbone.timm": {"name": "test_resnet"},
    "generator.r3gan": {"resolution": 16, "channels": [16], "latent_dim": 8, "num_classes": 3, "label_dim": 4},
    "discriminator.r3gan": {"resolution": 16, "channels": [16], "num_classes": 3},
    "schedule.cosine": {"start": 1.0, "end": 0.1, "images": 1000},
    "schedule.step": {"before": 0.0, "after": 1.0, "images": 1000},
    "schedule.linear_decay": {"start": 500},
    "schedule.warmup": {"iterations": 10},
    "augmentation.ada": {"initial_p": 0.7},
    "metric.kid": lambda tmp_path: {"features": RandomConvolution()},
    "metric.precision_recall": lambda tmp_path: {"features": RandomConvolution()},
    "metric.density_coverage": lambda tmp_path: {"features": RandomConvolution()},
    "dataset.lfw_faces": lambda tmp_path: {"path": str(tmp_path / "faces.lmdb"), "resolution": 16},
    "dataset.folder": folder,
    "dataset.lmdb": lmdb,
    "dataset.subset": subset,
    "dataset.zip": zipped,
}  # fmt: skip
"""What a gin file would bind, where the defaults are not enough or too large for a test."""

NEEDS_A_FILE = {
    "features.inception", "features.dinov2", "metric.fid", "metric.fd_dinov2", "metric.inception_score", "metric.ppl",
}  # fmt: skip
"""Extractors' weights are not in this repository; an attention backend may need a device that is not here."""

NEEDS_TIMM = {"backbone.timm", "checkpoint_layout.stylegan_xl_discriminator"}
CONDITIONAL = {"regularizer.classifier_guidance": "tests/plugins/systems/test_stylegan_xl.py"}
"""What refuses the checker's unconditional networks, and where it is tested."""

REGISTRY = load_plugins()
BUNDLED = sorted(s for s, entry in REGISTRY.entries.items() if entry.kind in KINDS)


@pytest.mark.parametrize("selector", BUNDLED)
def test_a_bundled_plugin_keeps_the_contract_of_its_kind(selector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if selector in CONDITIONAL:
        pytest.skip(f"{selector} needs classes; see {CONDITIONAL[selector]}")
    if selector in NEEDS_TIMM:
        pytest.importorskip("timm")
    entry = REGISTRY.entries[selector]
    assert entry.kind in CHECKERS, f"stylenat.testing has no checker for the kind {entry.kind}"
    options = OPTIONS.get(selector, {})
    options = options(tmp_path) if callable(options) else options
    target, check = entry.load(), CHECKERS[entry.kind]
    extra = {"tracker": lambda: {"directory": tmp_path / "run"}, "checkpoint_layout": lambda: named_by(selector)}
    extra = extra.get(entry.kind, dict)()
    try:
        if KINDS[entry.kind].bound_as_class:
            check(target, **options)
        else:
            check(target(**options), **extra)
    except CannotCheck as error:
        assert selector in NEEDS_A_FILE or entry.kind == "attention"
        pytest.skip(f"{selector}: {error}")


def test_every_kind_that_has_a_name_has_a_checker():
    assert {REGISTRY.entries[selector].kind for selector in BUNDLED} <= set(CHECKERS)
    assert set(CHECKERS) <= set(KINDS)


def test_partitions_hold_at_the_published_sites_up_to_1024():
    sites = [AttentionSite(2**i, heads, 32 * heads, b) for i in range(3, 11) for heads in (4, 8, 16) for b in (0, 1)]
    for partition in (Split(), Pyramid(), PYRAMID):
        check_partition(partition, sites)


def test_what_is_checked_at_rest_is_the_trained_thing():
    """The options above are those of a working network, not of one that nothing reaches."""
    assert AdaptiveAugmentation(**OPTIONS["augmentation.ada"]).scalars()["augmentation/p"] == 0.7
    assert Table(**OPTIONS["partition.table"])(AttentionSite(16, 4, 128))
    generator = StyleGenerator(**OPTIONS["generator.style"])
    discriminator = WaveletDiscriminator(**OPTIONS["discriminator.wavelet"])
    assert discriminator(generator(torch.randn(4, 16))).shape == (4, 1)
