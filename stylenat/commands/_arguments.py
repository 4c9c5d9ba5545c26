"""Command lines: an error is one line that says what to do, as every other mistake."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from registry import UserError
from registry.wording import did_you_mean


class Parser(argparse.ArgumentParser):
    """argparse's, with examples below the options. ``prog``: the command's name.

    Raises:
        UserError: arguments that do not fit; ``command`` prints it and exits with 2.
    """

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(prog, None, description, epilog, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{' '.join(message.split())}; `python tools/{self.prog}.py --help` shows all arguments")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        found, unknown = self.parse_known_args(args, namespace)
        # argparse takes optional positional arguments with the first one only: `RUN --steps 5 PHOTO` has one too many.
        if unknown and any(action.nargs in ("?", "*") and not action.option_strings for action in self._actions):
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        if unknown:
            options = {option for action in self._actions for option in action.option_strings}
            guess = did_you_mean(unknown[0].partition("=")[0], options)
            self.error(f"unknown argument {' '.join(unknown)}{guess}")
        return found
