"""Where the tensors recorded from the reference implementations are, and how far from them one may be."""

import os
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from registry import load_plugins
from stylenat.reference import layouts, to_theirs

DEFAULT = Path(__file__).parents[2].parent / "shared" / "parity"
FOLDER = Path(os.environ.get("STYLENAT_PARITY", DEFAULT))


@pytest.fixture(scope="session")
def recorded():
    """``recorded(name)``: what a file holds. Skips where the folder is absent."""
    if not FOLDER.is_dir():
        pytest.skip(f"no recorded tensors at {FOLDER}; set STYLENAT_PARITY to the folder that holds them")
    return lambda name: torch.load(FOLDER / name, weights_only=True)


@pytest.fixture(scope="session")
def recorded_path(recorded):
    return FOLDER


@pytest.fixture(scope="session")
def known():
    """Every checkpoint layout by name."""
    return layouts(load_plugins())


def error(ours, theirs):
    """The largest difference relative to the recorded tensor's largest magnitude."""
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())


def close(ours, theirs, tolerance):
    assert error(ours, theirs) < tolerance, f"{error(ours, theirs):.2e}"


def gradient_tolerance(gradient, largest):
    """1e-4 of the tensor's largest magnitude and 1e-6 of the file's: a key bias's true gradient is zero."""
    return 1e-4 * float(gradient.abs().max()) + 1e-6 * largest


def gradients(network, layout, inputs, cotangent):
    """Gradients by the reference's names, and the input's as ``input``."""
    network.zero_grad()
    inputs = inputs.clone().requires_grad_()
    network(inputs).backward(cotangent)
    own = {name: p.grad for name, p in network.named_parameters()}
    return {name: g.clone() for name, g in to_theirs(own, network, layout).items()} | {"input": inputs.grad}


def recipe_weights(network, layout, lr_multiplier=0.01):
    """The recorded full-size networks' weights by the reference's names, from the recipe in the files."""
    shapes = to_theirs(dict(network.named_parameters()), network, layout)
    found = {}
    for name, shape in ((name, tensor.shape) for name, tensor in shapes.items()):
        a = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
        if "rpb" in name or "relative_position_bias_table" in name:
            a = 0.5 * a
        elif name.endswith("alpha"):
            a = 0.5 + 0.3 * a
        elif name.endswith("norm.weight"):
            a = 1 + 0.2 * a
        elif name.startswith("style."):
            a = a / lr_multiplier if name.endswith("weight") else 10 * a
        elif name.endswith("style.bias"):
            a = 0.2 * a
            a[: len(a) // 2] += 1
        elif name.endswith(".weight") and not name.endswith("style.weight"):
            a = (
                a * (1.5 if ".qkv." in name else 0.8) / float(np.sqrt(np.prod(shape[1:])))
            )  # Python's float: the product stays float32.
        elif name.endswith(".bias"):
            a = 0.1 * a
        found[name] = torch.from_numpy(np.asarray(a, dtype=np.float32))
    return found


tools = types.SimpleNamespace(**{f.__name__: f for f in (error, close, gradient_tolerance, gradients, recipe_weights)})


@pytest.fixture(scope="session")
def measure():
    return tools
