"""How close the data path comes to the speed of decoding alone, and what preparation gains from all cores.

    python benchmarks/data.py

Everything is timed in one run, in alternating repeats on the same cores and the same bytes; rates are images/s at
256x256, the best and the median of the repeats. Photographs of scikit-image, cropped at random.

* ``decoding alone``: the same library on the same bytes in memory, one process a core, pixels thrown away; shuffled
  as the stream is, since bytes come quicker to the processor in the order in which they lie;
* ``stream``: this project's ImageStream, shuffled, flipped, to normalised float batches;
* ``prepare``: ``tools/prepare.py`` with one worker and with all, beside a loop that opens, crops, resizes, saves and
  puts one image after the other;
* ``plain``: a map data set that opens each record with Pillow, resizes and normalises a float copy, in a DataLoader.
"""

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from plugins.datasets.lmdb_dataset import LmdbDataset
from stylenat.data import loader, prepare
from stylenat.data.decoders import decode_pixels
from stylenat.data.lmdb_layout import key
from stylenat.data.sources import FolderSource
from stylenat.data.workers import AHEAD
from stylenat.pixels import MEAN, STD

SIDE, BATCH = 256, 32
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")


def photographs(folder: Path, count: int) -> None:
    """Crops of varied size, as JPEGs, that a preparation then makes square and small."""
    folder.mkdir()
    random = np.random.default_rng(0)
    images = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]
    for i in range(count):
        image = images[i % len(images)]
        width, height = (int(random.integers(256, 301)) for _ in range(2))
        left = int(random.integers(0, image.width - width + 1))
        top = int(random.integers(0, image.height - height + 1))
        image.crop((left, top, left + width, top + height)).save(folder / f"{i:05d}.jpg", quality=95)


