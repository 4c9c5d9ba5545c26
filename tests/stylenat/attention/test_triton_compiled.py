"""What the Triton kernels are compiled to for cards that are not here: no spills, tensor cores, no atomics.

Those of attention, and those of the modulated norm, which have no products.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds for Linux")
ROOT = Path(__file__).parents[3]
KERNELS = ("attention_forward", "attention_backward_queries", "attention_backward_keys")
CODE = """
import dataclasses, json, sys
from triton_static import SHARED_LIMIT, compiled, tiles_for
for name, precision, dim, capability in json.loads(sys.argv[1]):
    code = compiled(name, precision, dim, 7, capability, tiles_for(name, dim, precision))
    print(json.dumps(dataclasses.asdict(code) | {"case": [name, precision, dim, capability], "limit": SHARED_LIMIT}))
"""
NORM = """
import dataclasses, json, sys
from norm_static import compiled, cut_for
for name, elements, channels, capability, alone in json.loads(sys.argv[1]):
    code = compiled(name, elements, cut_for(8, 2**16, channels), capability, alone)
    print(json.dumps(dataclasses.asdict(code) | {"case": [name, elements, channels, capability, alone]}))
"""
NORM_KERNELS = [(name, alone) for name in ("norm_forward", "norm_backward") for alone in (False, True)]
NORM_KERNELS += [("norm_statistics", False), ("norm_backward_sums", False)]
FLEX = """
import dataclasses, json
from flex_static import flex_kernels, flex_seconds
from static_kernels import CARDS
if __name__ == "__main__":
    card = CARDS["H100"]
    for biased in (True, False):
        for kernel in flex_kernels(card, "bf16", 16, 3, 32, biased):
            bounds, _, additions = flex_seconds(card, kernel, "bf16", 16, 3, 32)
            shown = {"biased": biased, "backward": kernel.backward, "bounds": bounds, "additions": additions}
            print(json.dumps(dataclasses.asdict(kernel.code) | shown))
"""


def run(cache, *arguments, path=()):
    """A process in which Triton compiles instead of interpreting, with the benchmarks to import."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([*map(str, path), str(ROOT), str(ROOT / "benchmarks")])
    environment |= {"PYTHONPATH": path, "TRITON_CACHE_DIR": str(cache)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def compiled_for(cases, cache):
    """The figures of each case."""
    return lines(run(cache, "-c", CODE, json.dumps(cases)))


def must_fit(found):
    for code in found:
        assert code["stack"] == 0 and code["atomics"] == 0 and code["shared"] <= code["limit"], code
        assert (code["tensor"] > 0) == (code["case"][1] != "ieee"), code


def test_every_kernel_fits_the_oldest_and_the_newest_card(tmp_path):
    cases = [(kernel, *case, 32) for kernel in KERNELS for case in (("bf16",), ("ieee",))]
    must_fit(compiled_for([(*case, 80 if case[1] == "bf16" else 120) for case in cases], tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("dim", [8, 16, 32, 64])
def test_every_kernel_fits_every_card_in_every_precision(dim, tmp_path):
    precisions, targets = ("bf16", "fp16", "tf32", "ieee"), (80, 89, 90, 100, 120)
    must_fit(compiled_for(list(itertools.product(KERNELS, precisions, (dim,), targets)), tmp_path))


def norms_fit(types, channels, targets, cache):
    cases = [
        (name, elements, width, capability, alone)
        for (name, alone), elements, width, capability in itertools.product(NORM_KERNELS, types, channels, targets)
        if width >= 64 or not alone  # Small maps are wide.
    ]
    found = lines(run(cache, "-c", NORM, json.dumps(cases)))
    assert len(found) == len(cases)
    for code in found:
        assert code["stack"] == 0 and code["atomics"] == 0 and code["tensor"] == 0, code
        # In two loops where a program has all tokens: over what it adds up, and over what it writes.
        assert len(code["loops"]) == (2 if code["case"][-1] else 1), code


def test_every_kernel_of_the_norm_fits_an_ordinary_card(tmp_path):
    norms_fit(["autocast"], [128], [89], tmp_path)


@pytest.mark.slow
def test_every_kernel_of_the_norm_fits_every_card_in_the_types_of_training(tmp_path):
    norms_fit(["float32", "autocast"], [16, 512], [80, 89, 90, 100, 120], tmp_path)


def test_atomics_and_tensor_cores_are_counted_by_all_of_their_names(tmp_path):
    code = "import static_kernels as s, sys, json; print(json.dumps(s.kinds(sys.argv[1:])))"
    opcodes = ["RED.E.ADD.F32", "REDG.E.ADD", "ATOM.E", "ATOMG.E", "ATOMS.CAS", "HMMA.16816.F32", "HGMMA", "HFMA2.MMA"]
    assert lines(run(tmp_path, "-c", code, *opcodes)) == [[2, 4]]


def test_without_triton_the_benchmark_says_so_in_one_line(tmp_path):
    (tmp_path / "triton.py").write_text("raise ImportError('no module named triton')")
    done = run(tmp_path, str(ROOT / "benchmarks" / "triton_static.py"), path=[tmp_path])
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "Triton is not installed; it comes with PyTorch's CUDA builds for Linux\n"


@pytest.mark.slow
def test_flexattentions_generated_kernels_are_counted_the_same_way(tmp_path):
    script = tmp_path / "flex.py"
    script.write_text(FLEX)
    found = lines(run(tmp_path, str(script)))
    assert [(code["biased"], code["backward"]) for code in found] == [
        (b, w) for b in (True, False) for w in (False, True)
    ]
    for code in found:
        assert code["tensor"] > 0 and len(code["loops"]) == (2 if code["backward"] else 1), code
        # The gradient of the bias is added up by atomics, that of nothing else.
        assert (code["additions"] > 0) == (code["atomics"] > 0) == (code["biased"] and code["backward"]), code
        assert all(seconds > 0 for seconds in code["bounds"].values()), code
