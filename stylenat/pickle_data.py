"""Reads a pickle as data: it interprets the opcodes itself, imports nothing and calls nothing that the file names.

Names stay text (``Name``), objects become ``Record``s. What a name means is not decided here.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from registry.wording import printable

OPCODES = 2_000_000
"""Of one pickle; the largest published networks have some hundred thousand."""
STACK = 100_000
"""Values and marks that may be waiting at a time."""

Call = Callable[[tuple[Any, ...]], Any]


class Refused(ValueError):
    """The pickle is not of the accepted form. Its text says why."""


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names. It is never imported."""

    text: str


@dataclass(eq=False)
class Record:
    """An object that a pickle makes: its class, what it was made of, its state, and its items if it is a container."""

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


PLAIN = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False,
}  # fmt: skip
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Machine:
    """Interprets one pickle after the other from a stream.

    Args:
        calls: what the functions give that a pickle may call, by name; their arguments are data already.
        containers: names of classes that are dictionaries.
        persistent: what a persistent id stands for; None if there may be none.
    """

    def __init__(
        self, calls: Mapping[str, Call], containers: frozenset[str] = frozenset(), persistent: Call | None = None
    ) -> None:
        self._calls, self._containers, self._persistent = calls, containers, persistent

    def read(self, stream: IO[bytes]) -> Any:
        """The value of the next pickle.

        Raises:
            Refused: an opcode, a call or a size that is not accepted. Damaged bytes raise LookupError, ValueError,
                TypeError or OverflowError too.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > OPCODES:
                raise Refused(f"it has more than {OPCODES} opcodes")
            if opcode.name == "STOP":
                (value,) = self._stack
                return value
            self._step(opcode.name, argument)
            if len(self._stack) + len(self._marks) > STACK:
                raise Refused(f"it keeps more than {STACK} values waiting")
        raise Refused("it ends early")

    def _step(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in LITERALS:
            stack.append(argument)
        elif name in PLAIN:
            stack.append(PLAIN[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(self._last(TUPLES[name]))]
        elif name in ("PROTO", "FRAME"):
            return
        elif (method := STEPS.get(name)) is not None:
            method(self, argument)
        else:
            raise Refused(f"it has the opcode {name}, which is not accepted")

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise Refused("it takes values that are not there")
        return self._stack[-count:]

    def _to_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._marks.pop()
        return found

    def _mark(self, argument: None) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, argument: None) -> None:
        self._stack.pop()

    def _pop_mark(self, argument: None) -> None:
        self._to_mark()

    def _tuple(self, argument: None) -> None:
        values = tuple(self._to_mark())
        self._stack.append(values)

    def _list(self, argument: None) -> None:
        values = self._to_mark()
        self._stack.append(values)

    def _dict(self, argument: None) -> None:
        values = self._to_mark()
        self._stack.append({})
        self._set(values)

    def _append(self, argument: None) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, argument: None) -> None:
        self._extend(self._to_mark())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise Refused("it appends to something that is not a list")
        self._stack[-1].extend(values)

    def _setitem(self, argument: None) -> None:
        values = self._last(2)
        del self._stack[-2:]
        self._set(values)

    def _setitems(self, argument: None) -> None:
        self._set(self._to_mark())

    def _set(self, values: list[Any]) -> None:
        target = self._stack[-1]
        items = target.items if isinstance(target, Record) else target
        if not isinstance(items, dict) or len(values) % 2:
            raise Refused("it sets items of something that is not a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int | float | bytes | Record | Name | None):
                raise Refused(f"a dictionary has a {type(key).__name__} as a key")
            items[key] = value

    def _global(self, argument: str) -> None:
        self._stack.append(Name(argument.replace(" ", ".")))

    def _stack_global(self, argument: None) -> None:
        module, name = self._last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("it names something by values that are not text")
        self._stack[-2:] = [Name(f"{module}.{name}")]

    def _reduce(self, argument: None) -> None:
        function, arguments = self._last(2)
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("it calls something that is not a name")
        if function.text not in self._calls:
            raise Refused(f"it holds {printable(function.text, 100)}, which could run code")
        self._stack[-2:] = [self._calls[function.text](arguments)]

    def _newobj(self, argument: None) -> None:
        self._make(*self._last(2), drop=2)

    def _newobj_ex(self, argument: None) -> None:
        kind, arguments, keywords = self._last(3)
        if keywords != {}:
            raise Refused("it makes an object of keyword arguments")
        self._make(kind, arguments, drop=3)

    def _make(self, kind: Any, arguments: Any, drop: int) -> None:
        if not isinstance(kind, Name) or not isinstance(arguments, tuple):
            raise Refused("it makes an object of something that is not a class")
        self._stack[-drop:] = [{} if kind.text in self._containers else Record(kind.text, arguments)]

    def _build(self, argument: None) -> None:
        target, state = self._last(2)
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):  # The attributes of a dictionary are of no use here.
            raise Refused("it sets the state of something that has none")
        self._stack.pop()

    def _get(self, argument: int) -> None:
        self._stack.append(self._memo[argument])

    def _put(self, argument: int) -> None:
        self._memo[argument] = self._stack[-1]

    def _memoize(self, argument: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _persistent_id(self, argument: None) -> None:
        if self._persistent is None:
            raise Refused("it refers to objects outside of the file")
        identity = self._stack.pop()
        self._stack.append(self._persistent(identity if isinstance(identity, tuple) else (identity,)))


STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark, "POP": Machine._pop, "POP_MARK": Machine._pop_mark, "TUPLE": Machine._tuple,
    "LIST": Machine._list, "DICT": Machine._dict, "APPEND": Machine._append, "APPENDS": Machine._appends,
    "ADDITEMS": Machine._appends, "FROZENSET": Machine._list, "SETITEM": Machine._setitem,
    "SETITEMS": Machine._setitems, "GLOBAL": Machine._global, "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce, "NEWOBJ": Machine._newobj, "NEWOBJ_EX": Machine._newobj_ex, "BUILD": Machine._build,
    "BINGET": Machine._get, "LONG_BINGET": Machine._get, "BINPUT": Machine._put, "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._memoize, "BINPERSID": Machine._persistent_id,
}  # fmt: skip
"""The accepted opcodes besides literals. There is none for extension codes, buffers, or classes by INST and OBJ."""
