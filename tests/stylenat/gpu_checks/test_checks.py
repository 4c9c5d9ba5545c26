"""Each check in its small form on the CPU, and what an inexact backend is."""

import itertools
import re
import time

import pytest
import torch
from pretended_gpu import pretended_gpu

from registry import UserError
from stylenat.attention.dense import Dense
from stylenat.gpu_checks import (
    CHECKS,
    Row,
    attention,
    compilation,
    determinism,
    exactness,
    experiments,
    measure,
    norm,
    quickstart,
    resume,
    sampling,
    training,
)
from stylenat.gpu_checks.exactness import SMALL, compared

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    """As in the process of a check: one thread, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Wrong(Dense):
    """``dense`` with something done to its result."""

    name = "wrong"

    def __init__(self, change):
        self.change = change

    def __call__(self, *tensors, **options):
        return self.change(super().__call__(*tensors, **options))


def raises(out):
    raise RuntimeError("an illegal memory access")


class OtherGradient(torch.autograd.Function):
    """The identity, whose gradient is a thousandth too large."""

    @staticmethod
    def forward(context, x):
        return x.view_as(x)

    @staticmethod
    def backward(context, gradient):
        return gradient * 1.001


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda out: out * 1.001, "output 0.001"),
        (lambda out: out / 0 * 0, "output not finite"),
        (OtherGradient.apply, "dq 0.001"),
        (raises, "failed at .*RuntimeError: an illegal memory access"),
    ],
)
def test_a_backend_that_errs_or_fails_is_inexact(change, found):
    row = compared(Wrong(change), "float32", list(SMALL), CPU)
    assert row.exact is False and str(row).startswith("INEXACT")
    assert re.search(found, str(row))


def test_every_backend_is_exact_or_says_why_it_cannot_be_used():
    rows = {row.case: row for row in exactness.rows(CPU)}
    for row in rows.values():
        assert row.exact or row.note.startswith("not usable: ")
    for precision in measure.PRECISIONS:
        assert rows[f"dense, {precision}"].exact and rows[f"tiled, {precision}"].exact
        assert "for CUDA" in rows[f"natten, {precision}"].note


def test_the_norm_is_exact_and_timed_beside_the_plain_formula(monkeypatch):
    rows = list(norm.rows(CPU))
    assert rows and all(row.exact and row.values["same bits twice"] for row in rows)
    assert all(row.values["fused ms"] > 0 and row.values["plain ms"] > 0 for row in rows)
    monkeypatch.setattr(norm, "fused", lambda *given: 1.001 * norm.plain(*given))
    assert not any(row.exact for row in norm.rows(CPU) if "float32" in row.case)
    monkeypatch.setattr(norm, "fused", lambda *given: raises(given))
    assert all(row.exact is False and "illegal memory access" in row.note for row in norm.rows(CPU))


def test_the_op_is_timed_by_backend_with_and_without_bias():
    rows = list(attention.rows(CPU))
    assert all(row.values["forward and backward ms"] > 0 for row in rows)
    assert {row.case.partition("heads, ")[2] for row in rows} >= {"TF32, dense with bias", "bf16, tiled without bias"}


@pytest.mark.parametrize("module", [sampling, training, compilation])
def test_the_networks_are_timed(module):
    rows = list(module.rows(CPU))
    assert rows and all(row.values["images/s"] > 0 for row in rows)


def test_the_quickstart_ends_with_metrics():
    (row,) = quickstart.rows(CPU)
    assert row.values["iterations"] == 2 and row.values["swd"] > 0


def test_equal_iterations_have_equal_bits_on_a_cpu(monkeypatch):
    assert [row.values["equal bits"] for row in determinism.rows(CPU)] == [True, True]
    begun, seeds = determinism._begun, itertools.count()

    def otherwise(device):
        state, real = begun(device)
        return state, real + next(seeds)

    monkeypatch.setattr(determinism, "_begun", otherwise)
    assert [row.values["equal bits"] for row in determinism.rows(CPU)] == [False, False]


def test_a_continued_run_has_equal_bits_on_a_cpu():
    assert [(row.case, row.values["equal bits"]) for row in resume.rows(CPU)] == [
        ("uninterrupted", True),
        ("continued from half", True),
        ("from the start again", True),
    ]


def test_a_failed_case_is_a_row_and_the_others_go_on(capsys):
    def refuse():
        raise UserError("no such thing")

    def full():
        raise torch.OutOfMemoryError("2 GiB")

    def fail():
        raise ValueError("three")

    assert [measure.attempt("a", work).note for work in (refuse, full, fail)] == [
        "no such thing",
        "out of memory",
        "failed: ValueError: three",
    ]
    assert "Traceback" in capsys.readouterr().err


def test_a_precision_holds_for_its_block_alone():
    before = torch.backends.cuda.matmul.allow_tf32
    with measure.precision("bf16", CPU) as dtype:
        assert dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu") and torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before and not torch.is_autocast_enabled("cpu")


def test_launches_and_waits_are_counted_and_unknown_where_the_profiler_sees_none():
    calls = {"cudaLaunchKernel": 3, "cuLaunchKernelEx": 2, "cudaStreamSynchronize": 4, "cudaDeviceSynchronize": 9}
    assert measure.counted(calls) == {"launches": 5, "waits": 4}
    assert measure.counted({"aten::mm": 3}) == {"launches": None, "waits": None}


def test_a_row_shows_numbers_short_and_nothing_that_could_not_be_measured():
    assert str(Row("a", {"ms": 1.23456, "peak GiB": None, "equal bits": False}, exact=True)) == (
        "exact, ms 1.23, equal bits NO"
    )


def test_every_check_is_a_module():
    from importlib import import_module

    assert all(callable(import_module(f"stylenat.gpu_checks.{check.module}").rows) for check in CHECKS.values())


class Clock:
    """In the place of ``torch.cuda.Event``, which needs a driver."""

    def __init__(self, enable_timing):
        self.at = 0.0

    def record(self):
        self.at = time.perf_counter()

    def elapsed_time(self, later):
        return 1000 * (later.at - self.at)


def test_on_a_pretended_gpu_no_check_mixes_devices(monkeypatch):
    """The branches that only a GPU takes, at the small sizes."""
    monkeypatch.setattr(exactness, "CASES", SMALL[:1])
    monkeypatch.setattr(training, "CASES", ((4, "train.tf32 = True"), (4, "train.precision = 'bf16'")))
    monkeypatch.setattr(training, "launches_and_waits", lambda work, device: {})
    for module in (sampling, training, determinism):
        monkeypatch.setattr(module, "ffhq256", lambda device, *bindings: experiments.ffhq256(CPU, *bindings))
        monkeypatch.setattr(module, "seconds", lambda work, device, **options: measure.seconds(work, device, 1, 0))
    exactness.reference.cache_clear()
    with pretended_gpu(), monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "Event", Clock)
        patched.setattr(torch.cuda, "max_memory_allocated", lambda: 2**30)
        for name in ("reset_peak_memory_stats", "empty_cache"):
            patched.setattr(torch.cuda, name, lambda: None)
        device = torch.device("cuda", 0)
        exact = {row.case: row for row in exactness.rows(device)}
        rows = [*itertools.islice(sampling.rows(device), 3), *training.rows(device)]
        same = [row.values["equal bits"] for row in determinism.rows(device)]
    exactness.reference.cache_clear()
    assert exact["dense, float32"].exact and exact["tiled, float32"].exact
    assert same == [True, True]
    for row in rows:
        assert not row.note and row.values["images/s"] > 0, row
