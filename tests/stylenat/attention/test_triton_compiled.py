"""What the Triton kernels are compiled to for cards that are not here: no spills, tensor cores, no atomics."""

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


def compiled_for(cases, cache):
    """The figures of each case, from a process in which Triton compiles instead of interpreting."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(cases)],
        env=environment | {"PYTHONPATH": path, "TRITON_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


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
