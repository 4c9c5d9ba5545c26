"""What the Triton kernels cost on cards that are not here: compiled ahead of time, counted instruction by instruction.

    python benchmarks/triton_static.py                       # all kernels, dtypes and targets at the tiles in use
    python benchmarks/triton_static.py --dim 32              # of heads of this width; at the end, FlexAttention's
    python benchmarks/triton_static.py --search --dim 64     # candidates for the tiles
    python benchmarks/triton_static.py --norm                # the modulated norm's kernels instead of attention's

Prints registers, spills (bytes of stack), shared memory, tensor-core and atomic instructions of each kernel. And a
MODEL of its time for one head and one image at 256x256: the largest of three bounds, the rate at which instructions
are issued, the rate of tensor cores (or FFMA) and the bandwidth of the memory. No GPU is used; nothing was measured.
Below ours, FlexAttention's generated kernels, with the learned bias and without, are counted the same way.
"""

import argparse
import itertools
import re
from typing import TYPE_CHECKING

import norm_static
import torch
from static_kernels import CARDS, PRECISIONS, SHARED_LIMIT, Card, Compiled, counted, slowest
from triton.compiler import ASTSource

from stylenat.attention import triton_kernels
from stylenat.attention.flex import SMALLEST_HEAD
from stylenat.attention.flex_mask import BLOCK
from stylenat.attention.triton_fused import Tiles, power_of_two, tiles_for

if TYPE_CHECKING:
    from flex_static import FlexKernel

__all__ = ["SHARED_LIMIT", "compiled", "tiles_for"]

KERNELS = ("attention_forward", "attention_backward_queries", "attention_backward_keys")
TARGETS = (80, 89, 90, 100, 120)
SIDE = 256


