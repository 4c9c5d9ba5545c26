"""Pickles in the form of NVIDIA's ``torch_utils.persistence``, written by a stand-in for it. None of NVIDIA's is used.

The real one writes ``_reconstruct_persistent_obj(meta)`` for each object of a decorated class, where meta holds the
class's name, its program text and the object's ``__dict__``. Modules of other classes are pickled as usual.
"""

import pickle
import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a reader called what the pickle names")


class EasyDict(dict):
    """``dnnlib.util.EasyDict``."""


class Plain(nn.Module):
    """A module whose class is not persistent."""


class Persistent(nn.Module):
    """A module whose class is."""

    class_name = "Generator"

    def __reduce__(self):
        meta = {
            "type": "class",
            "version": 6,
            "module_src": "import os\nos.abort()\n",
            "class_name": self.class_name,
            "state": self.__dict__,
        }
        return _reconstruct_persistent_obj, (meta,), None


@contextmanager
def importable() -> Iterator[None]:
    """Within it, pickle finds the stand-ins under the names that the pickles contain."""
    named = {"torch_utils.persistence": _reconstruct_persistent_obj, "dnnlib.util": EasyDict, "net.layers": Plain}
    for module, thing in named.items():
        parent = module.partition(".")[0]
        sys.modules[parent], sys.modules[module] = types.ModuleType(parent), types.ModuleType(module)
        setattr(sys.modules[module], thing.__name__, thing)
        thing.__module__ = module
    try:
        yield
    finally:
        for module in named:
            del sys.modules[module], sys.modules[module.partition(".")[0]]


def network(tensors: Mapping[str, Tensor], buffers: tuple[str, ...] = (), class_name="Generator", **arguments):
    """A persistent module with these parameters and buffers by dotted names; its parts are plain modules."""
    root = Persistent()
    root.class_name = class_name
    root._init_args, root._init_kwargs = (), EasyDict(arguments)
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Plain())
            module = module._modules[part]
        if name in buffers:
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, nn.Parameter(tensor))
    return root


def pickled(value: object, protocol: int = 4) -> bytes:
    with importable(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of its storages' older class.
        return pickle.dumps(value, protocol)


def small(protocol: int = 4) -> bytes:
    """Two networks and other entries."""
    weight = torch.arange(6.0).reshape(2, 3)
    g = network({"a.weight": weight.t(), "a.filter": torch.ones(2)}, ("a.filter",), z_dim=3, layers=[1, 2])
    g.a.register_buffer("temporary", torch.ones(1), persistent=False)
    half = network({"b": torch.ones(2, dtype=torch.float16)}, class_name="Discriminator")
    return pickled({"G_ema": g, "D": half, "training_set_kwargs": EasyDict(path="x"), "cur_nimg": 5}, protocol)