@lru_cache(maxsize=1)
def records_of(path: str, count: int) -> list[bytes]:
    with lmdb.open(path, readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [bytes(transaction.get(key(SIDE, i))) for i in range(count)]


def decode_all(path: str, count: int, share: list[int], pillow: bool) -> None:
    records = records_of(path, count)
    for record in (records[i] for i in share):
        if pillow:
            Image.open(io.BytesIO(record)).load()
        else:
            decode_pixels(record, SIDE)


class Plain(Dataset):
    """The usual way."""

    def __init__(self, path: str, count: int) -> None:
        self.path, self.count, self.environment = path, count, None
        self.transform = v2.Compose(
            [v2.Resize((SIDE, SIDE)), v2.RandomHorizontalFlip(), v2.PILToTensor(),
             v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        )  # fmt: skip

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if self.environment is None:
            self.environment = lmdb.open(self.path, readonly=True, lock=False, readahead=False)
        with self.environment.begin() as transaction:
            record = transaction.get(key(SIDE, index))
        return self.transform(Image.open(io.BytesIO(record)).convert("RGB"))


class Timed:
    """Rates by name, of alternating repeats."""

    def __init__(self) -> None:
        self.rates: dict[str, list[float]] = {}

    def __call__(self, name: str, images: int, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        self.rates.setdefault(name, []).append(images / (time.perf_counter() - began))

    def best(self, name: str) -> float:
        return max(self.rates[name])

    def median(self, name: str) -> float:
        return statistics.median(self.rates[name])


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storages", nargs="*", default=["png", "jpeg", "raw"])
    parser.add_argument("--no-prepare", action="store_true", help="leave out the preparation's figures")
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser


def main() -> None:
    arguments = parser().parse_args()
    workers, count = arguments.workers, arguments.images
    loader.CACHE_BYTES = 0  # Decoded every time, as a data set beyond the memory is.
    # Threads of this process would wait for work in a loop, and take the cores from the workers.
    torch.set_num_threads(1)
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs(root / "photos", count)
        for repeat in range(0 if arguments.no_prepare else 2):
            for name, used in (("prepare, one process", 1), ("prepare, all cores", workers)):
                command = [
                    sys.executable,
                    "tools/prepare.py",
                    str(root / "photos"),
                    str(root / f"{used}-{repeat}.lmdb"),
                ]
                command += ["--resolution", str(SIDE), "--workers", str(used)]
                timed(name, count, lambda command=command: subprocess.run(command, check=True, capture_output=True))
            out = root / f"loop-{repeat}.lmdb"
            timed("prepare, plain loop", count, lambda out=out: plain_loop(root / "photos", out))
        for storage in arguments.storages:
            path = root / f"{storage}.lmdb"
            prepare.prepare(root / "photos", path, SIDE, storage=storage, workers=workers)
            streams(timed, storage, str(path), count, workers, arguments.repeats)
    report(timed, workers)


def plain_loop(folder: Path, out: Path) -> None:
    """One process, one image after the other: open, crop, resize, save, put."""
    with lmdb.open(str(out), map_size=2**36) as environment:
        for i, item in enumerate(FolderSource(folder)):
            image = Image.open(item.place[1]).convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.LANCZOS)
            encoded = io.BytesIO()
            image.save(encoded, format="png")
            with environment.begin(write=True) as transaction:
                transaction.put(key(SIDE, i), encoded.getvalue())


def streams(timed: Timed, storage: str, path: str, count: int, workers: int, repeats: int) -> None:
    """Times one storage every way, in turn. Workers are up and decoding before the clock starts."""
    dataset = LmdbDataset(path, SIDE)
    batches = count // BATCH
    stream = loader.ImageStream(
        dataset, BATCH, seed=0, horizontal_flips=True, workers=workers, normalised=True
    ).batches(0)
    shutil.copytree(path, f"{path}.plain")  # LMDB refuses to open one file twice in a process, even a forked one.
    plain = iter(DataLoader(Plain(f"{path}.plain", count), BATCH, sampler=Endless(count), num_workers=workers))
    for _ in range(8 * workers):
        next(stream)
        if storage != "raw":  # Which Pillow cannot open.
            next(plain)
    order = torch.randperm(count).tolist()
    shares = [order[i::workers] for i in range(workers)]
    # As many processes as there are cores, with their records in memory.
    with multiprocessing.get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(repeats + 1):  # The first round warms up and does not count.
            if storage != "raw":
                for name, pillow in (("decoding alone", False), ("decoding alone, Pillow", True)):
                    work = [(path, count, share, pillow) for share in shares]
                    timed(f"{storage}, {name}", count, lambda work=work: pool.starmap(decode_all, work, chunksize=1))
            drain(stream, workers)
            timed(f"{storage}, stream", count, lambda: take(stream, batches))
            if storage != "raw":
                drain(plain, workers)
                timed(f"{storage}, plain", count, lambda: take(plain, batches))
            time.sleep(1)  # Both fill their queues again, and take no core from what is timed next.
    for name, rates in timed.rates.items():
        if name.startswith(f"{storage},"):
            timed.rates[name] = rates[1:]


def take(batches: Iterator[Tensor], count: int) -> None:
    for batch in islice(batches, count):
        assert batch.dtype == torch.float32


def drain(batches: Iterator[Tensor], workers: int) -> None:
    """Takes what was made ahead, so that the clock sees no more batches than are made while it runs."""
    take(batches, 2 * AHEAD * workers)


class Endless:
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        while True:
            yield from torch.randperm(self.count).tolist()


def report(timed: Timed, workers: int) -> None:
    print(f"{workers} cores, PyTorch {torch.__version__}, {SIDE}x{SIDE}\n")
    print("| images/s | best | median |\n|---|---|---|")
    for name in timed.rates:
        print(f"| {name} | {timed.best(name):.0f} | {timed.median(name):.0f} |")
    ratios = [
        (f"{s}: stream to decoding alone", f"{s}, stream", f"{s}, decoding alone", goal)
        for s, goal in (("png", "0.9"), ("jpeg", "0.9"), ("webp", ""))
    ]
    ratios += [
        ("png: stream to plain", "png, stream", "png, plain", "1.5"),
        ("jpeg: stream to plain", "jpeg, stream", "jpeg, plain", "2"),
        ("raw stream to png stream", "raw, stream", "png, stream", "5"),
        ("prepare: all cores to one process", "prepare, all cores", "prepare, one process", "1.8"),
        ("prepare: all cores to the plain loop", "prepare, all cores", "prepare, plain loop", "1.8"),
    ]
    print("\n| ratio | of the best | of the medians | goal |\n|---|---|---|---|")
    for name, a, b, goal in ratios:
        if a not in timed.rates or b not in timed.rates:
            continue
        best, median = timed.best(a) / timed.best(b), timed.median(a) / timed.median(b)
        print(f"| {name} | {best:.2f} | {median:.2f} | {goal} |")


if __name__ == "__main__":
    main()
