"""What every kind of plugin has to keep, as one call each: ``check_partition(MyPartition())`` in a test.

A checker returns nothing, or raises ``ContractError`` (an ``AssertionError``) that says which rule is broken and how.
Kinds that are bound as classes are checked as classes, the others as instances, just as gin has them. Which checkers
there are is said by the kinds' rows in ``registry/kinds.py``.
"""

from collections.abc import Callable

from registry.kinds import KINDS, imported
from stylenat.testing.contract import CannotCheck, ContractError
from stylenat.testing.raising import judged

CHECKERS: dict[str, Callable[..., None]] = {name: judged(imported(kind.checker)) for name, kind in KINDS.items()}
"""The checker of each kind."""

globals().update({checker.__name__: checker for checker in CHECKERS.values()})

__all__ = ["CHECKERS", "CannotCheck", "ContractError", *(checker.__name__ for checker in CHECKERS.values())]
