"""Tensors on the pretended GPU, and what happens to an operation on them.

For PyTorch's C++ code they are CPU tensors without memory, so that it needs no driver; for Python code their
device is ``cuda:0``. Every operation on them comes to ``dispatched``.
"""

import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.utils._python_dispatch import TorchDispatchMode

from .record import Record, line

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")

WAITING = {
    "_local_scalar_dense", "nonzero", "equal", "_unique2", "unique_dim", "unique_consecutive", "masked_select",
    "bincount",
}  # fmt: skip
"""Operations whose result the host reads, or whose result's shape it needs."""

INDEXING = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}

WRAPPERS = ("torch/_compile.py", "torch/_dynamo/eval_frame.py")
"""Of every mode's method, which keep the compiler out of it."""


class Crossing:
    """Whether Python code has just asked for a transfer to the host. C++ code knows no difference between the two."""

    to_host = False


class PretendedTensor(Tensor):
    """A tensor on the pretended GPU; ``held`` has its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendedTensor":
        options = {"dtype": held.dtype, "layout": held.layout, "device": CPU}
        return Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), **options
        )

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"PretendedTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        raise RuntimeError("a tensor of the pretended GPU is used outside of it")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = PretendedTensor(self.held.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    def get_device(self) -> int:
        return 0

    def numpy(self, *arguments: Any, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to the host")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        raise RuntimeError(f"{line()} gives the memory of a CUDA tensor to code of the CPU")

    def record_stream(self, stream: Any) -> None:
        """Memory of the pretended GPU is never used again for something else."""

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None, device: Any = None, **options: Any) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or GPU, **options)


class OnPretendedGPU(TorchDispatchMode):
    """While it is entered, operations may have the pretended GPU as their device."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        on_gpu = device is not None and (torch.device(device).type == "cuda" or from_autograd(sys._getframe(1)))
        given = tensors(args, *kwargs.values())
        if on_gpu or any(isinstance(t, PretendedTensor) for t in given):
            return dispatched(self.record, func, args, kwargs, given, on_gpu)
        if kwargs.get("pin_memory"):
            return pinned(func(*args, **{**kwargs, "pin_memory": False}))
        return func(*args, **kwargs)


def from_autograd(caller: FrameType) -> bool:
    """Whether autograd's C++ code calls: a gradient of zeros is made on what it takes for the tensor's device."""
    while caller.f_code.co_filename.endswith(WRAPPERS) and caller.f_back is not None:
        caller = caller.f_back
    return caller.f_code is _engine_run_backward.__code__


def pinned(tensor: Tensor) -> Tensor:
    """A tensor of the host, marked as one in pinned memory. Views of it are not marked."""
    tensor.pretended_pinned = True  # type: ignore[attr-defined]
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    return getattr(tensor, "pretended_pinned", False)


def tensors(*values: Any) -> list[Tensor]:
    """All tensors in an operation's arguments."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(*value)
    return found


def dispatched(
    record: Record, func: Any, args: tuple, kwargs: dict[str, Any], given: list[Tensor], on_gpu: bool
) -> Any:
    """An operation on tensors of the pretended GPU, or that makes one. Raises RuntimeError where devices mix.

    Args:
        given: all tensors in its arguments; on_gpu: whether it is to make a tensor there.
    """
    name = func._schema.name.removeprefix("aten::")
    record.operations += 1
    if name in ("_to_copy", "copy_", "_foreach_copy_"):
        on_gpu = _transferred(record, name, args, kwargs, on_gpu)
    else:
        on_gpu = True  # A CPU that is asked for beside such a tensor is what C++ code takes for the tensor's device.
        _checked(record, func, name, args, given)
        if name in WAITING:
            record.add("wait", name)
    options = {key: _on_cpu(value) for key, value in kwargs.items() if key not in ("pin_memory", "non_blocking")}
    out = func(*_on_cpu(args), **options)
    if not on_gpu or name == "_local_scalar_dense":
        return out
    # What an operation wrote to is returned as it was given.
    written = {id(t.held): t for t in given if isinstance(t, PretendedTensor)} if func._schema.is_mutable else {}

    def wrapped(value: Any) -> Any:
        if isinstance(value, Tensor):
            return written[id(value)] if id(value) in written else PretendedTensor(value)
        return type(value)(map(wrapped, value)) if isinstance(value, list | tuple) else value

    return wrapped(out)


def _checked(record: Record, func: Any, name: str, args: tuple, given: list[Tensor]) -> None:
    """What CUDA does about operands of the host: it passes numbers to kernels, sends indices and refuses the others."""
    others = [t for t in given if not isinstance(t, PretendedTensor)]
    if name in INDEXING and isinstance(args[0], PretendedTensor):
        for index in tensors(args[1]):
            if not isinstance(index, PretendedTensor):
                record.add("to device", f"{name} by an index on the host", bytes=index.nbytes)
            if index.dtype in (torch.bool, torch.uint8):
                record.add("wait", f"{name} by a mask")
        others = [t for t in tensors(args[2:]) if not isinstance(t, PretendedTensor)]
    if not others or len(others) == len(given):
        return
    numbers = torch.Tag.pointwise in func.tags and not name.startswith(("lerp", "_foreach"))
    if any(t.dim() > 0 or not (numbers or name in INDEXING) for t in others):
        shown = [f"{t.device} {list(t.shape)}" for t in given]
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} of {', '.join(shown)} at {line()}")


def _transferred(record: Record, name: str, args: tuple, kwargs: dict[str, Any], to_gpu: bool) -> bool:
    """Records the transfers of a copy; returns whether its result is on the GPU."""
    if name == "_to_copy":
        source = args[0]
        on_gpu = to_gpu or (isinstance(source, PretendedTensor) and not Crossing.to_host)
        pairs = [(on_gpu, None, source)]
        free = bool(kwargs.get("non_blocking"))
    else:
        targets, sources = ([args[0]], [args[1]]) if name == "copy_" else args[:2]
        pairs = [(isinstance(t, PretendedTensor), t, s) for t, s in zip(targets, sources, strict=True)]
        on_gpu = pairs[0][0]
        free = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
    for target_on_gpu, target, source in pairs:
        if target_on_gpu != isinstance(source, PretendedTensor):
            host = source if target_on_gpu else target
            # Where there is nothing to copy into and it need not wait, PyTorch makes a pinned tensor for the host.
            host_pinned = free if host is None else is_pinned(host)
            kind = "to device" if target_on_gpu else "to host"
            record.add(kind, name, bytes=source.nbytes, blocking=not (free and host_pinned), pinned=host_pinned)
    return on_gpu


def _on_cpu(value: Any) -> Any:
    """An argument with the numbers that its tensors hold."""
    if isinstance(value, PretendedTensor):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return CPU if isinstance(value, torch.device) else value
