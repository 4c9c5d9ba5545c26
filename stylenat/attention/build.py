"""The C++ kernel of backend ``compiled``: built by the machine's own compiler on first use, and kept.

Not ``torch.utils.cpp_extension``: without torch's headers and without ninja this takes two seconds instead of half a
minute, and a process killed in between leaves no lock behind.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from stylenat.files import cache_folder

SOURCE, HEADER = (Path(__file__).with_name(name) for name in ("kernel.cpp", "lanes.h"))


@cache
def library() -> ctypes.CDLL | str:
    """The kernel, or why there is none. Either is said once on stderr, unless an earlier build is simply loaded."""
    try:
        kernel = ctypes.CDLL(str(_built()))
        kernel.tasks.restype = kernel.scratch_floats.restype = ctypes.c_int64
        return kernel
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        print(f"attention: no CPU kernel of its own ({reason}); 'tiled' takes over, slower", file=sys.stderr)
        return f"its C++ kernel could not be built or loaded here: {reason}"


def _built() -> Path:
    compiler = _compiler()
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"
    command = [compiler, "-std=c++17", "-O3", native, "-fopenmp", "-shared", "-fPIC", str(SOURCE)]
    folder = cache_folder()
    target = folder / f"kernel-{_fingerprint(command)}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "kernel.so"
            subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=300)
            os.replace(made, target)  # At once: processes that start together each build, and any one's will do.
        seconds = time.perf_counter() - began
        print(f"attention: compiled the CPU kernel in {seconds:.1f} s, kept as {target}", file=sys.stderr)
    return target


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise RuntimeError("no C++ compiler: install g++")


def _fingerprint(command: list[str]) -> str:
    """Of source, command and processor: a home folder may be shared by machines of several kinds."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = sorted({line for line in lines if line.startswith(("flags", "Features", "model name", "CPU part"))})
    parts = [
        SOURCE.read_text(),
        HEADER.read_text(),
        *command[1:-1],
        platform.machine(),
        platform.libc_ver()[0],
        *processor,
    ]
    return hashlib.sha256("\n".join([os.path.basename(command[0]), *parts]).encode()).hexdigest()[:16]
