"""Aim's storage: opened safely by several processes and closed in bounded time. What is tracked does not belong here.

It works around three problems of Aim 3.29: two processes that create one repository at the same time corrupt it; calls
wait without a limit for Aim's threads, which end when the storage fails; and so does its handler at exit.
"""

import atexit
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

from registry import UserError
from registry.wording import reason

OPEN_SECONDS = 60.0
"""How long to wait for Aim to open a run, LOCK_SECONDS for another process to create the repository included."""
CLOSE_SECONDS = 30.0
LOCK_SECONDS = 30.0
ATTEMPTS = 5
"""Tries to open a run, 0.1 s after the first and then after twice as long each."""

WHEELS = "it has wheels for Python 3.11 and 3.12 on Linux (x86-64) and macOS"
"""As pyproject.toml says it in its environment markers."""

QUIET = {"system_tracking_interval": None, "capture_terminal_logs": False, "log_system_params": False}
"""Aim's defaults add threads, patch stdout, and store every environment variable, secrets included."""

_abandoned: list[Any] = []
"""Runs that could not be closed: collected as garbage they would be closed again, in the main thread."""


def load() -> None:
    """Imports Aim. Raises UserError if it is not installed, older than 3, or cannot be imported."""
    try:
        import aim
        import aim.sdk  # noqa: F401 - here to fail, if it must
    except ModuleNotFoundError as error:
        if error.name == "aim":
            raise UserError(
                f"Aim is not installed: {remedy(sys.version_info, sys.platform, platform.machine())}"
            ) from error
        if error.name == "aim.sdk":  # What pip finds where Aim 3 has no wheel.
            raise UserError("the installed Aim is older than 3.29; uninstall it: pip uninstall aim") from error
        raise UserError(f"{error.name} is not installed; install it: pip install aim") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"Aim cannot be imported: {reason(error)}") from error


def remedy(version: tuple[int, ...], system: str, machine: str) -> str:
    """What to do where Aim is not installed; the arguments are those of ``sys`` and ``platform.machine()``."""
    if version < (3, 13) and (system == "darwin" or (system == "linux" and machine == "x86_64")):
        return "pip install 'aim>=3.29'"
    return f"{WHEELS}; other trackers: docs/trackers.md"


def create_repository(path: str) -> None:
    """Creates the repository if it is missing. Raises as ``open_run``."""
    load()
    _within(OPEN_SECONDS, lambda: _repository(path, create=True), "create the repository")


def _repository(path: str, create: bool) -> Any:
    """The ``aim.Repo`` in folder ``path``, which may also be Aim's ``aim://`` or ``ssh://``.

    What is missing, or was left incomplete by a process that was killed, is created by one process at a time.
    """
    from aim.sdk.repo import Repo
    from aim.sdk.utils import clean_repo_path
    from filelock import FileLock

    if path.startswith("ssh://") or Repo.is_remote_path(path):
        if not create:  # Only the config of a run names it, and the run may be someone else's.
            raise UserError(f"{path} is on another machine, which an evaluation does not connect to")
        return Repo.from_path(path)
    folder = Path(clean_repo_path(path))
    if create and not _is_complete(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".aim.lock", timeout=LOCK_SECONDS):
            if not _is_complete(folder):
                return _completed(folder)
    if not (_storage(folder) / "VERSION").exists():
        raise UserError(f"there is no Aim repository in {path}")
    return Repo.from_path(path)


def _completed(folder: Path) -> Any:
    """The ``aim.Repo``, created by Aim's own call, which also goes on with what a killed process began."""
    from aim.sdk.repo import Repo

    version, database = _storage(folder) / "VERSION", _storage(folder) / "run_metadata.sqlite"
    if version.exists() and not version.stat().st_size:
        version.unlink()  # Aim cannot read it, not even to create the repository.
    try:
        return Repo.from_path(str(folder), init=True)
    except SubprocessError:
        # Tables that were created in part, by a full disk or a power cut. No run has been stored in them.
        if (_storage(folder) / "meta" / "chunks").exists() or not database.exists():
            raise
        database.unlink()
        return Repo.from_path(str(folder), init=True)


def open_run(path: str, create: bool = True, **options: Any) -> Any:
    """A writable ``aim.Run`` in the repository in folder ``path``; ``options`` are its arguments.

    Raises:
        UserError: Aim cannot be imported; there is no repository, and ``create`` is False.
        TimeoutError: after OPEN_SECONDS. Also the exceptions of Aim at the last attempt.
    """
    load()
    import aim
    from aimrocks.errors import RocksIOError
    from sqlalchemy.exc import OperationalError

    def attempt() -> Any:
        for pause in (0.1 * 2**i for i in range(ATTEMPTS - 1)):
            try:
                return aim.Run(repo=_repository(path, create), **options, **QUIET)
            except (RocksIOError, OperationalError):  # Also what another process causes that has it locked.
                time.sleep(pause)
        return aim.Run(repo=_repository(path, create), **options, **QUIET)

    return _within(OPEN_SECONDS, attempt, "open the run")


def close_run(run: Any, status: str | None = None) -> None:
    """Stores the status, ends Aim's threads of the run and writes everything to the disk.

    Raises:
        TimeoutError: after CLOSE_SECONDS. Also the exceptions of Aim if its storage fails.
    """

    def close() -> None:
        # Aim itself would close these when they are collected as garbage, where an error is only printed.
        stores = [store for config, store in run.repo.container_pool.items() if config.sub == run.hash]
        try:
            if status is not None:
                run["status"] = status
        finally:
            run.close()
        for store in stores:
            store.close()

    try:
        _within(CLOSE_SECONDS, close, "close the run")
    except BaseException:
        _abandoned.append(run)
        raise


@contextmanager
def failures_of_threads_in_one_line(say: Callable[[str], None]) -> Iterator[None]:
    """In this context, an error that ends one of Aim's threads is one line. Other threads keep their tracebacks."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        frames = traceback.walk_tb(arguments.exc_traceback)
        if any(frame.f_globals.get("__name__", "").startswith("aim.") for frame, _ in frames):
            error = arguments.exc_value or arguments.exc_type()
            say(f"a background thread of Aim ended ({reason(error)}); training continues")
        else:
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def _storage(folder: Path) -> Path:
    from aim.sdk.configs import get_aim_repo_name

    return folder / get_aim_repo_name()


def _is_complete(folder: Path) -> bool:
    """Aim writes VERSION last. Of an older version of Aim, its own call upgrades the repository."""
    from aim.sdk.repo import Repo, RepoStatus

    version = _storage(folder) / "VERSION"
    if not version.exists() or not version.stat().st_size:
        return False
    return Repo.check_repo_status(str(folder)) == RepoStatus.UPDATED


def _within(seconds: float, work: Callable[[], Any], what: str) -> Any:
    """The result of ``work``, or its exception; TimeoutError when it takes longer. Then it is left to itself.

    After either, Aim's handler at exit is removed: it would wait for the same storage, without a limit. Runs that are
    open elsewhere in this process then end as if it had been killed, which Aim's storage survives.
    """
    outcome: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((work(), None))
        except BaseException as error:  # For the caller's thread to raise.
            outcome.append((None, error))

    # Not a ThreadPoolExecutor: Python waits for its threads at exit.
    thread = threading.Thread(target=run, name=f"aim: {what}", daemon=True)
    thread.start()
    thread.join(seconds)
    result, error = outcome[0] if outcome else (None, TimeoutError(f"Aim did not {what} within {seconds:g} s"))
    if error is not None:
        from aim.ext.cleanup import AutoClean

        atexit.unregister(AutoClean.cleanup)
        raise error
    return result
