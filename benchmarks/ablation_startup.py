"""What the start and the end of a variant cost: python benchmarks/ablation_startup.py [repeats]

The quickstart with one iteration, 64 samples an evaluation and one thread, from its start until it has ended. Sides
alternate; minimum and median of seconds, and of its processor time, which other processes disturb less. The last table
is the processor time of a run's imports, in the order in which they come.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from measure import Times

from stylenat.ablation.execute import only_one
from stylenat.ablation.runners import LocalRunner

BINDS = ("train.iterations = 1", "train.evaluation_samples = 64", "train.threads = 1")
SIDES = {
    "started by itself, nothing kept": (False, False),
    "the same, statistics and baselines kept": (False, True),
    "forked with PyTorch imported, both kept": (True, True),
}
IMPORTS = """
import sys, time
for name in sys.argv[1:]:
    before = time.process_time()
    __import__(name)
    print(f"| `{name}` | {time.process_time() - before:.2f} |")
"""
MODULES = (
    "torch",
    "stylenat.training.launch",
    "torch._dynamo",
    "aim",
    "matplotlib.pyplot",
    "scipy.linalg",
    "kornia.filters",
)


def seconds(runner: LocalRunner, folder: Path, number: int) -> tuple[float, float]:
    """From its start to its end, and processor time."""
    binds = [part for bind in BINDS for part in ("--bind", bind)]
    run = ["--gin", "quickstart.gin", "--run-dir", str(folder / f"run{number}"), *binds]
    began, ticks = time.perf_counter(), 0
    process = runner.start([sys.executable, "-P", "-m", "stylenat", "run", *run], folder / f"log{number}")
    status = Path(f"/proc/{process._process.pid}/stat")
    while (code := process.poll()) is None:
        with suppress(OSError):  # It has just ended.
            ticks = sum(map(int, status.read_text().rpartition(")")[2].split()[11:15]))
        time.sleep(0.01)
    taken = time.perf_counter() - began
    if code:
        raise SystemExit((folder / f"log{number}").read_text())
    return taken, ticks / os.sysconf("SC_CLK_TCK")


def main(repeats: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        os.environ["STYLENAT_CACHE"] = str(folder / "cache")
        with only_one(folder) as lock:
            runners = {warm: LocalRunner(1, 1, lock, warm) for warm in (False, True)}
            for repeat in range(repeats + 1):
                for number, (side, (warm, kept)) in enumerate(SIDES.items()):
                    if not kept:
                        for path in folder.glob("cache/statistics/*"):
                            path.unlink()
                    taken = seconds(runners[warm], folder, repeat * len(SIDES) + number)
                    if repeat:  # The first round compiles the kernels, writes the data set, imports in the fork server.
                        times[side].append(taken)
            for runner in runners.values():
                runner.close()
    print(
        "| a run of one iteration | minimum s | median s | processor, minimum s | median s |\n|---|---:|---:|---:|---:|"
    )
    for side, taken in times.items():
        whole, processor = (Times(list(values)) for values in zip(*taken, strict=True))
        numbers = (whole.minimum, whole.median, processor.minimum, processor.median)
        print(f"| {side} | {' | '.join(f'{number:.2f}' for number in numbers)} |")
    print("\n| import | processor s |\n|---|---:|")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", IMPORTS, *MODULES], check=True, env=environment, cwd="/")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
