"""What a constructor refuses is reported with the lines that bound its arguments."""

import json
import sys

import pytest

from registry import UserError

PLUGIN = """
import json
from registry import UserError, hookimpl


class Special(UserError):
    pass


class Picky:
    def __init__(self, size: int = 3, width: int = 1, part: object = None, error: str = "UserError"):
        self.size = size
        if error == "JSON":
            json.loads("{")
        kinds = {"UserError": UserError, "Special": Special, "ValueError": ValueError, "RuntimeError": RuntimeError}
        if size == 4 or width == 4:
            raise kinds[error](f"size must be odd, got {size}" if size == 4 else "four is too many")
        if part is not None and part.size == 6:
            raise UserError("size 6 does not fit")


class PickyBlock(Picky):
    def __init__(self, *, site, style_dim, size: int = 3):
        super().__init__(size)


@hookimpl
def stylenat_register(register):
    register("metric", "picky", Picky)
    register("block", "picky", PickyBlock)
"""
GOOD = "train.iterations = 1\ntrain.things = [@metric.picky()]\n"


@pytest.fixture
def refuse(workshop):
    workshop.distribution("picky", "1.0", "picky_plugin", PLUGIN)
    registry = workshop.plugins()

    def refuse(text, *bindings, kind=UserError, get="train.things"):
        experiment = workshop.experiment(GOOD + text, *bindings, registry=registry)
        with pytest.raises(kind) as caught:
            value = experiment.value(get)
            value()
        return caught.value

    return refuse


def test_the_parameter_that_the_message_names_is_located(refuse):
    error = refuse("metric.picky.width = 2\nmetric.picky.size = 4")
    assert str(error) == "test.gin:4: metric.picky.size: size must be odd, got 4"


def test_a_binding_of_the_command_line_is_shown(refuse):
    message = str(refuse("", "metric.picky.size = 4"))
    assert message.startswith("--bind 'metric.picky.size = 4': metric.picky.size: size must be odd")


def test_without_a_name_in_the_message_all_that_is_bound_is_located(refuse):
    message = str(refuse("metric.picky.size = 5\nmetric.picky.width = 4"))
    assert message == "test.gin:3: metric.picky.size, test.gin:4: metric.picky.width: four is too many"


def test_an_argument_of_an_argument_is_located(refuse):
    text = "metric.picky.part = @a/metric.picky()\na/metric.picky.part = None\na/metric.picky.size = 6\n"
    assert str(refuse(text)) == "test.gin:5: a/metric.picky.size: size 6 does not fit"


def test_what_is_not_bound_is_located_where_it_is_referred_to(refuse, workshop, monkeypatch):
    workshop.experiment(GOOD, registry=workshop.plugins())
    monkeypatch.setattr(sys.modules["picky_plugin"].Picky.__init__, "__defaults__", (4, 1, None, "UserError"))
    assert str(refuse("")) == "test.gin:2: metric.picky: size must be odd, got 4"


def test_a_class_that_is_built_later_is_located_once(refuse):
    text = "generator.style.block = @block.picky\nblock.picky.size = 4\ntrain.generator = @generator.style"
    message = str(refuse(text, get="train.generator"))
    assert message.startswith("test.gin:4: block.picky.size: ") and message.count("test.gin") == 1


def test_the_kind_of_user_error_is_kept(refuse):
    error = refuse("metric.picky.size = 4\nmetric.picky.error = 'Special'")
    assert type(error).__name__ == "Special" and str(error).startswith("test.gin:3: metric.picky.size: ")


def test_a_value_error_of_the_target_itself_is_the_users_mistake(refuse):
    error = refuse("metric.picky.size = 4\nmetric.picky.error = 'ValueError'")
    assert str(error).startswith("test.gin:3: metric.picky.size: ") and type(error.__cause__) is ValueError


@pytest.mark.parametrize(("name", "kind"), [("RuntimeError", RuntimeError), ("JSON", json.JSONDecodeError)])
def test_any_other_fault_keeps_its_type_and_gets_a_note(refuse, name, kind):
    error = refuse(f"metric.picky.size = 4\nmetric.picky.error = '{name}'", kind=kind)
    assert type(error) is kind and "test.gin:3: metric.picky.size" in error.__notes__[0]
