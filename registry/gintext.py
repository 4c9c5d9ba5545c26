"""Gin's text to statements that know their place, and values back to text. No names are looked up here."""

import dataclasses
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gin import config_parser

from registry.errors import UserError
from registry.wording import did_you_mean, listed

MACRO = "gin.macro"
"""Gin keeps the macro ``width = 64`` as the parameter ``value`` of this selector, in the scope ``width``."""


@dataclass(frozen=True)
class Reference:
    """``@scope/partition.split()``, or without parentheses where ``evaluate`` is False."""

    scope: str
    selector: str
    evaluate: bool

    def __str__(self) -> str:
        return f"@{scoped(self.scope, self.selector)}{'()' if self.evaluate else ''}"

    __repr__ = __str__


@dataclass(frozen=True)
class Macro:
    """``%name``."""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"

    __repr__ = __str__


REQUIRED = Macro("gin.REQUIRED")
"""What a fragment binds to a parameter that the experiment has to bind again."""


@dataclass(frozen=True)
class Statement:
    """``scope/selector.parameter = value``, found at ``where``: ``file:line`` or ``--bind 'text'``.

    ``old``: the old name in the text, where the statement is what this name is read as.
    """

    where: str
    scope: str
    selector: str
    parameter: str
    value: Any
    old: str = ""

    @property
    def source(self) -> str:
        """The file, or ``--bind`` for all bindings of the command line."""
        return "--bind" if self.where.startswith("--bind ") else self.where.rpartition(":")[0]

    def __str__(self) -> str:
        name = self.scope if self.selector == MACRO else f"{scoped(self.scope, self.selector)}.{self.parameter}"
        return f"{name} = {render(self.value)}"


def scoped(scope: str, selector: str) -> str:
    return f"{scope}/{selector}" if scope else selector


def read(files: Sequence[str | Path], bindings: Sequence[str], search_path: Sequence[Path]) -> list[Statement]:
    """All statements in order, includes expanded; ``bindings`` come last and so win.

    Files are searched in the current folder, the including file's folder and then ``search_path``.

    Raises:
        UserError: with file and line, for a syntax error, an import, a missing file or an endless include.
    """
    statements: list[Statement] = []
    for file in files:
        statements += _read_file(find_file(str(file), search_path), search_path, ())
    for text in bindings:
        statements += _read_binding(text, search_path)
    return statements


def _read_binding(text: str, search_path: Sequence[Path]) -> list[Statement]:
    return _read_text(text, lambda line: f"--bind {text!r}", Path(), search_path, ())


def read_text(text: str, label: str) -> list[Statement]:
    """The statements of a text that is no file; ``label`` stands in for the file's name."""
    return _read_text(text, lambda line: f"{label}:{line}", Path(), (), ())


def read_as(text: str, old: Statement, name: str) -> list[Statement]:
    """The statements of the text that stands for ``old``, which binds the old name ``name``."""
    found = _read_text(text, lambda line: old.where, Path(), (), ())
    return [
        dataclasses.replace(statement, scope=statement.scope or old.scope, old=name)
        if statement.selector != MACRO
        else statement
        for statement in found
    ]


def find_file(name: str, folders: Sequence[Path], where: str = "") -> Path:
    """The file as it was named, if it is there, or else in the first of the folders that has it."""
    for folder in (Path(), *folders):
        if (folder / name).is_dir() and name:
            raise UserError(f"{where + ': ' if where else ''}{folder / name} is a folder, not a gin file")
        if (folder / name).is_file():
            return folder / name
    known = {path.name for path in Path().glob("*.gin")}
    for folder in folders:
        known |= {str(path.relative_to(folder)) for path in (*folder.glob("*.gin"), *folder.glob("*/*.gin"))}
    searched = listed({"the current folder", *map(str, folders)})
    place = f"{where}: " if where else ""
    raise UserError(f"{place}there is no gin file {name!r} in {searched}{did_you_mean(name, known)}")


def _read_file(path: Path, search_path: Sequence[Path], chain: tuple[Path, ...]) -> list[Statement]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a gin file: {error}") from error
    chain = (*chain, path.resolve())
    return _read_text(text, lambda line: f"{path}:{line}", path.parent, search_path, chain)


