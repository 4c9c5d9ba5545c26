"""Gin's text to statements that know their line, and values back to text. No names are looked up here.

gin's parser reads the text. What it costs is bounded before it starts.
"""

import dataclasses
import io
import os
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gin import config_parser

from registry.wording import UserError, at, did_you_mean, listed

MACRO = "%"
"""Selector of the statement ``width = 64``, whose scope is ``width``. No text can spell it."""
CHARACTERS = 2**16
"""Of all files, includes and bindings of an experiment together: more than ten times the longest one shipped."""
FILES = 1000
DEPTH = 64
"""Of brackets in brackets, macros in macros, and objects that need objects."""
STRINGS = 100
"""In a row, which Python joins; gin's parser reads them in quadratic time."""


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

    ``source``: the file, or ``--bind`` for all bindings of the command line. ``old``: the old name in the text, where
    the statement is what this name is read as.
    """

    where: str
    source: str
    scope: str
    selector: str
    parameter: str
    value: Any
    old: str = ""

    def __str__(self) -> str:
        name = self.scope if self.selector == MACRO else f"{scoped(self.scope, self.selector)}.{self.parameter}"
        return f"{name} = {render(self.value)}"


def scoped(scope: str, selector: str) -> str:
    return f"{scope}/{selector}" if scope else selector


def read(files: Sequence[str | Path], bindings: Sequence[str], search_path: Sequence[Path]) -> list[Statement]:
    """All statements in order, includes expanded; ``bindings`` come last and so win.

    Files are searched in the current folder, the including file's folder and then ``search_path``.

    Raises:
        UserError: with file and line, for a syntax error, an import, a missing file, an include that is not a gin file
            or never ends, or more text than ``CHARACTERS``.
    """
    reader = _Reader(search_path)
    statements = [s for file in files for s in reader.file(find_file(str(file), search_path))]
    return statements + [s for text in bindings for s in reader.text(text, _always(f"--bind {text!r}"), "--bind")]


def read_text(text: str, label: str) -> list[Statement]:
    """The statements of a text that is not a file; ``label`` stands in for the file's name."""
    return _Reader().text(text, lambda line: f"{label}:{line}", label)


def read_as(text: str, old: Statement, name: str) -> list[Statement]:
    """The statements of the text that stands for ``old``, which binds the old name ``name``."""
    found = _Reader().text(text, _always(old.where), old.source)
    return [dataclasses.replace(s, scope=s.scope or old.scope, old=name) for s in found]


def _always(where: str) -> Callable[[int], str]:
    return lambda line: where


def find_file(name: str, folders: Sequence[Path], where: str = "") -> Path:
    """The file as it was named, if it is there, or else in the first of the folders that has it."""
    for folder in (Path(), *folders):
        if os.path.isdir(folder / name) and name:
            raise UserError(at(where, f"{folder / name} is a folder, not a gin file"))
        if os.path.isfile(folder / name):  # Unlike pathlib's, False for a name that no file can have.
            return folder / name
    known = {path.name for path in Path().glob("*.gin")}
    for folder in folders:
        known |= {str(path.relative_to(folder)) for path in (*folder.glob("*.gin"), *folder.glob("*/*.gin"))}
    searched = listed({"the current folder", *map(str, folders)})
    raise UserError(at(where, f"there is no gin file {name!r} in {searched}{did_you_mean(name, known)}"))


