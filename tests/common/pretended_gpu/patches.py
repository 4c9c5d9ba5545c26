"""What of PyTorch's own Python code has to believe in the pretended GPU."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from .record import Record
from .tensors import CPU, GPU, Crossing, PretendedTensor, is_pinned, pinned

_to, _cpu = Tensor.to, Tensor.cpu
_tensor, _as_tensor = torch.tensor, torch.as_tensor
_group = torch._C._group_tensors_by_device_and_dtype
_is_autocast_enabled, _get_autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype


class Stream:
    """Streams order nothing here: operations are done when they are given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def wait_stream(self, stream: Any) -> None:
        pass

    def wait_event(self, event: Any) -> None:
        pass

    def record_event(self, event: Any = None) -> "Event":
        return event or Event()

    def is_capturing(self) -> bool:
        return False

    def synchronize(self) -> None:
        torch.cuda.synchronize()


class Event:
    """An event that has always happened."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        pass

    def wait(self, stream: Any = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        torch.cuda.synchronize()


class Autocast(torch.autocast):
    """That of the CPU for the pretended GPU: other operations than CUDA's are cast, but the same kinds."""

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, **options: Any) -> None:
        if device_type == "cuda":
            device_type, dtype = "cpu", dtype or torch.float16
        super().__init__(device_type, dtype, **options)


def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to``, which in C++ would take the pretended GPU for the CPU."""
    other = kwargs.pop("other", None)
    if args and isinstance(args[0], Tensor):
        other, args = args[0], args[1:]
    if other is not None:
        args = (other.device, other.dtype, *args)
    args, kwargs = tuple(map(_with_index, args)), {key: _with_index(value) for key, value in kwargs.items()}
    target = next((a for a in (*args, kwargs.get("device")) if isinstance(a, torch.device)), None)
    if target is None or not isinstance(self, PretendedTensor):
        return _to(self, *args, **kwargs)
    # C++ code sees no other device either way: the dtype and layout are left to it.
    args = tuple(a for a in args if not isinstance(a, torch.device))
    kwargs.pop("device", None)
    if target.type == "cuda":
        return _to(self, *args, **kwargs) if args or kwargs else self
    names = ("dtype", "non_blocking", "copy")
    given = args if args and isinstance(args[0], torch.dtype) else (None, *args)
    options = dict(zip(names, given, strict=False)) | kwargs
    options.pop("copy", None)
    Crossing.to_host = True
    try:
        return torch.ops.aten._to_copy(self, **{k: v for k, v in options.items() if v is not None})
    finally:
        Crossing.to_host = False


def _with_index(argument: Any) -> Any:
    """A device as such, ``cuda`` as ``cuda:0``: C++ code would ask the driver for the number."""
    if not isinstance(argument, str | torch.device):
        return argument
    device = torch.device(argument)
    return GPU if device.type == "cuda" else device


def cpu(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return to(self, CPU) if isinstance(self, PretendedTensor) else _cpu(self, *args, **kwargs)


def pin_memory(self: Tensor, *args: Any) -> Tensor:
    """A copy in pinned memory; the tensor itself where it is in such already."""
    if isinstance(self, PretendedTensor):
        raise RuntimeError("cannot pin a tensor on cuda:0: only dense CPU tensors can be pinned")
    return self if is_pinned(self) else pinned(self.clone())


def tensor(data: Any, *, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
    """``torch.tensor``, whose C++ code makes a tensor on the host and copies it, out of sight of any mode."""
    made = _tensor(data, **{key: value for key, value in options.items() if key != "pin_memory"})
    made = made if device is None else made.to(device)
    return made.requires_grad_() if requires_grad else made


def as_tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
    if isinstance(data, Tensor):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    made = _as_tensor(data, dtype=dtype)
    return made if device is None else made.to(device)


def grouped(lists: Any, with_indices: bool = False) -> Any:
    """Lists of tensors by device and dtype, as fused and foreach optimisers take them."""
    groups = _group(lists, with_indices)

    def device_of(lists: Any) -> torch.device:
        return next(t.device for tensors in lists for t in tensors if t is not None)

    return {(device_of(group[0]), dtype): group for (_, dtype), group in groups.items()}


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    return _is_autocast_enabled("cpu" if device_type == "cuda" else device_type)


def get_autocast_dtype(device_type: str) -> torch.dtype:
    return _get_autocast_dtype("cpu" if device_type == "cuda" else device_type)


@contextmanager
def patched(record: Record) -> Iterator[None]:
    """Within it, ``torch.cuda`` has one device."""

    def synchronize(device: Any = None) -> None:
        record.add("wait", "synchronize")

    cuda = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "device": lambda device: nullcontext(),
        "synchronize": synchronize,
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "is_bf16_supported": lambda *arguments, **options: True,
        "get_device_name": lambda device=None: "pretended GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: SimpleNamespace(name="a pretended GPU", total_memory=80 * 2**30),
        "empty_cache": lambda: None,
        "Stream": Stream,
        "Event": Event,
        "stream": lambda stream: nullcontext(),
        "current_stream": lambda device=None: Stream(),
        "default_stream": lambda device=None: Stream(),
        "is_current_stream_capturing": lambda: False,
    }
    with ExitStack() as stack:
        for name, value in cuda.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch.accelerator, "current_stream", cuda["current_stream"]))
        for name, value in {"to": to, "cpu": cpu, "pin_memory": pin_memory}.items():
            stack.enter_context(patch.object(Tensor, name, value))
        stack.enter_context(patch.object(Tensor, "cuda", lambda self, *arguments, **options: to(self, GPU, **options)))
        for name, value in {"tensor": tensor, "as_tensor": as_tensor, "autocast": Autocast}.items():
            stack.enter_context(patch.object(torch, name, value))
        stack.enter_context(patch.object(torch, "is_autocast_enabled", is_autocast_enabled))
        stack.enter_context(patch.object(torch, "get_autocast_dtype", get_autocast_dtype))
        stack.enter_context(patch.object(torch._C, "_group_tensors_by_device_and_dtype", grouped))
        # ``Module.to`` would otherwise give the old parameters new memory, which a device of its own forbids.
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        yield
