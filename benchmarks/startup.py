"""How long commands take to answer, and a run to reach its first iteration: python benchmarks/startup.py [repeats]

Each time is a fresh interpreter's, in alternation; minimum and median in seconds. The references are an interpreter
that does nothing, and one that imports torch and nothing else.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST = """
import os, sys
sys.argv = ["run", "--gin", "quickstart.gin", "--run-dir", "run", "--bind", "train.trackers = []", "--bind",
            "train.metrics = []"]
from stylenat.commands.run import main
from stylenat.training import loop
loop.iteration = lambda *a: os._exit(0)
main(sys.argv[1:])
"""


def commands() -> dict[str, list[str]]:
    tools = {f"{tool.stem} --help": [str(tool), "--help"] for tool in sorted((ROOT / "tools").glob("*.py"))}
    run = str(ROOT / "tools" / "run.py")
    return {
        "(python, nothing)": ["-c", "pass"],
        **tools,
        "run --list partition": [run, "--list", "partition"],
        "run --explain partition.pyramid": [run, "--explain", "partition.pyramid"],
        "run --list (all kinds)": [run, "--list"],
        "(import torch)": ["-c", "import torch"],
        "run quickstart, to iteration 1": ["-c", FIRST],
    }


def main(repeats: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in commands()}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats + 1):
            for name, arguments in commands().items():
                began = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                if repeat:  # The first round warms the disk's cache and writes the data set.
                    times[name].append(time.perf_counter() - began)
    print(f"| {'command':<32} | minimum s | median s |\n|{'-' * 34}|----------:|---------:|")
    for name, taken in times.items():
        print(f"| {name:<32} | {min(taken):9.2f} | {statistics.median(taken):8.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
