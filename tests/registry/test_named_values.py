"""Members of an Enum, dtypes and paths: bound by their text, checked, and written so that they reload."""

import pytest
import torch

from registry import UserError
from stylenat.commands._listing import explain

PLUGIN = """
import enum
from pathlib import Path
from typing import Any

import torch

from registry import hookimpl


class Mode(enum.Enum):
    FAST = 1
    EXACT = "slow"


class Metric:
    def __init__(
        self,
        mode: Mode = Mode.FAST,
        modes: tuple[Mode, ...] | None = (Mode.FAST, Mode.EXACT),
        dtype: torch.dtype = torch.float32,
        folder: Path | None = None,
        by_name: dict[str, Path] = {"a": Path("b")},
        loose=Mode.FAST,
    ):
        self.mode, self.modes, self.dtype, self.folder, self.by_name, self.loose = (
            mode, modes, dtype, folder, by_name, loose,
        )


@hookimpl
def stylenat_register(register):
    register("metric", "named", Metric)
"""
GOOD = "train.iterations = 1\ntrain.metrics = [@metric.named()]\n"
BOUND = """
metric.named.mode = 'EXACT'
metric.named.modes = ['EXACT']
metric.named.dtype = 'float16'
metric.named.folder = 'some/where'
metric.named.by_name = {'x': 'y'}
"""


@pytest.fixture
def registry(workshop):
    workshop.distribution("named", "1.0", "named_plugin", PLUGIN)
    return workshop.plugins()


def built(experiment):
    [metric] = experiment.value("train.metrics")
    return metric


def test_a_text_names_a_member_a_dtype_or_a_path(workshop, registry):
    from pathlib import Path

    experiment = workshop.experiment(GOOD + BOUND, registry=registry)
    metric = built(experiment)
    mode = type(metric.mode)
    assert (metric.mode, metric.modes, metric.dtype) == (mode.EXACT, [mode.EXACT], torch.float16)
    assert (metric.folder, metric.by_name) == (Path("some/where"), {"x": Path("y")})
    again = workshop.experiment(experiment.operative_text(), registry=registry)
    assert again.hash == experiment.hash and vars(built(again)) == vars(metric)


def test_defaults_are_written_as_they_are_bound_and_change_no_hash(workshop, registry):
    plain = workshop.experiment(GOOD, registry=registry)
    lines = plain.operative_text().splitlines()
    assert {
        "metric.named.mode = 'FAST'",
        "metric.named.modes = ('FAST', 'EXACT')",
        "metric.named.dtype = 'float32'",
        "metric.named.folder = None",
        "metric.named.by_name = {'a': 'b'}",
    } <= set(lines)
    assert not any("loose" in line for line in lines)  # A text would stay a text: no annotation says what it names.
    text = GOOD + "metric.named.mode = 'FAST'\nmetric.named.dtype = 'torch.float32'"
    assert workshop.experiment(GOOD + text.splitlines()[2], registry=registry).hash == plain.hash
    assert built(workshop.experiment(text, registry=registry)).dtype is torch.float32
    again = workshop.experiment(plain.operative_text(), registry=registry)
    assert vars(built(again)) == vars(built(plain))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mode = 'FASST'", "takes Mode['FAST', 'EXACT'], not 'FASST' (str); did you mean 'FAST'?"),
        ("mode = 1", "takes Mode['FAST', 'EXACT'], not 1 (int)"),
        ("mode = None", "takes Mode['FAST', 'EXACT'], not None"),
        ("modes = ['FAST', 'SLOW']", "takes tuple[Mode['FAST', 'EXACT'], ...] | None, not ['FAST', 'SLOW']"),
        ("dtype = 'float33'", "takes dtype, not 'float33' (str)"),
        ("dtype = 'nn'", "takes dtype, not 'nn' (str)"),
        ("folder = 3", "takes Path | None, not 3 (int)"),
        ("mode = %Mode.EXACT", "%Mode.EXACT is not defined, and gin's constants are not offered; write the member of"),
    ],
)
def test_what_names_nothing_is_refused(workshop, registry, line, message):
    with pytest.raises(UserError) as caught:
        workshop.experiment(GOOD + f"metric.named.{line}", registry=registry)
    assert str(caught.value).startswith("test.gin:3: ") and message in str(caught.value)


def test_the_advice_on_a_constant_works(workshop, registry):
    with pytest.raises(UserError, match="as a string: 'EXACT'$"):
        workshop.experiment(GOOD + "metric.named.mode = %named_plugin.Mode.EXACT", registry=registry)
    metric = built(workshop.experiment(GOOD + "metric.named.mode = 'EXACT'", registry=registry))
    assert metric.mode.name == "EXACT"


def test_the_listing_shows_members_and_defaults(registry):
    shown = {p.name: (p.type, p.shown_default) for p in explain(registry, "metric.named").parameters}
    assert shown["mode"] == ("Mode['FAST', 'EXACT']", "'FAST'") and shown["dtype"] == ("dtype", "'float32'")
