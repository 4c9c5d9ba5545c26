"""What the Triton kernels cost on cards that are not here: compiled ahead of time, counted instruction by instruction.

    python benchmarks/triton_static.py                       # all kernels, dtypes and targets at the tiles in use
    python benchmarks/triton_static.py --search --dim 64     # candidates for the tiles

Prints registers, spills (bytes of stack), shared memory, tensor-core and atomic instructions of each kernel. And a
MODEL of its time for one head and one image at 256x256: the largest of three bounds, the rate at which instructions
are issued, the rate of tensor cores (or FFMA) and the bandwidth of the memory. No GPU is used; nothing was measured.
"""

import argparse
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stylenat.attention import triton_kernels
from stylenat.attention.triton_fused import Tiles, power_of_two, tiles_for

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
KERNELS = ("attention_forward", "attention_backward_queries", "attention_backward_keys")
TARGETS = (80, 89, 90, 100, 120)
PRECISIONS = {"bf16": ("bf16", "tf32"), "fp16": ("fp16", "tf32"), "tf32": ("fp32", "tf32"), "ieee": ("fp32", "ieee")}
"""Element type of q, k, v, and precision of float32 products."""
SHARED_LIMIT = 99 * 1024
"""Bytes of shared memory that every one of the targets gives a program."""


@dataclass(frozen=True)
class Card:
    """A card by its published figures.

    Attributes:
        issue: warp instructions a second: multiprocessors x 4 schedulers x boost clock.
        flops: of dense products, by precision; bandwidth: bytes a second.
    """

    capability: int
    issue: float
    flops: dict[str, float]
    bandwidth: float


