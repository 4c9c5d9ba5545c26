"""FlexAttention's kernels, as PyTorch's compiler writes them for a card that is not here, counted as ours are.

Dynamo and autograd trace backend ``flex`` on the CPU, since autograd's C++ code asks the driver about each CUDA tensor.
The traced graphs are then moved to a GPU that only Inductor's Python code looks for, and the Triton kernels that it
writes are compiled for the card. Nothing runs, and no tensor has memory. Written for PyTorch 2.14, whose internals it
patches.
"""

import functools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import triton
from static_kernels import PRECISIONS, Card, Compiled, counted
from torch import Tensor, fx
from torch.utils import _pytree as pytree
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stylenat.attention import flex
from stylenat.attention.flex_mask import BLOCK, block_tables

GPU = torch.device("cuda", 0)
HEADS = 4


@dataclass(frozen=True)
class FlexKernel:
    """One of the two kernels.

    Attributes:
        blocks: ``BLOCK_M`` queries by ``BLOCK_N`` keys forwards; backwards ``BLOCK_M2`` by ``BLOCK_N2`` in the half for
            the gradients of q and the bias, ``BLOCK_M1`` by ``BLOCK_N1`` in the half for those of k and v.
    """

    backward: bool
    warps: int
    blocks: dict[str, int]
    code: Compiled

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Of each half: rows of a program's own block, and rows of the block that it takes in one step of its loop."""
        names = (("BLOCK_M2", "BLOCK_N2"), ("BLOCK_N1", "BLOCK_M1")) if self.backward else (("BLOCK_M", "BLOCK_N"),)
        return [(self.blocks[own], self.blocks[other]) for own, other in names]


def flex_kernels(card: Card, precision: str, dim: int, kernel_size: int, side: int, biased: bool) -> list[FlexKernel]:
    """The forward and the backward kernel for one image of ``side`` x ``side``, in a process of its own.

    PyTorch keeps what it knows of a device for good, so one process can pretend to be of one card only.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own:
        return own.submit(_kernels, card, precision, dim, kernel_size, side, biased).result()


def visited(side: int, kernel_size: int) -> int:
    """Pairs of a block of queries and a block of keys (128 tokens each) of which the mask shows any, at dilation 1."""
    return int(block_tables(1, side, side, kernel_size, 1, torch.device("cpu"))[0].sum())


def flex_seconds(
    card: Card, kernel: FlexKernel, precision: str, dim: int, kernel_size: int, side: int
) -> tuple[dict[str, float], float, int]:
    """The model: seconds for one head and one image by each of three bounds, bytes moved a query, atomic additions.

    A program steps through the blocks that the mask shows its own, so the time is that of a step times the pairs of
    blocks that are visited; both halves of the backward visit the same. Atomics are counted as instructions alone:
    there is no published rate for them, and what waits for them is not in the model.
    """
    pairs, size = visited(side, kernel_size), 2 if precision in ("bf16", "fp16") else 4
    programs = [side**2 // own for own, _ in kernel.steps]
    steps = {pairs * (BLOCK // own) * (BLOCK // other) for own, other in kernel.steps}
    loops = kernel.code.loops
    assert len(loops) == len(kernel.steps) and len(steps) == 1, kernel
    (count,) = steps
    # A program of the backward is of one half: it takes about half of what is in no loop.
    rest = (kernel.code.instructions - sum(loops)) / len(loops)
    issued = kernel.warps * (sum(programs) * rest + count * sum(loops))
    # q, k, v, out forwards; q, k, v, grad and one (two) gradients in each half of the backward.
    moved = side**2 * dim * size * (5 + 6 if kernel.backward else 4)
    bounds = {
        "issue": issued / card.issue,
        "products": pairs * BLOCK**2 * 2 * dim * (7 if kernel.backward else 2) / card.flops[precision],
        "memory": moved / card.bandwidth,
    }
    return bounds, moved / side**2, 32 * kernel.warps * kernel.code.atomics * count


def _kernels(card: Card, precision: str, dim: int, kernel_size: int, side: int, biased: bool) -> list[FlexKernel]:
    element, products = PRECISIONS[precision]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[element]
    torch.set_float32_matmul_precision("highest" if products == "ieee" else "high")
    target = GPUTarget("cuda", card.capability, 32)
    triton.runtime.driver.set_active(
        SimpleNamespace(get_current_target=lambda: target, get_current_device=lambda: 0)  # type: ignore[arg-type]
    )
    return [_counted(name, source, card) for name, source in _written(card, dtype, dim, kernel_size, side, biased)]


def _written(
    card: Card, dtype: torch.dtype, dim: int, kernel_size: int, side: int, biased: bool
) -> list[tuple[str, str]]:
    """Name and source of the kernels that Inductor makes from FlexAttention's templates, in order."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import flex_attention

    written: list[tuple[str, str]] = []
    options = flex_attention._apply_kernel_options

    def on_gpu(graph: fx.GraphModule, inputs: list[Tensor]) -> fx.GraphModule:
        graph, inputs = _moved(graph, inputs)
        with _believed(card, written):
            compile_fx_inner(graph, inputs)
        return graph

    def trained(*arguments: Any, **named: Any) -> Any:
        return options(*arguments, **named) | {"OUTPUT_LOGSUMEXP": True}

    backend = aot_autograd(fw_compiler=on_gpu, bw_compiler=on_gpu, decompositions=select_decomp_table)
    with (
        # On a CPU, FlexAttention refuses tensors that need gradients, and leaves out what the backward reads.
        patch.object(flex_attention, "_validate_device", lambda *tensors: None),
        patch.object(flex_attention, "_apply_kernel_options", trained),
        patch.object(flex, "_compiled", functools.partial(flex._compiled, backend)),
        config.patch(force_non_lazy_backward_lowering=True),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        qkv = torch.empty(1, side, side, 3, HEADS, dim, dtype=dtype, requires_grad=True)
        span = 2 * kernel_size - 1
        bias = torch.empty(HEADS, span, span, requires_grad=True) if biased else None
        flex.Flex()(*qkv.unbind(3), kernel_size=kernel_size, dilation=1, bias=bias, scale=dim**-0.5)
    return [(name, source) for name, source in written if "_tem_" in name]


def _moved(graph: fx.GraphModule, inputs: list[Tensor]) -> tuple[fx.GraphModule, list[Tensor]]:
    """The graph and its inputs on the GPU, with all that is known of its values."""
    fake = torch._guards.detect_fake_mode(inputs)

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            with fake:
                return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=GPU)
        return GPU if isinstance(value, torch.device) else value

    for module in graph.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.args, node.kwargs = (fx.node.map_aggregate(a, moved) for a in (node.args, node.kwargs))
                if "val" in node.meta:
                    node.meta["val"] = pytree.tree_map(moved, node.meta["val"])
            module.recompile()
    return graph, [moved(value) for value in inputs]


