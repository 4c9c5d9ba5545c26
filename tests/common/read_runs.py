"""Runs as a comparison reads them, without folders."""

from pathlib import Path

from stylenat.comparison.runs import RunResults
from stylenat.evaluation.protocol import Result

PROTOCOL = {"metric": {"name": "fid", "better": "lower", "uses_real": False}}


def run(name, value, images, seed=0, settings=None, label=None, time="2030-01-01T10:00:00+00:00", more=(), **fields):
    """A run whose results are (images, value, time), by the same protocol. ``fields``: others of ``RunResults``."""
    results = [
        Result("fid", each, None if count is None else count // 4, count, when, protocol=PROTOCOL)
        for count, each, when in [*more, (images, value, time)]
    ]
    hparams = {"tracker": {"aim": {"labels": {"variant": label}}}} if label else {}
    return RunResults(
        Path(name), "test", {"train.loss": name[0], **(settings or {})}, hparams, seed, 10, tuple(results), 1, 1,
        16, None, (), None, **fields,
    )  # fmt: skip