class _Reader:
    """Reads what one experiment consists of, and counts it."""

    def __init__(self, search_path: Sequence[Path] = ()) -> None:
        self.search_path, self.files, self.characters = search_path, 0, 0

    def file(self, path: Path, chain: tuple[Path, ...] = (), quote: bool = True) -> list[Statement]:
        self.files += 1
        if self.files > FILES:
            raise UserError(f"{path}: more than {FILES} files are included; does one include itself twice?")
        try:
            with path.open(encoding="utf-8-sig") as opened:
                text = opened.read(CHARACTERS + 1)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: cannot be read as a gin file: it is not UTF-8 text") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read as a gin file: {error}") from error
        return self.text(text, lambda line: f"{path}:{line}", str(path), path.parent, (*chain, path.resolve()), quote)

    def text(
        self,
        text: str,
        where: Callable[[int], str],
        source: str,
        folder: Path = Path(),  # noqa: B008 - immutable
        chain: tuple[Path, ...] = (),
        quote: bool = True,
    ) -> list[Statement]:
        """``chain``: the files that include each other, down to this one; ``quote``: whether errors show its text."""
        self.characters += len(text)
        if self.characters > CHARACTERS:
            raise UserError(f"{source}: more than {CHARACTERS:,} characters of gin text, with all that is included")
        statements: list[Statement] = []
        for found in _parsed(text, where, quote):
            line = where(found.location.line_num)
            match found:
                case config_parser.BindingStatement(scope, selector, "", value):
                    statements.append(Statement(line, source, scoped(scope, selector), MACRO, "value", value))
                case config_parser.BindingStatement(scope, selector, parameter, value):
                    statements.append(Statement(line, source, scope, selector, parameter, value))
                case config_parser.IncludeStatement(name):
                    statements += self._included(name, folder, line, chain)
                case config_parser.ImportStatement():
                    raise UserError(f"{line}: `{found.format()}`: {_instead_of_import(found)}")
        return statements

    def _included(self, name: str, folder: Path, line: str, chain: tuple[Path, ...]) -> list[Statement]:
        path = find_file(name, [folder, *self.search_path], line)
        if path.resolve() in chain:
            cycle = " -> ".join(link.name for link in (*chain, path))
            raise UserError(f"{line}: this include never ends: {cycle}")
        if {path.suffix, path.resolve().suffix} != {".gin"}:
            raise UserError(f"{line}: {path} is not a gin file: the name of an included file ends in .gin")
        # What a foreign text includes may be a file that the user does not want to show.
        return self.file(path, chain, quote=False)


def _instead_of_import(found: config_parser.ImportStatement) -> str:
    module = found.module.rpartition(".")[0] if found.is_from else found.module
    if module == "__gin__":
        return "every registered name can be used here without it; delete the line"
    return (
        "gin files import nothing, and every installed plugin is found; delete the line. If it is a plugin that is not "
        f"installed, add --plugin {module}"
    )


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_name: str, evaluate: bool) -> Reference:
        scope, _, selector = scoped_name.rpartition("/")
        return Reference(scope, selector, evaluate)

    def macro(self, name: str) -> Macro:
        return Macro(name)


def _parsed(text: str, where: Callable[[int], str], quote: bool) -> Iterator[Any]:
    """Gin's own parser, its complaints turned into one line with the line number and, if ``quote``, the line."""
    lines = text.splitlines() or [""]
    line = 1
    _check_brackets_and_strings(text, where)
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
        problem = f"{_complaint(error)}: {lines[line - 1].strip()}" if quote else "this line is not gin syntax"
        raise UserError(f"{where(line)}: {problem}") from error


def _check_brackets_and_strings(text: str, where: Callable[[int], str]) -> None:
    """Raises UserError for what gin's parser, which is recursive, would take too much stack or time for."""
    depth = strings = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.OP:
                depth += (token.string in "([{") - (token.string in ")]}")
            if token.type not in (tokenize.NL, tokenize.COMMENT):
                strings = strings + 1 if token.type == tokenize.STRING else 0
            if depth > DEPTH:
                raise UserError(f"{where(token.start[0])}: more than {DEPTH} brackets in each other")
            if strings > STRINGS:
                raise UserError(f"{where(token.start[0])}: more than {STRINGS} strings in a row; is a comma missing?")
    except (tokenize.TokenError, SyntaxError):
        return  # The parser meets the same, and says in which statement.


def _complaint(error: Exception) -> str:
    message = str(error.args[0]) if error.args else "cannot be read"
    word = re.search(r"Failed to parse token '(-?\w+)'", message)
    if word is None:
        return message.splitlines()[0].rstrip(".")
    if word[1].capitalize() in ("True", "False", "None"):
        return f"{word[1]} is written {word[1].capitalize()}"
    return f"{word[1]} is not a value; quote strings ('{word[1]}'); prefix references with @"


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
