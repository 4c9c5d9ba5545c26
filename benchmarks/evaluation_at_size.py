"""Does the memory of an evaluation grow with its samples, and does a killed one start over?

    python benchmarks/evaluation_at_size.py WORK_FOLDER                     # 32x32, metrics without weights
    python benchmarks/evaluation_at_size.py WORK_FOLDER --only inception    # Inception's network, random weights

``tools/evaluate.py`` itself, in a process of its own for each row: as many generated images as real ones (synthetic),
32x32, of the quickstart's generator at that size after one iteration. The largest evaluation without weights is made
again, killed (SIGKILL) once some of its vectors are kept, and continued; its values must be equal. Inception is slow on
a CPU, so it is measured at two counts, and a line extrapolates both to 50,000.
"""

import argparse
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from data_at_size import ROOT, picture
from watched import MAIN, Watched, load, watched

SIDE, FULL = 32, 50_000
GROUPS = {
    "frechet_random_features, spectrum": "@metric.frechet_random_features(), @metric.spectrum()",
    "swd": "@metric.swd()",
    "kid, precision_recall, density_coverage (192 dimensions)": ", ".join(
        f"@metric.{name}()" for name in ("kid", "precision_recall", "density_coverage")
    ),
    "all of them": "@metric.frechet_random_features(), @metric.spectrum(), @metric.swd(), @metric.kid(), "
    "@metric.precision_recall(), @metric.density_coverage()",
}
WITHOUT_WEIGHTS = [f"metric.{name}.features = @features.random_convolution()" for name in
                   ("kid", "precision_recall", "density_coverage")]  # fmt: skip
WITH_INCEPTION = "@metric.fid(), @metric.kid(), @metric.inception_score()"
"""Not the metrics of neighbours, whose time grows with the square: ``metrics.py`` measures them."""


def stylenat(command: str, *arguments: str, bind: list[str]) -> list[str]:
    bindings = [part for binding in bind for part in ("--bind", binding)]
    return [sys.executable, "-m", "stylenat", command, *arguments, *bindings]


def images(work: Path, count: int) -> Path:
    """An LMDB of real images."""
    from stylenat.data.lmdb_writer import write

    def encoded(index: int) -> bytes:
        out = io.BytesIO()
        picture(index, SIDE).save(out, format="png")
        return out.getvalue()

    path = work / "real.lmdb"
    if not path.exists():
        write(path, SIDE, map(encoded, range(count)), {})
    return path


def run(work: Path, data: Path) -> Path:
    """A run of one iteration."""
    folder = work / "run"
    bind = [
        f"SIDE = {SIDE}", "train.dataset = @dataset.lmdb()", f"dataset.lmdb.path = '{data}'",
        f"dataset.lmdb.resolution = {SIDE}", "train.trackers = []", "train.metrics = []", "train.iterations = 1",
    ]  # fmt: skip
    watched(stylenat("run", "--gin", "quickstart.gin", "--run-dir", str(folder), bind=bind))
    return folder


class Evaluations:
    """Evaluations of one run, each with an empty cache."""

    def __init__(self, work: Path, folder: Path) -> None:
        self.work, self.folder = work, folder
        self.options: list[str] = []

    def command(self, metrics: str, samples: int, cache: Path, bind: list[str]) -> list[str]:
        counts = ["--samples", str(samples), "--real-samples", str(samples)]
        where = ["--cache", str(cache), "--out", str(self.work / "metrics.jsonl"), *self.options]
        return stylenat("evaluate", str(self.folder), *counts, *where, bind=[f"train.metrics = [{metrics}]", *bind])

    def measured(self, metrics: str, samples: int, bind: list[str]) -> tuple[Watched, dict[str, float]]:
        cache = self._empty()
        done = watched(self.command(metrics, samples, cache, bind))
        return done, self._values()

    def killed(self, metrics: str, samples: int, bind: list[str], kept: int) -> tuple[list[Watched], dict[str, float]]:
        """The evaluation killed once so many files of the generated images' vectors are there, and continued."""
        cache = self._empty()
        command = self.command(metrics, samples, cache, bind)
        unfinished = cache / "unfinished"

        def enough() -> bool:
            return len(list(unfinished.glob("*.safetensors"))) >= kept if unfinished.exists() else False

        first = watched(command, enough)
        assert first.code != 0, "it was faster than it could be killed"
        second = watched(command)
        assert not list(unfinished.glob("*"))
        return [first, second], self._values()

    def _empty(self) -> Path:
        cache = self.work / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        (self.work / "metrics.jsonl").unlink(missing_ok=True)
        return cache

    def _values(self) -> dict[str, float]:
        return json.loads((self.work / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]


def row(name: str, samples: int, done: Watched) -> dict[str, Any]:
    return {"metrics": name, "images": samples, "seconds": done.seconds, "MiB": done.peaks[MAIN].own}


def show(rows: list[dict[str, Any]]) -> None:
    print("| metrics | images of each set | seconds | peak, MiB |\n|---|---:|---:|---:|", flush=True)
    for found in rows:
        print(f"| {found['metrics']} | {found['images']:,} | {found['seconds']:.0f} | {found['MiB']:.0f} |", flush=True)


def offline(evaluations: Evaluations, counts: list[int]) -> None:
    rows = []
    for name, metrics in GROUPS.items():
        for samples in counts:
            done, values = evaluations.measured(metrics, samples, WITHOUT_WEIGHTS)
            rows.append(row(name, samples, done))
    show(rows)
    # The last are all metrics at the largest count: images and two kinds of vectors, in a file each every minute.
    parts, again = evaluations.killed(metrics, samples, WITHOUT_WEIGHTS, kept=3)
    assert again == values, (again, values)
    spent = " + ".join(f"{part.seconds:.0f}" for part in parts)
    print(f"killed and continued: {spent} s; {done.seconds:.0f} s without a kill; all values equal")


def inception(evaluations: Evaluations, counts: list[int]) -> None:
    import torch
    from evaluation import inception as with_random_weights

    torch.manual_seed(0)
    weights = with_random_weights(evaluations.work).weights
    evaluations.options, rows = ["--extractor-weights", str(weights)], []
    for samples in counts:
        done, _ = evaluations.measured(WITH_INCEPTION, samples, [])
        rows.append(row("fid, kid, inception_score", samples, done))
    few, many = rows
    along = (FULL - few["images"]) / (many["images"] - few["images"])
    full = {key: few[key] + along * (many[key] - few[key]) for key in ("seconds", "MiB")}
    show([*rows, {"metrics": "extrapolated linearly, not measured", "images": FULL, **full}])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", choices=["offline", "inception"], default="offline")
    parser.add_argument("--images", type=int, nargs="+", help="default: 1000 10000 50000; inception: 1000 3000")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(ROOT))
    print(load())
    counts = arguments.images or ([1000, 3000] if arguments.only == "inception" else [1000, 10_000, FULL])
    data = images(work, max(counts))
    evaluations = Evaluations(work, run(work, data))
    (inception if arguments.only == "inception" else offline)(evaluations, counts)


if __name__ == "__main__":
    main()