def compiled(name: str, precision: str, dim: int, kernel_size: int, capability: int, tiles: Tiles) -> Compiled:
    """Compiles a kernel for a target that need not be there."""
    element, products = PRECISIONS[precision]
    function = getattr(triton_kernels, name)
    constants = {
        "KERNEL": kernel_size,
        "DIM": dim,
        "BLOCK": power_of_two(dim),
        "HAS_BIAS": True,
        "GRAD_BIAS": True,
        "SPAN": power_of_two(2 * kernel_size - 1),
        "PRECISION": products,
        "UPCAST": False,
        **tiles.constants(),
    }
    names = function.arg_names
    elements = {"q", "k", "v", "out", "grad", "grad_q", "grad_k", "grad_v"}
    types = {"scale": "fp32"} | dict.fromkeys(elements, f"*{element}")
    types |= dict.fromkeys(("bias", "logsum", "delta", "partial"), "*fp32")
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    # As at run time: addresses and strides that are multiples of 16.
    aligned = [i for i, name in enumerate(names) if signature[name][0] == "*" or re.fullmatch(r"\w+_[byxh]", name)]
    source = ASTSource(
        function,
        signature,
        {(i,): constants[name] for i, name in enumerate(names) if name in constants},
        {(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    return counted(source, capability, {"num_warps": tiles.warps, "num_stages": tiles.stages})


def strips(tiles: Tiles, kernel_size: int) -> tuple[int, int]:
    """Rows of strips, and strips in each, that a tile away from the border walks over."""
    (y, x), (sy, sx) = ((t + kernel_size - 1 for t in tiles.tile), tiles.strip)
    return -(-y // sy), -(-x // sx)


def seconds(
    card: Card, name: str, code: Compiled, precision: str, dim: int, kernel_size: int, tiles: Tiles
) -> tuple[dict[str, float], float]:
    """The model: seconds for one head and one image of SIDE x SIDE by each of three bounds, and bytes moved a query."""
    count = (SIDE // tiles.tile[0]) * (SIDE // tiles.tile[1])
    rows, columns = strips(tiles, kernel_size)
    # The loop over strips of a row lies within the loop over rows.
    inner, outer = (code.loops[0], code.loops[-1]) if code.loops else (0, 0)
    issued = count * tiles.warps * (code.instructions - outer + rows * (outer - inner + columns * inner))
    pairs = tiles.tile[0] * tiles.tile[1] * rows * columns * tiles.strip[0] * tiles.strip[1]
    products = {"attention_forward": 2, "attention_backward_queries": 3, "attention_backward_keys": 4}[name]
    width = power_of_two(dim)
    size = 2 if precision in ("bf16", "fp16") else 4
    # q, k, v, out once; with the backward's also grad and what it writes. The halo's second reading is the cache's.
    moved = SIDE**2 * dim * size * {"attention_forward": 4, "attention_backward_queries": 6}.get(name, 6)
    bounds = {
        "issue": issued / card.issue,
        "products": count * pairs * 2 * width * products / card.flops[precision],
        "memory": moved / card.bandwidth,
    }
    return bounds, moved / SIDE**2


CANDIDATES = [
    Tiles(tile, strip, warps)
    for tile in ((8, 8), (4, 8))
    for strip in ((2, 16), (1, 16))
    for warps in (4, 8)
    if tile[0] * strip[0] >= 16 or tile == (8, 8)
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, action="append", help="head_dim (default: 8 16 32 64)")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="(default: all)")
    parser.add_argument("--kernel-size", type=int, default=7)
    parser.add_argument("--search", action="store_true", help="try every candidate for the tiles")
    parser.add_argument("--norm", action="store_true", help="the modulated norm's kernels instead of attention's")
    arguments = parser.parse_args()
    if arguments.norm:
        for row in norm_static.rows(TARGETS):
            print(row, flush=True)
        return
    header = f"{'type':>6}{'dim':>5}{'sm':>5}  {'tiles':18} regs stack shared  MMA atom  model, us a head"
    print(f"{'kernel':28}{header}")
    precisions, dims = arguments.precision or list(PRECISIONS), arguments.dim or [8, 16, 32, 64]
    for name, precision, dim, capability in itertools.product(KERNELS, precisions, dims, TARGETS):
        for tiles in CANDIDATES if arguments.search else [tiles_for(name, dim, precision)]:
            print(_row(name, precision, dim, arguments.kernel_size, capability, tiles), flush=True)
    if arguments.search:
        return
    if torch.version.cuda is None:
        print("FlexAttention is left out: this PyTorch is not built for CUDA")
        return
    from flex_static import flex_kernels, visited

    pairs, blocks = visited(SIDE, arguments.kernel_size), -(-(SIDE**2) // BLOCK)
    print(f"FlexAttention visits {pairs} of {blocks**2} pairs of blocks; tiles: rows of a program's block x of a step")
    dims = [dim for dim in dims if dim >= SMALLEST_HEAD]
    for biased, precision, dim, title in itertools.product((True, False), precisions, dims, CARDS):
        for kernel in flex_kernels(CARDS[title], precision, dim, arguments.kernel_size, SIDE, biased):
            print(_flex_row(kernel, title, precision, dim, arguments.kernel_size, biased), flush=True)


def _row(name: str, precision: str, dim: int, kernel_size: int, capability: int, tiles: Tiles) -> str:
    code = compiled(name, precision, dim, kernel_size, capability, tiles)
    shown = f"{tiles.tile[0]}x{tiles.tile[1]} {tiles.strip[0]}x{tiles.strip[1]} w{tiles.warps}"
    row = f"{name:28}{precision:>6}{dim:5}{capability:5}  {shown:18}{code}  "
    for title, card in CARDS.items():
        if card.capability == capability:
            bounds, bytes_a_query = seconds(card, name, code, precision, dim, kernel_size, tiles)
            row += f"{title}: {slowest(bounds)}; {bytes_a_query:.0f} bytes a query"
    return row


def _flex_row(kernel: "FlexKernel", title: str, precision: str, dim: int, kernel_size: int, biased: bool) -> str:
    from flex_static import flex_seconds

    card = CARDS[title]
    bounds, bytes_a_query, additions = flex_seconds(card, kernel, precision, dim, kernel_size, SIDE)
    name = f"flex {'backward' if kernel.backward else 'forward'}, {'bias' if biased else 'no bias'}"
    shown = "{}x{} w{}".format(*kernel.steps[0], kernel.warps)
    row = f"{name:28}{precision:>6}{dim:5}{card.capability:5}  {shown:18}{kernel.code}  "
    row += f"{title}: {slowest(bounds)}; {bytes_a_query:.0f} bytes a query"
    return row + (f"; {additions / 1e6:.0f} million atomic additions" if additions else "")


if __name__ == "__main__":
    main()
