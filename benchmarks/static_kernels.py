"""What a kernel is compiled to for cards that are not here, and the cards by their published figures."""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Triton reads it when a kernel is decorated, at the import of the kernels.
os.environ.pop("TRITON_INTERPRET", None)
try:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
except ImportError:
    print("Triton is not installed; it comes with PyTorch's CUDA builds for Linux", file=sys.stderr)
    sys.exit(2)

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SHARED_LIMIT = 99 * 1024
"""Bytes of shared memory that every one of the targets gives a program."""
PRECISIONS = {"bf16": ("bf16", "tf32"), "fp16": ("fp16", "tf32"), "tf32": ("fp32", "tf32"), "ieee": ("fp32", "ieee")}
"""Element type of q, k, v, and precision of float32 products."""


@dataclass(frozen=True)
class Card:
    """A card by its published figures.

    Attributes:
        clock: boost, in Hz.
        shared: bytes of shared memory that a program can ask for.
        flops: of dense products, by precision.
        bandwidth: bytes a second.
    """

    capability: int
    multiprocessors: int
    clock: float
    shared: int
    flops: dict[str, float]
    bandwidth: float

    @property
    def issue(self) -> float:
        """Warp instructions a second: a multiprocessor has four schedulers."""
        return self.multiprocessors * 4 * self.clock


CARDS = {
    "A100": Card(
        80, 108, 1.41e9, 163 * 1024, {"bf16": 312e12, "fp16": 312e12, "tf32": 156e12, "ieee": 19.5e12}, 2.04e12
    ),
    "RTX 4090": Card(
        89, 128, 2.52e9, 99 * 1024, {"bf16": 165e12, "fp16": 165e12, "tf32": 82.6e12, "ieee": 82.6e12}, 1.01e12
    ),
    "H100": Card(
        90, 132, 1.83e9, 227 * 1024, {"bf16": 989e12, "fp16": 989e12, "tf32": 494e12, "ieee": 66.9e12}, 3.35e12
    ),
}


@dataclass(frozen=True)
class Compiled:
    """A kernel as it was compiled for one target.

    Attributes:
        stack: bytes that are spilled; shared: bytes of shared memory.
        tensor, atomics: instructions of tensor cores, and atomic ones on global memory.
        instructions: of the whole kernel; loops: of each loop, those of the loops within it included, fewest first.
    """

    registers: int
    stack: int
    shared: int
    tensor: int
    atomics: int
    instructions: int
    loops: tuple[int, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing is spilled, every target has the shared memory, and no sum depends on an order."""
        return self.stack == 0 and self.shared <= SHARED_LIMIT and self.atomics == 0

    def __str__(self) -> str:
        return f"{self.registers:5}{self.stack:6}{self.shared:7}{self.tensor:5}{self.atomics:5}"


def counted(source: ASTSource, capability: int, options: Mapping[str, Any]) -> Compiled:
    """Compiles a kernel for a target that need not be there, and counts its instructions."""
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(options))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary.asm["cubin"])
        usage, text = (_output(tool, path) for tool in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c")))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    code = list(_instructions(text))
    tensor, atomics = kinds(opcode for opcode, _ in code)
    return Compiled(
        int(found[1]), int(found[2]), binary.metadata.shared, tensor, atomics, len(code), tuple(_loops(text, code))
    )


def kinds(opcodes: Iterable[str]) -> tuple[int, int]:
    """How many instructions are of tensor cores, and how many are atomic on global memory."""
    counts = Counter(opcode.split(".")[0] for opcode in opcodes)
    # Atomics on shared memory (ATOMS) are how Blackwell's tensor memory is handed out. From Hopper on RED is REDG.
    return (
        sum(count for opcode, count in counts.items() if "MMA" in opcode),
        sum(counts[opcode] for opcode in ("ATOM", "ATOMG", "RED", "REDG")),
    )


def slowest(bounds: Mapping[str, float]) -> str:
    """The largest of the bounds (seconds) in microseconds, with its name, and the others."""
    worst = max(bounds, key=bounds.__getitem__)
    others = ", ".join(f"{part} {1e6 * value:.1f}" for part, value in bounds.items() if part != worst)
    return f"{1e6 * bounds[worst]:.1f} ({worst}; {others})"


def _output(tool: tuple[str, str], path: Path) -> str:
    command = [str(TOOLS / tool[0]), tool[1], str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _instructions(text: str) -> Iterator[tuple[str, int]]:
    """Each instruction's opcode with its position in the text."""
    for match in re.finditer(r"^\s+(?:/\*[0-9a-f]+\*/\s+)?(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]+)", text, re.MULTILINE):
        if not match[1].startswith("NOP"):
            yield match[1], match.start()


def _loops(text: str, code: list[tuple[str, int]]) -> list[int]:
    """Instructions in each loop, fewest first, by the branches that lead back."""
    labels = {match[1]: match.start() for match in re.finditer(r"^(\.L_x_\d+):", text, re.MULTILINE)}
    back = []
    for match in re.finditer(r"BRA\S* .*`\((\.L_x_\d+)\)", text):
        begin = labels[match[1]]
        if begin < match.start():
            back.append(sum(begin <= position <= match.start() for _, position in code))
    return sorted(count for count in back if count > 4)  # The endless loop behind every kernel's end is one of 1.