CARDS = {
    "A100": Card(80, 108 * 4 * 1.41e9, {"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "ieee": 19.5e12}, 2.04e12),
    "RTX 4090": Card(89, 128 * 4 * 2.52e9, {"bf16": 165e12, "fp16": 165e12, "tf32": 82.6e12, "ieee": 82.6e12}, 1.01e12),
    "H100": Card(90, 132 * 4 * 1.83e9, {"bf16": 989e12, "fp16": 989e12, "tf32": 494e12, "ieee": 66.9e12}, 3.35e12),
}


@dataclass(frozen=True)
class Compiled:
    """A kernel as it was compiled for one target.

    Attributes:
        inner, outer, rest: instructions in the loop over strips of a row, in the loop over rows without that, and
            outside of both.
    """

    registers: int
    stack: int
    shared: int
    tensor: int
    atomics: int
    inner: int
    outer: int
    rest: int

    @property
    def fits(self) -> bool:
        """Whether nothing is spilled, every target has the shared memory, and no sum depends on an order."""
        return self.stack == 0 and self.shared <= SHARED_LIMIT and self.atomics == 0


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
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary.asm["cubin"])
        usage, text = (_output(tool, path) for tool in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c")))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    code = list(_instructions(text))
    counts = Counter(opcode.split(".")[0] for opcode, _ in code)
    inner, outer = _loops(text, code)
    return Compiled(
        int(found[1]),
        int(found[2]),
        binary.metadata.shared,
        sum(count for opcode, count in counts.items() if "MMA" in opcode),
        # Of global memory: those of shared memory (ATOMS) are how Blackwell's tensor memory is handed out.
        sum(count for opcode, count in counts.items() if opcode in ("ATOM", "ATOMG", "RED")),
        inner,
        outer - inner,
        len(code) - outer,
    )


def _output(tool: tuple[str, str], path: Path) -> str:
    command = [str(TOOLS / tool[0]), tool[1], str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _instructions(text: str) -> Iterator[tuple[str, int]]:
    """Each instruction's opcode with its place in the text."""
    for match in re.finditer(r"^\s+(?:/\*[0-9a-f]+\*/\s+)?(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]+)", text, re.MULTILINE):
        if not match[1].startswith("NOP"):
            yield match[1], match.start()


def _loops(text: str, code: list[tuple[str, int]]) -> tuple[int, int]:
    """Instructions in the inner loop, and in the outer one around it, by the branches that lead back."""
    labels = {match[1]: match.start() for match in re.finditer(r"^(\.L_x_\d+):", text, re.MULTILINE)}
    back = []
    for match in re.finditer(r"BRA\S* .*`\((\.L_x_\d+)\)", text):
        begin = labels[match[1]]
        if begin < match.start():
            back.append(sum(begin <= place <= match.start() for _, place in code))
    back = sorted(count for count in back if count > 4)  # The endless loop behind every kernel's end is one of 1.
    return (back[0], back[-1]) if back else (0, 0)


def strips(tiles: Tiles, kernel_size: int) -> tuple[int, int]:
    """Rows of strips, and strips in each, that a tile away from the border walks over."""
    (y, x), (sy, sx) = ((t + kernel_size - 1 for t in tiles.tile), tiles.strip)
    return -(-y // sy), -(-x // sx)


def seconds(card: Card, name: str, code: Compiled, precision: str, dim: int, kernel_size: int, tiles: Tiles) -> dict:
    """The model: seconds for one head and one image of 256x256, by each of the three bounds."""
    count = (256 // tiles.tile[0]) * (256 // tiles.tile[1])
    rows, columns = strips(tiles, kernel_size)
    issued = count * tiles.warps * (code.rest + rows * (code.outer + columns * code.inner))
    pairs = tiles.tile[0] * tiles.tile[1] * rows * columns * tiles.strip[0] * tiles.strip[1]
    products = {"attention_forward": 2, "attention_backward_queries": 3, "attention_backward_keys": 4}[name]
    width = power_of_two(dim)
    halo = (tiles.tile[0] + kernel_size - 1) * (tiles.tile[1] + kernel_size - 1) / (tiles.tile[0] * tiles.tile[1])
    size = 2 if precision in ("bf16", "fp16") else 4
    # q, k, v, out once; with the backward's also grad and what it writes. The halo's second reading is the cache's.
    moved = 256**2 * dim * size * {"attention_forward": 4, "attention_backward_queries": 6}.get(name, 6)
    return {
        "issue": issued / card.issue,
        "products": count * pairs * 2 * width * products / card.flops[precision],
        "memory": moved / card.bandwidth,
        "bytes a query": moved / 256**2,
        "halo": halo,
    }


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
    arguments = parser.parse_args()
    print(
        f"{'kernel':28}{'type':>6}{'dim':>5}{'sm':>5}  tiles              regs stack shared  MMA atom  model, us a head"
    )
    for name in KERNELS:
        for precision in arguments.precision or PRECISIONS:
            for dim in arguments.dim or (8, 16, 32, 64):
                for capability in TARGETS:
                    for tiles in CANDIDATES if arguments.search else [tiles_for(name, dim, precision)]:
                        print(_row(name, precision, dim, arguments.kernel_size, capability, tiles), flush=True)


def _row(name: str, precision: str, dim: int, kernel_size: int, capability: int, tiles: Tiles) -> str:
    code = compiled(name, precision, dim, kernel_size, capability, tiles)
    shown = f"{tiles.tile[0]}x{tiles.tile[1]} {tiles.strip[0]}x{tiles.strip[1]} w{tiles.warps}"
    row = f"{name:28}{precision:>6}{dim:5}{capability:5}  {shown:18}{code.registers:5}{code.stack:6}{code.shared:7}"
    row += f"{code.tensor:5}{code.atomics:5}  "
    for title, card in CARDS.items():
        if card.capability == capability:
            bounds = seconds(card, name, code, precision, dim, kernel_size, tiles)
            limits = {part: bounds[part] for part in ("issue", "products", "memory")}
            worst = max(limits, key=limits.__getitem__)
            row += f"{title}: {1e6 * limits[worst]:.1f} ({worst}; " + ", ".join(
                f"{part} {1e6 * value:.1f}" for part, value in limits.items() if part != worst
            )
            row += f"; {bounds['bytes a query']:.0f} bytes a query)"
    return row


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    main()
