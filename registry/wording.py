"""What every error message shares: its exception and its turns of phrase."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what the user typed or supplied (a gin file, a path, an image, a plugin).

    Command lines print its message as one line on stderr and exit with code 2; the message says what is
    wrong and what to do about it. Unexpected faults must NOT be turned into this: they keep their traceback.

    ``located``: the message already says which line of a gin file caused it.
    """

    located = False


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'kernel_size'?``, or nothing when nothing is close."""
    matches = get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def listed(names: Iterable[str]) -> str:
    """The names in order, or ``none``."""
    return ", ".join(sorted(names)) or "none"


def reason(error: BaseException) -> str:
    """``TypeError: what went wrong`` in one line; a package that is not installed comes with its remedy."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removeprefix("UserError: ").removesuffix(": ")
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += f"; install it: pip install {error.name.partition('.')[0]}"
    return text


def printable(text: object, limit: int = 2000) -> str:
    """Foreign text as it may be shown: one line, and nothing that a terminal acts on or hides.

    Names of files, tensors, metrics and plugins come from other people. Control characters, line breaks, marks that
    reorder text and undecodable bytes are shown as escapes such as ``\\x1b``; beyond ``limit`` characters the middle is
    left out.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))
    return shown if len(shown) <= limit else f"{shown[: limit // 2]} ... {shown[-limit // 4 :]}"


def at(where: str, message: str) -> str:
    """``where: message``, or the message alone when no line is known."""
    return f"{where}: {message}" if where else message
