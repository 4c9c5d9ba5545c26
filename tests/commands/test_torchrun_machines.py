"""Two ``torchrun`` on loopback in the place of two machines, of which one dies and comes back. Slow: torch is imported
eight times."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="torchrun's own processes")]

# In iteration HELD each process says that it is there; in the first start of the run, it stays there.
HOLDS = """
import os, time
from pathlib import Path
from registry import hookimpl
from plugins.augmentations.ada import AdaptiveAugmentation

class Holds(AdaptiveAugmentation):
    def observe(self, real_logits):
        super().observe(real_logits)
        time.sleep(PACE)
        here = Path("FOLDER") / ("held-by-" + Path.cwd().name)
        if self._adaptation.images_seen == 4 * HELD and not here.exists():
            here.write_text(str(os.getpid()))
            while not (Path("FOLDER") / "go on").exists():
                time.sleep(0.05)

@hookimpl
def stylenat_register(register):
    register("augmentation", "holds", Holds)
"""
BINDS = [
    "train.augmentation = @augmentation.holds()",
    "augmentation.holds.initial_p = 0.5",
    "generator.style.channels = [16, 16]",
    "discriminator.wavelet.channels = [8]",
    "discriminator.wavelet.spectral_norm = True",
    "SIDE = 8",
    "train.iterations = 6",
    "train.batch_size = 4",
    "train.threads = 1",
    "train.sample_every = 3",
    "train.sample_count = 4",
    "train.evaluate_every = 3",
    "train.evaluation_samples = 16",
    "train.checkpoint_every = 2",
    "train.trackers = [@tracker.jsonl()]",
    "train.metrics = [@metric.frechet_random_features()]",
]


class Machines:
    """Working folders with a ``torchrun`` each, and a run folder that they share."""

    def __init__(self, folder, nodes, pace=0.0, held=5, iterations=6):
        self.folder, self.nodes, self.iterations = folder, nodes, iterations
        (folder / "holds.py").write_text(
            HOLDS.replace("FOLDER", str(folder)).replace("PACE", str(pace)).replace("HELD", str(held))
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.running = {}

    def start(self, name, keeps_the_store=False, run="shared"):
        (self.folder / name).mkdir(exist_ok=True)
        rendezvous = f"is_host={keeps_the_store},keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=2"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", f"--nnodes={self.nodes}", "--nproc-per-node=1"),
            *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{self.port}", "--rdzv-id=test"),
            *(f"--rdzv-conf={rendezvous}", "--local-addr=127.0.0.1", "--max-restarts=3"),
            *(str(ROOT / "tools/run.py"), "--gin", "quickstart.gin", "--plugin", str(self.folder / "holds.py")),
            *("--run-dir", str(self.folder / run)),
            *(part for bind in [*BINDS, f"train.iterations = {self.iterations}"] for part in ("--bind", bind)),
        ]
        settings = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with open(self.folder / f"{name}.log", "a") as log:
            self.running[name] = subprocess.Popen(
                command, cwd=self.folder / name, env=os.environ | settings, stdout=log, stderr=log
            )

    def wait_until(self, there, seconds=180):
        deadline = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def kill(self, name):
        """The machine's ``torchrun`` by SIGKILL; its training process must go with it."""
        training = int((self.folder / f"held-by-{name}").read_text())
        self.running[name].kill()
        self.running.pop(name).wait()
        self.wait_until(lambda: not Path(f"/proc/{training}").exists(), 10)

    def codes(self):
        return {name: process.wait(300) for name, process in self.running.items()}

    def logs(self):
        return "".join(path.read_text() for path in self.folder.glob("*.log"))


@contextmanager
def machines(*arguments, **options):
    made = Machines(*arguments, **options)
    try:
        yield made
    finally:
        for process in made.running.values():
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("killed", ["first", "second"], ids=["of process 0", "of process 1"])
def test_a_machine_that_dies_and_comes_back_changes_no_bit(killed, tmp_path, everything):
    # Ranks follow process ids: the machine that comes back is the second then.
    names = ["first", "second"]
    (keeper,) = {"first", "second"} - {killed}
    with machines(tmp_path, nodes=2) as both:
        (tmp_path / "go on").touch()
        for name in names:
            both.start(name, keeps_the_store=name == keeper, run="uninterrupted")
        assert both.codes() == {"first": 0, "second": 0}, both.logs()
    for name in ("go on", "held-by-first", "held-by-second"):
        (tmp_path / name).unlink()

    with machines(tmp_path, nodes=2) as both:
        for name in names:
            both.start(name, keeps_the_store=name == keeper)
        both.wait_until(lambda: all((tmp_path / f"held-by-{name}").exists() for name in names))
        both.wait_until((tmp_path / "shared/checkpoints/step-000000004").exists)
        both.kill(killed)
        (tmp_path / "go on").touch()
        both.start(killed)
        assert both.codes() == {"first": 0, "second": 0}, both.logs()
    assert both.logs().count("continuing from") == 1 and "Traceback" not in both.logs()
    assert everything(tmp_path / "shared") == everything(tmp_path / "uninterrupted")


def test_machines_that_come_and_go_finish_the_run(tmp_path):
    with machines(tmp_path, nodes="1:2", pace=0.3, held=4, iterations=60) as both:
        both.start("first", keeps_the_store=True)
        both.start("second")
        both.wait_until(lambda: (tmp_path / "held-by-second").exists())
        (tmp_path / "go on").touch()
        both.kill("second")
        alone = tmp_path / "shared/checkpoints/step-000000010"
        both.wait_until(alone.exists)
        both.start("second")
        assert both.codes() == {"first": 0, "second": 0}, both.logs()
    steps = [json.loads(line)["step"] for line in (tmp_path / "shared/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(3, 61, 3))
    assert both.logs().count("continuing from") == 2 and not (tmp_path / "shared/PREEMPTED").exists()
