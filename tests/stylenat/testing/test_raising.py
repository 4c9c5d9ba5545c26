"""Whatever a plugin raises, its checker says what and where; a wrong call of a checker stays the caller's error."""

from dataclasses import dataclass

import pytest
from torch import nn

from stylenat.testing import CHECKERS, CannotCheck, ContractError


class Faulty:
    """Has every attribute, and raises whatever is asked of it."""

    name, network, interval, own_step, resolution = "faulty", "generator", 1, False, 16
    networks, requires_grad = ("generator",), True

    def __getattr__(self, name):
        if name.startswith("__") or name in ("paired", "reuses_logits", "check", "state_dict", "needs", "draws"):
            raise AttributeError(name)
        raise ZeroDivisionError(f"in {name}\n\x1b[31m")

    def __call__(self, *args, **kwargs):
        raise ZeroDivisionError("in the call\n\x1b[31m")


ARGUMENTS = {"tracker": lambda tmp_path: (tmp_path,), "checkpoint_layout": lambda tmp_path: (nn.Linear(1, 1),)}


@pytest.mark.parametrize("kind", CHECKERS)
def test_a_plugin_that_raises_gets_one_line_with_what_and_where(kind, tmp_path):
    with pytest.raises((ContractError, CannotCheck)) as caught:
        CHECKERS[kind](Faulty(), *ARGUMENTS.get(kind, lambda tmp_path: ())(tmp_path))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@dataclass
class Loss:
    error: Exception

    def discriminator(self, real_logits, fake_logits):
        raise self.error

    generator = discriminator


def test_the_line_names_error_file_and_function():
    with pytest.raises(ContractError, match=r"^it raises KeyError: 'x' \(test_raising.py:[0-9]+, in discriminator\)$"):
        CHECKERS["loss"](Loss(KeyError("x")))


def test_what_a_checker_is_not_given_is_no_fault_of_the_plugin(tmp_path):
    with pytest.raises(TypeError, match="directory"):
        CHECKERS["tracker"](Faulty())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), CannotCheck("no weights")])
def test_requests_to_stop_and_missing_files_pass(error):
    with pytest.raises(type(error)):
        CHECKERS["loss"](Loss(error))
