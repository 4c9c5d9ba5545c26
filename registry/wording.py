"""Turns of phrase that every error message shares."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'kernel_size'?``, or nothing when nothing is close."""
    matches = get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def listed(names: Iterable[str]) -> str:
    """The names in order, or ``none``."""
    return ", ".join(sorted(names)) or "none"


def at(where: str, message: str) -> str:
    """``where: message``, or the message alone when no place is known."""
    return f"{where}: {message}" if where else message
