"""A plugin that raises breaks its contract: the checker says what it raised and where."""

import functools
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.wording import printable, reason
from stylenat.testing.contract import CannotCheck, ContractError


def judged(checker: Callable[..., None]) -> Callable[..., None]:
    """The checker, which raises ContractError or CannotCheck, whatever the plugin raises."""

    @functools.wraps(checker)
    def checked(*args: Any, **kwargs: Any) -> None:
        inspect.signature(checker).bind(*args, **kwargs)  # A wrong call of the checker is no fault of the plugin.
        try:
            checker(*args, **kwargs)
        except (ContractError, CannotCheck):
            raise
        except Exception as error:  # The plugin's own, of any type.
            *_, last = traceback.extract_tb(error.__traceback__)
            where = f"{Path(last.filename).name}:{last.lineno}, in {last.name}"
            raise ContractError(printable(f"it raises {reason(error)} ({where})")) from error

    return checked
