"""What ``check_gpu`` checks: a table of checks, each a module's ``rows(device)`` that runs in a process of its own.

No torch here, so that ``--help`` and ``--list`` answer at once. On a CPU every check runs in a small form.
"""

from dataclasses import dataclass, field

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        what: it finds out, in one line; seconds: it may take; module: within this package.
    """

    what: str
    seconds: float
    module: str


# Most valuable first.
CHECKS = {
    "machine": Check("names, versions, and the rates that bound everything else", 20, "machine"),
    "exactness": Check("every attention backend against float64, forward and gradients", 100, "exactness"),
    "quickstart": Check("gin/quickstart.gin from end to end, shortened", 50, "quickstart"),
    "norm": Check("the fused AdaIN against float64, and milliseconds of it and of the plain formula", 20, "norm"),
    "attention": Check("milliseconds of the attention op by backend, with and without bias", 70, "attention"),
    "sampling": Check("images a second of the FFHQ-256 generator, batches 1 to 64", 50, "sampling"),
    "training": Check("the FFHQ-256 iteration: images a second, memory, launches, waits", 70, "training"),
    "determinism": Check("whether equal iterations have equal bits, with train.deterministic", 30, "determinism"),
    "resume": Check("whether a continued run has the bits of an uninterrupted one", 40, "resume"),
    "compilation": Check("the FFHQ-256 iteration with train.compile and train.cuda_graphs", 90, "compilation"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: what was tried; values: what was found, each under a name with its unit, None where it cannot be.
        exact: whether results are as exact as their precision allows; None where that is not the question.
        note: why there are no values.
    """

    case: str
    values: dict[str, Value] = field(default_factory=dict)
    exact: bool | None = None
    note: str = ""

    def __str__(self) -> str:
        shown = [f"{name} {_shown(value)}" for name, value in self.values.items() if value is not None]
        verdict = [] if self.exact is None else ["exact" if self.exact else "INEXACT"]
        return ", ".join([*verdict, *shown, *([self.note] if self.note else [])])


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
