"""Memory of tensors, counted on any device, ``meta`` included: what an allocator would have to hold."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the storages that operations make while it is entered, and forgets those that are no more.

    Memory that operations take for themselves is not seen, nor are tensors made before.

    Attributes:
        live, peak: bytes, now and at most.
        largest: elements of the largest tensor's storage.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.largest = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        made = function(*args, **(kwargs or {}))
        for t in tree_leaves(made):
            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in given:
                self._add(t)
        return made

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        weakref.finalize(storage, self._forget, storage.nbytes())
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        self.largest = max(self.largest, storage.nbytes() // tensor.element_size())

    def _forget(self, size: int) -> None:
        self.live -= size
