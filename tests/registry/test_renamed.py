"""Gin texts that bind a parameter by an old name are read as what is written now."""

import pytest

from registry import UserError, load_experiment

PLUGIN = """
from registry import hookimpl, UserError


class Adam:
    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), rate: float = 1.0):
        self.betas, self.rate = betas, rate


def half(value):
    if not isinstance(value, int):
        raise UserError("takes int")
    return f"metric.adam.rate = {value / 2}" if value else ""


@hookimpl
def stylenat_register(register):
    register("metric", "adam", Adam)


@hookimpl
def stylenat_renamed(renamed):
    renamed("train.verbosity", "train.verbose")
    renamed("train.betas", lambda value: f"train.things = [@metric.adam()]\\nmetric.adam.betas = {value}")
    renamed("train.twice_rate", half)
    renamed("loss.gone.factor", "partition.mix.weight")
"""
GOOD = "train.iterations = 1\n"


@pytest.fixture
def registry(workshop):
    workshop.distribution("renaming", "2.0", "renaming", PLUGIN)
    return workshop.plugins()


def test_an_old_name_is_read_as_the_new_one_and_a_line_says_what_to_write(workshop, registry, capsys):
    new = workshop.experiment(GOOD + "train.verbose = True", registry=registry)
    for line in ("train.verbosity = True", "toy_core.train.verbosity = True"):
        assert workshop.experiment(GOOD + line, registry=registry).hash == new.hash
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith("test.gin:2: train.verbosity is an old name") and said.endswith("train.verbose = True")


def test_one_old_binding_may_become_several_with_references_and_macros(workshop, registry, capsys):
    text = GOOD + "train.betas = (%LOW, 0.5)\nLOW = 0.25"
    [adam] = workshop.experiment(text, registry=registry).value("train.things")
    assert adam.betas == (0.25, 0.5)
    assert "train.things = [@metric.adam()]; metric.adam.betas = (0.25, 0.5)" in capsys.readouterr().err


def test_an_old_name_keeps_its_scope_and_may_be_of_something_that_is_gone(workshop, registry):
    text = GOOD + "train.things = [@partition.mix(), @a/partition.mix()]\na/loss.gone.factor = 0.25"
    config = workshop.experiment(text, registry=registry).settings()
    assert (config["partition.mix.weight"], config["a/partition.mix.weight"]) == ("0.5", "0.25")


def test_a_translation_may_bind_nothing_or_refuse_the_value(workshop, registry):
    assert workshop.experiment(GOOD + "train.twice_rate = 0", registry=registry).settings()
    with pytest.raises(UserError, match="^test.gin:2: train.twice_rate: takes int"):
        workshop.experiment(GOOD + "train.twice_rate = 'x'", registry=registry)


def test_a_wrong_value_of_an_old_name_is_reported_where_the_old_name_stands(workshop, registry):
    with pytest.raises(UserError, match="^test.gin:2: metric.adam.betas takes"):
        workshop.experiment(GOOD + "train.betas = 3", registry=registry)


def test_the_old_and_the_new_name_in_one_file_are_an_error_that_names_both_lines(workshop, registry):
    text = GOOD + "train.verbosity = True\n\ntrain.verbose = False"
    with pytest.raises(UserError, match=r"^test.gin:2 binds train.verbosity, .* test.gin:4 binds train.verbose"):
        workshop.experiment(text, registry=registry)


def test_across_files_the_later_one_wins_as_ever(workshop, registry):
    for file, binding in (("verbose", "verbosity"), ("verbosity", "verbose")):
        text = GOOD + f"train.{file} = True"
        experiment = workshop.experiment(text, f"train.{binding} = False", registry=registry)
        assert experiment.settings()["train.verbose"] == "False"


def test_the_config_of_an_old_run_is_compared_without_a_line(workshop, registry, capsys):
    experiment = workshop.experiment(GOOD + "train.verbose = True", registry=registry)
    assert experiment.differences(GOOD + "train.verbosity = True") == []
    assert capsys.readouterr().err == ""


def test_a_plugin_that_fails_to_load_renames_nothing(workshop):
    workshop.distribution("renaming", "2.0", "renaming", PLUGIN.replace('"metric", "adam"', '"no_kind", "adam"'))
    registry = workshop.plugins()
    assert registry.suspects and not registry.renames
    workshop.write("test.gin", GOOD + "train.verbosity = True")
    with pytest.raises(UserError, match="train has no parameter 'verbosity'"):
        load_experiment(registry, ["test.gin"])