def _read_text(
    text: str, where: Callable[[int], str], folder: Path, search_path: Sequence[Path], chain: tuple[Path, ...]
) -> list[Statement]:
    statements: list[Statement] = []
    for found in _parse(text, where):
        place = where(found.location.line_num)
        match found:
            case config_parser.BindingStatement(scope, selector, "", value):
                statements.append(Statement(place, scoped(scope, selector), MACRO, "value", value))
            case config_parser.BindingStatement(scope, selector, parameter, value):
                statements.append(Statement(place, scope, selector, parameter, value))
            case config_parser.IncludeStatement(name):
                path = find_file(name, [folder, *search_path], place)
                if path.resolve() in chain:
                    cycle = " -> ".join(link.name for link in (*chain, path))
                    raise UserError(f"{place}: this include never ends: {cycle}")
                statements += _read_file(path, search_path, chain)
            case config_parser.ImportStatement():
                raise UserError(
                    f"{place}: `{found.format()}`: gin files import nothing here; "
                    f"offer names from a plugin, and load it with --plugin {found.module}"
                )
    return statements


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_name: str, evaluate: bool) -> Reference:
        scope, _, selector = scoped_name.rpartition("/")
        return Reference(scope, selector, evaluate)

    def macro(self, name: str) -> Macro:
        return Macro(name)


def _parse(text: str, where: Callable[[int], str]) -> Iterator[Any]:
    """Gin's own parser, its complaints turned into one line with the place and the offending text."""
    lines = text.splitlines() or [""]
    line = 1
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
        while (statement := parser.parse_statement()) is not None:
            line = statement.location.line_num
            yield statement
    except tokenize.TokenError as error:
        raise UserError(f"{where(line)}: {error.args[0]}; a bracket or quote is not closed below this line") from error
    except (SyntaxError, ValueError, TypeError, StopIteration) as error:
        if isinstance(error, SyntaxError) and len(error.args) > 1 and error.args[1]:
            line = min(error.args[1][1], len(lines))
        raise UserError(f"{where(line)}: {_complaint(error)}: {lines[line - 1].strip()}") from error


def _complaint(error: Exception) -> str:
    message = str(error.args[0]) if error.args else "cannot be read"
    word = re.search(r"Failed to parse token '(-?\w+)'", message)
    if word is None:
        return message.splitlines()[0].rstrip(".")
    if word[1].capitalize() in ("True", "False", "None"):
        return f"{word[1]} is written {word[1].capitalize()}"
    return f"{word[1]} is no value; write text in quotes ('{word[1]}') and the names of things with an @"


def render(value: Any) -> str:
    """The text that gin reads back as the value. The value must be ``plain``."""
    match value:
        case float() if value in (float("inf"), float("-inf")):
            return "1e999" if value > 0 else "-1e999"
        case list():
            return f"[{', '.join(map(render, value))}]"
        case tuple():
            return f"({', '.join(map(render, value))}{',' if len(value) == 1 else ''})"
        case dict():
            return "{" + ", ".join(f"{render(key)}: {render(item)}" for key, item in value.items()) + "}"
        case Reference() | Macro():
            return str(value)
    return repr(value)


def plain(value: Any) -> bool:
    """Whether gin can spell the value."""
    if type(value) in (list, tuple):
        return all(map(plain, value))
    if type(value) is dict:
        return all(plain(key) and plain(item) for key, item in value.items())
    # A number that is not equal to itself is nan, which gin has no word for.
    return value is None or (type(value) in (bool, int, float, str, bytes, Reference, Macro) and value == value)


def replace(value: Any, change: Callable[[Any], Any]) -> Any:
    """The value with ``change`` applied to everything in it that is not a list, tuple or dictionary."""
    if isinstance(value, list | tuple):
        return type(value)(replace(item, change) for item in value)
    if isinstance(value, dict):
        return {replace(key, change): replace(item, change) for key, item in value.items()}
    return change(value)


def leaves(value: Any) -> Iterator[Any]:
    """Everything in the value that is not a list, tuple or dictionary."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, dict):
        for pair in value.items():
            yield from leaves(pair)
    else:
        yield value
