"""The modulated norm's kernels on cards that are not here: what they are compiled to, and a MODEL of their time.

``triton_static.py --norm`` prints it. The model is that of attention: the larger of two bounds, instructions issued and
bytes moved.
"""

from collections.abc import Iterator

from static_kernels import CARDS, Card, Compiled, counted, slowest
from triton.compiler import ASTSource

from stylenat.networks import fused_norm_kernels
from stylenat.networks.fused_norm import MOST, WARPS, Cut, cut_for

KERNELS = ("norm_statistics", "norm_forward", "norm_backward_sums", "norm_backward")
ELEMENTS = {
    "float32": ("fp32", "fp32"),
    "autocast": ("fp32", "bf16"),
    "bf16": ("bf16", "bf16"),
    "fp16": ("fp16", "fp16"),
}
"""Types of x, and of the result and the modulation. ``autocast``: in bf16, with x in float32, as in training."""
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
PASSES = {
    "norm_statistics": (1, 0), "norm_forward": (1, 1), "norm_backward_sums": (1, 1), "norm_backward": (2, 1)
}  # fmt: skip
"""How often a kernel moves a map of x's type, and one of the result's."""
BATCH, SIDE, CHANNELS = 32, 256, 128
"""Of the largest maps of ffhq256."""


def compiled(name: str, elements: str, cut: Cut, capability: int, alone: bool) -> Compiled:
    """Compiles a kernel for a target that need not be there.

    Args:
        alone: whether a program has all tokens of its channels.
    """
    function, (x, other) = getattr(fused_norm_kernels, name), ELEMENTS[elements]
    names = function.arg_names
    constants = {"ALONE": alone, "ROWS": cut.rows, "BLOCK": cut.block, "CHUNKS": MOST, "m_c": 1}
    constants = {name: value for name, value in constants.items() if name in names}
    types = {"eps": "fp32", "partial": "*fp32", "statistics": "*fp32", "x": f"*{x}", "grad_x": f"*{x}"}
    types |= dict.fromkeys(("out", "grad", "modulation", "grad_modulation"), f"*{other}")
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    # As at run time: addresses, sizes and strides that are multiples of 16.
    aligned = [i for i, name in enumerate(names) if signature[name] != "constexpr" and name != "eps"]
    source = ASTSource(
        function,
        signature,
        {(i,): constants[name] for i, name in enumerate(names) if name in constants},
        {(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    return counted(source, capability, {"num_warps": WARPS})


def seconds(card: Card, name: str, code: Compiled, elements: str, cut: Cut) -> tuple[dict[str, float], int]:
    """The model: seconds for one image by each bound, and bytes moved a number of the map."""
    tokens = SIDE**2
    programs = cut.chunks(tokens) * -(-CHANNELS // cut.block)
    (loop,) = code.loops
    issued = programs * WARPS * (code.instructions - loop + cut.chunk // cut.rows * loop)
    moved = sum(n * BYTES[kind] for n, kind in zip(PASSES[name], ELEMENTS[elements], strict=True))
    return {"issue": issued / card.issue, "memory": moved * tokens * CHANNELS / card.bandwidth}, moved


def rows(capabilities: tuple[int, ...]) -> Iterator[str]:
    """A line for each kernel, type and target, as the batch of ffhq256 cuts its largest maps."""
    cut = cut_for(BATCH, SIDE**2, CHANNELS)
    size = f"{SIDE}x{SIDE}x{CHANNELS}"
    yield f"{'kernel':22}{'type':>9}{'sm':>5}  regs stack shared  MMA atom  model, us an image of {size}"
    for name in KERNELS:
        for elements in ("float32", "autocast"):
            for capability in capabilities:
                code = compiled(name, elements, cut, capability, alone=False)
                row = f"{name:22}{elements:>9}{capability:5} {code}  "
                for title, card in CARDS.items():
                    if card.capability == capability:
                        bounds, moved = seconds(card, name, code, elements, cut)
                        row += f"{title}: {slowest(bounds)}; {moved} bytes a number"
                yield row
