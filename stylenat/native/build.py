"""Our C++, one library of all of it: built by the machine's own compiler on first use, and kept.

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
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stylenat.files import cache_folder
from stylenat.native import kept

SOURCES = [Path(__file__).with_name(name) for name in ("attention.cpp", "norm.cpp", "pixels.cpp")]
HEADERS = [Path(__file__).with_name(name) for name in ("lanes.h", "numbers.h")]


@cache
def library() -> ctypes.CDLL | str:
    """The kernels, or why there are none. Either is reported once on stderr, unless an earlier build is loaded."""
    try:
        kernels = _loaded()
        kernels.tasks.restype = kernels.scratch_floats.restype = ctypes.c_int64
        address, number = ctypes.c_void_p, ctypes.c_int64
        for write in (kernels.write_floats, kernels.write_bytes):
            write.argtypes = [address, *[number] * 5, address, number, address, address]
        kernels.moments.argtypes = [address] * 4
        kernels.modulate.argtypes = [*[address] * 5, number, address, number]
        kernels.gradient_sums.argtypes = [*[address] * 3, number, *[address] * 2]
        kernels.gradient.argtypes = [*[address] * 3, number, *[address] * 5]
        return kernels
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        print(f"no C++ kernels for this CPU ({reason}); slower PyTorch code is used", file=sys.stderr)
        return f"its C++ kernel could not be built or loaded here: {reason}"


def _loaded() -> ctypes.CDLL:
    compiler = _compiler()
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64") else "-mcpu=native"
    command = [compiler, "-std=c++17", "-O3", native, "-fopenmp", "-shared", "-fPIC", *map(str, SOURCES)]
    folder, name = cache_folder() / "native", f"kernels-{_fingerprint(command)}"
    reason = kept.refused(folder)
    if reason is not None:
        with tempfile.TemporaryDirectory() as scratch:  # Only this user's; a library outlives its file.
            return ctypes.CDLL(str(_compiled(command, scratch, f"for this process only: {folder} {reason}")))
    path = kept.opened(folder, name)
    if path is None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            kept.keep(_compiled(command, scratch, f"kept in {folder}"), folder, name)
        path = kept.opened(folder, name)  # Processes that start together each build, and any one's will do.
    if path is None:
        raise RuntimeError(f"what was compiled into {folder} was removed or changed")
    return ctypes.CDLL(str(path))


def _compiled(command: Sequence[str], scratch: str, remark: str) -> Path:
    """The library, in folder ``scratch``, announced with a remark."""
    began = time.perf_counter()
    made = Path(scratch) / "kernels.so"
    subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=300)
    print(f"compiled the CPU kernels in {time.perf_counter() - began:.1f} s, {remark}", file=sys.stderr)
    return made


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
        *(file.read_text() for file in (*SOURCES, *HEADERS)),
        *(word for word in command[1:] if word not in map(str, SOURCES)),
        platform.machine(),
        platform.libc_ver()[0],
        *processor,
    ]
    return hashlib.sha256("\n".join([os.path.basename(command[0]), *parts]).encode()).hexdigest()[:16]
