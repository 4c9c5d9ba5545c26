"""Runs commands in forked processes and ends them as told. Importing PyTorch once saves seconds at every start.

One JSON object a line on stdin: ``command``, ``arguments``, ``folder``, ``log``, and any of ``signal`` with ``after``
(seconds), ``file_bytes`` (the longest file that may be written). One on stdout: ``code`` and ``seconds``.
"""

import json
import os
import resource
import signal
import sys
import time

import torch

from stylenat.commands import prepare, run
from stylenat.data import lmdb_writer
from stylenat.training import launch  # noqa: F401 - what the command would import

COMMANDS = {"run": run.main, "prepare": prepare.main}


def perform(request: dict) -> int:
    """In the child."""
    log = os.open(request["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(request["folder"])
    if "file_bytes" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], request["file_bytes"]))
    return COMMANDS[request["command"]](request["arguments"])


def ended(pid: int, request: dict) -> int:
    """The child's exit code; negative for the signal that killed it."""
    deadline = time.monotonic() + request.get("after", float("inf"))
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, request["signal"])
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    torch.set_num_threads(1)
    lmdb_writer.COMMIT_BYTES = 2**14  # Small images, so that there is something to lose.
    for line in sys.stdin:
        request, began = json.loads(line), time.monotonic()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                code = perform(request)
            except BaseException as error:
                sys.excepthook(type(error), error, error.__traceback__)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"code": ended(pid, request), "seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    main()