@contextmanager
def _believed(card: Card, written: list[tuple[str, str]]) -> Iterator[None]:
    """Within it Inductor finds one such card, and its kernels come into ``written`` uncompiled."""
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile

    major, minor = divmod(card.capability, 10)
    properties = SimpleNamespace(
        name="pretended",
        major=major,
        minor=minor,
        multi_processor_count=card.multiprocessors,
        max_threads_per_multi_processor=2048 if card.capability != 89 else 1536,
        max_threads_per_block=1024,
        regs_per_multiprocessor=65536,
        warp_size=32,
        shared_memory_per_block_optin=card.shared,
        total_memory=2**35,
        L2_cache_size=2**25,
    )

    def record(self: AsyncCompile, name: str, source: str, **options: Any) -> None:
        written.append((name, source))

    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: (major, minor),
        "get_device_properties": lambda device=None: properties,
        "_get_device_properties": lambda device: properties,
        "_exchange_device": lambda device: 0,
        "_maybe_exchange_device": lambda device: 0,
        "_lazy_init": lambda: None,
        "get_rng_state": lambda device=None: state,
        "set_rng_state": lambda new, device=None: None,
    }
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(patch.object(torch.cuda, name, answer, create=True))
        # Bound to their names in other modules before.
        stack.enter_context(patch.object(torch._C, "_cuda_getDevice", lambda: 0, create=True))
        stack.enter_context(patch.object(torch._C, "_cuda_getDeviceCount", lambda: 1, create=True))
        stack.enter_context(patch("torch._inductor.scheduler.has_triton", lambda: True))
        stack.enter_context(patch.object(AsyncCompile, "triton", record))
        stack.enter_context(config.patch(force_disable_caches=True))
        yield


def _counted(name: str, source: str, card: Card) -> FlexKernel:
    from torch._inductor.codecache import PyCodeCache

    tuner = getattr(PyCodeCache.load(source), name)
    (choice,), function = tuner.configs, tuner.fn
    constants = tuner.triton_meta["constants"] | choice.kwargs
    kernel = ASTSource(
        function,
        tuner.triton_meta["signature"] | dict.fromkeys(constants, "constexpr"),
        {(function.arg_names.index(argument),): value for argument, value in constants.items()},
        tuner.triton_meta["configs"][0],
    )
    options = {"num_warps": choice.num_warps, "num_stages": choice.num_stages}
    blocks = {key: int(value) for key, value in re.findall(r"^ +(BLOCK_\w+) : tl.constexpr = (\d+)", source, re.M)}
    return FlexKernel("backward" in name, choice.num_warps, blocks, counted(kernel, card.capability, options))
