"""Does anything grow with the number of images? Preparation, verification, an epoch, and the start of a run, at size.

    python benchmarks/data_at_size.py WORK_FOLDER --images 1000 10000 70000

Synthetic 256x256 images, PNG and JPEG in turn, all in one folder: smooth colours and a texture of varied strength, so
that files are as large as photographs'. ``tools/prepare.py`` makes an LMDB of them with two workers, is killed
(SIGKILL) after a third and after two thirds, and continued. The LMDB is verified, streamed for an epoch with two
loader workers, and a run on it is started. Images that are there are used again; LMDBs are removed.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from watched import CHILDREN, MAIN, Watched, load, watched

ROOT = Path(__file__).parents[1]
SIDE, BATCH, WORKERS, STARTS = 256, 32, 2, 3
COMPARED = 1000
"""Images up to which an uninterrupted preparation is made, too, to compare the results."""
FIRST_ITERATION = """
import os, sys
from stylenat.commands.run import main
from stylenat.training import loop
loop.iteration = lambda state, images: (next(images), os._exit(0))
main(sys.argv[1:])
"""


def picture(index: int, side: int = SIDE) -> Image.Image:
    """Not a photograph, but as hard to compress: about 5 bits a value."""
    random = np.random.default_rng(index)
    smooth = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
    rough = Image.fromarray(random.integers(0, 256, (5, 5), dtype=np.uint8)).resize((side, side), Image.BICUBIC)
    strength = (np.asarray(rough, dtype=np.float32) / 255)[..., None] ** 2
    texture = 14 * strength * random.standard_normal((side, side, 1), dtype=np.float32)
    noise = 1.5 * random.standard_normal((side, side, 3), dtype=np.float32)
    return Image.fromarray((np.asarray(smooth) + texture + noise).clip(0, 255).astype(np.uint8))


def make(path: str) -> None:
    if not os.path.exists(path):
        picture(int(Path(path).stem)).save(f"{path}.part", format="png" if path.endswith("png") else "jpeg", quality=92)
        os.rename(f"{path}.part", path)


def sources(work: Path, count: int) -> Path:
    """A folder of the first ``count`` images: links to those that are made once for all counts."""
    whole, folder = work / "images", work / f"sources-{count}"
    whole.mkdir(parents=True, exist_ok=True)
    names = [f"{i:06d}.{'jpg' if i % 2 else 'png'}" for i in range(count)]
    with multiprocessing.Pool(2) as pool:
        for _ in pool.imap_unordered(make, (str(whole / name) for name in names), chunksize=64):
            pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in names:
        os.link(whole / name, folder / name)
    return folder


def size(folder: Path, suffix: str = "") -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries if entry.name.endswith(suffix))


def stylenat(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "stylenat", *arguments]


def prepared(folder: Path, out: Path, count: int) -> list[Watched]:
    """The preparation in three parts: killed after about one and two thirds, then to its end."""
    begun = out.parent / f".{out.name}.partial" / "data.mdb"
    expected = count * size(folder, "png") / -(-count // 2)
    command = stylenat("prepare", str(folder), str(out), "--resolution", str(SIDE), "--workers", str(WORKERS))
    parts = []
    for third in (1, 2):
        stop_at = third * expected / 3
        parts.append(watched(command, lambda stop_at=stop_at: begun.exists() and begun.stat().st_size >= stop_at))
        assert parts[-1].code != 0, "it was faster than it could be killed"
    parts.append(watched(command))
    return parts


def content(out: Path) -> str:
    from stylenat.data.lmdb_layout import open_layout

    return open_layout(out)[1].manifest["content_sha256"]  # type: ignore[index]


def stream(out: str, result: str) -> None:
    """In a process of its own: opens the data set and takes an epoch of its batches."""
    import torch

    from plugins.datasets.lmdb_dataset import LmdbDataset
    from stylenat.data import loader
    from stylenat.data.identity import identity

    loader.CACHE_BYTES = 0  # The smallest set would be kept in memory, without workers.
    torch.set_num_threads(1)
    times = [time.perf_counter()]
    dataset = LmdbDataset(out, SIDE)
    dataset.prepare()
    identity(dataset)
    times.append(time.perf_counter())
    batches = loader.ImageStream(
        dataset, BATCH, seed=0, horizontal_flips=True, workers=WORKERS, normalised=True
    ).batches(0)
    next(batches)
    times.append(time.perf_counter())
    for _ in islice(batches, len(dataset) // BATCH - 1):
        pass
    times.append(time.perf_counter())
    Path(result).write_text(json.dumps(dict(zip(("open", "first", "epoch"), np.diff(times).tolist(), strict=True))))


def start_of_a_run(work: Path, out: Path) -> list[Watched]:
    bindings = [
        f"SIDE = {SIDE}", "train.dataset = @dataset.lmdb()", f"dataset.lmdb.path = '{out}'",
        f"dataset.lmdb.resolution = {SIDE}", f"train.workers = {WORKERS}", "train.trackers = []", "train.metrics = []",
    ]  # fmt: skip
    command = [sys.executable, "-c", FIRST_ITERATION, "--gin", "quickstart.gin", "--run-dir", str(work / "run")]
    for binding in bindings:
        command += ["--bind", binding]
    starts = []
    for _ in range(STARTS):
        shutil.rmtree(work / "run", ignore_errors=True)
        starts.append(watched(command))
    shutil.rmtree(work / "run")
    return starts


def measure(work: Path, count: int) -> dict[str, Any]:
    folder, out = sources(work, count), work / f"{count}.lmdb"
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out.parent / f".{out.name}.partial", ignore_errors=True)
    before = load()
    parts = prepared(folder, out, count)
    if count <= COMPARED:
        watched(stylenat("prepare", str(folder), f"{out}.whole", "--resolution", str(SIDE), "--workers", "1"))
        assert content(out) == content(Path(f"{out}.whole")), "a killed preparation gave other records"
        shutil.rmtree(f"{out}.whole")
    verified = watched(stylenat("inspect_data", str(out), "--verify"))
    assert f"{count} records, 0 problems" in verified.output, verified.output
    result = work / "stream.json"
    streamed = watched([sys.executable, __file__, str(out), "--stream", str(result)], cwd=ROOT / "benchmarks")
    times = json.loads(result.read_text())
    starts = start_of_a_run(work, out)
    seconds = sum(part.seconds for part in parts)
    found = {
        "images": count,
        "sources, PNG / JPEG": f"{size(folder, 'png') / 2**20:.0f} / {size(folder, 'jpg') / 2**20:.0f} MiB",
        "LMDB (PNG)": f"{size(out) / 2**20:.0f} MiB",
        "prepared, killed twice": f"{seconds:.1f} s, {count / seconds:.0f}/s",
        "... memory": f"{_peaks(parts)}",
        "verified": f"{verified.seconds:.1f} s, {count / verified.seconds:.0f}/s",
        "... memory ": str(verified),
        "opened": f"{1000 * times['open']:.1f} ms",
        "first batch after": f"{1000 * times['first']:.0f} ms",
        "epoch, without it": f"{times['epoch']:.1f} s, {(count // BATCH - 1) * BATCH / times['epoch']:.0f}/s",
        "... memory  ": str(streamed),
        "... and cached file": f"{streamed.peaks[CHILDREN].files:.0f} MiB",
        "start of a run to its first iteration": f"{min(start.seconds for start in starts):.2f} s",
        "... memory   ": f"{_peaks(starts)}",
        "machine before": before,
    }
    shutil.rmtree(out)
    shutil.rmtree(folder)
    return found


def _peaks(parts: list[Watched]) -> str:
    main, child = (max(part.peaks[kind].own for part in parts) for kind in (MAIN, CHILDREN))
    return f"{main:.0f} + {max(part.children for part in parts)} x {child:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder on a disk with 25 GB for 70,000 images")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 70_000])
    parser.add_argument("--stream", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stream:
        stream(str(arguments.work), arguments.stream)
        return
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(ROOT))
    found = []
    for count in arguments.images:
        found.append(measure(arguments.work.resolve(), count))
        (arguments.work / f"result-{count}.json").write_text(json.dumps(found[-1], indent=2))
    print("| | " + " | ".join(f"{column['images']:,}" for column in found) + " |\n|---" * 1 + "|---" * len(found) + "|")
    for name in list(found[0])[1:]:
        print(f"| {name.rstrip()} | " + " | ".join(column[name] for column in found) + " |")


if __name__ == "__main__":
    main()
