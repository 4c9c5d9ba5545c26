"""Process-wide settings that importing a plugin must not change. Which ones there are, the framework says."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


def _say_nothing(line: str) -> None: ...


@dataclass(frozen=True)
class Watch:
    """Names what changes them.

    Attributes:
        settings: their present values by name; one that is absent is not known.
        say: gets a line for each import that changes some.
    """

    settings: Callable[[], Mapping[str, object]] = dict
    say: Callable[[str], None] = _say_nothing

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """Compares the settings before and after; ``what`` is what is imported."""
        before = self.settings()
        try:
            yield
        finally:
            now = self.settings()
            changed = [f"{name} from {before[name]} to {now[name]}" for name in before if before[name] != now.get(name)]
            if changed:
                self.say(
                    f"importing {what} changed {', '.join(changed)}, for all other code in this process, too; "
                    "set it where it is used, not on import"
                )
