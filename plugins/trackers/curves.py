"""What the trackers of curves share: which iterations have a point, and failures that do not stop training."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from registry import UserError
from registry.wording import printable, reason
from stylenat.training.run import Run

POINTS = 10
"""Points that a curve of a short run has at least."""


def interval(every: int, run: Run) -> int:
    """Iterations between points: ``every``, or a tenth of a run that would have fewer than ten."""
    return min(every, max(1, run.iterations // POINTS))


def must_be_installed(package: str) -> None:
    """Raises UserError where the package that a tracker of the same name needs is not installed. Imports nothing."""
    if find_spec(package) is None:
        raise UserError(
            f"tracker.{package} needs the package {package}, which is not installed: pip install {package}, or leave "
            f"@tracker.{package}() out of train.trackers"
        )


class Failures:
    """A tracker's failures: one line on stderr for each cause, and training continues."""

    def __init__(self, tracker: str) -> None:
        self._tracker = tracker
        self._said: set[tuple[str, type]] = set()

    @contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Catches what fails in this context; ``what`` completes "cannot ..."."""
        try:
            yield
        except Exception as error:  # Whatever it is, a tracker's failure is no reason to lose a week of training.
            if (what, type(error)) not in self._said:
                self._said.add((what, type(error)))
                missing = "" if str(error).strip() else " without a message"
                self.say(f"cannot {what} ({reason(error)}{missing}); training continues")

    def say(self, line: str) -> None:
        line = f"{self._tracker}: {printable(line)}"
        Console(stderr=True).print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


class Newest:
    """The newest value of each scalar since the last point.

    Lazy regularizers rarely run in the very iteration that is tracked.
    """

    def __init__(self) -> None:
        self._values: dict[str, tuple[int, Any]] = {}

    def note(self, step: int, scalars: Mapping[str, Any]) -> None:
        for name, value in scalars.items():
            self._values[name] = (step, value)

    def taken(self) -> dict[str, tuple[int, Any]]:
        """By name: the iteration and the value, a 0-d tensor or a float. They are forgotten here."""
        taken, self._values = self._values, {}
        return taken

    def forget(self) -> None:
        self._values.clear()


def plain(value: Any) -> Any:
    """Nested plain values; anything else becomes its text."""
    if isinstance(value, Mapping):
        return {plain_text(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float) else plain_text(value)


def plain_text(value: Any) -> str:
    """Text that can be encoded: undecodable bytes, as in names of files, are shown as escapes."""
    return str(value).encode(errors="backslashreplace").decode()
