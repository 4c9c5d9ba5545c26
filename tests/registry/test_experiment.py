import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import Origin, UserError, load_experiment
from registry.gintext import Macro, Reference, render

TEXT = """
train.iterations = 3
train.generator = @generator.style
train.loss = @loss.hinge()
generator.style.resolution = 64
generator.style.block = @block.hydra
block.hydra.partition = @partition.split()
partition.split.kernel_size = 5
"""


def test_train_is_called_with_what_the_text_says(workshop):
    experiment = workshop.experiment(TEXT, "train.iterations = 4")
    run, iterations, generator, loss, _ = experiment.get("train")("the run")
    assert (run, iterations, generator.resolution, loss.name) == ("the run", 4, 64, "hinge")
    assert generator.block.partition.kernel_size == 5


def test_instances_are_of_the_original_class(workshop):
    _, _, generator, _, _ = workshop.experiment(TEXT).get("train")("run")
    original = sys.modules["toy_plugin"].Style
    assert type(generator) is original and original(3).resolution == 3


def test_scopes_and_macros_keep_gins_meaning(workshop):
    text = """
    size = 9
    train.iterations = 1
    train.things = [@partition.split(), @small/partition.split(), %shared]
    shared = @small/partition.split()
    partition.split.kernel_size = %size
    small/partition.split.kernel_size = 3
    """
    sizes = [thing.kernel_size for thing in workshop.experiment(text).value("train.things")]
    assert sizes == [9, 3, 3]


def test_a_singleton_is_shared(workshop):
    text = """
    train.iterations = 1
    train.metrics = [@one/singleton(), @one/singleton()]
    one/singleton.constructor = @partition.split
    """
    first, second = workshop.experiment(text).value("train.metrics")
    assert first is second


def test_value_gives_bindings_defaults_and_new_objects(workshop):
    experiment = workshop.experiment(TEXT)
    assert experiment.value("train.iterations") == 3
    assert experiment.value("train.verbose") is False
    assert experiment.value("block.hydra.partition") is not experiment.value("block.hydra.partition")
    assert experiment.value("train.generator")().resolution == 64
    with pytest.raises(UserError, match="partition.table.dilations is bound nowhere"):
        experiment.value("partition.table.dilations")
    with pytest.raises(UserError, match="did you mean 'iterations'"):
        experiment.value("train.iteration")


def test_a_users_mistake_inside_a_configurable_names_the_line_that_caused_it(workshop):
    with pytest.raises(UserError) as caught:
        workshop.experiment("train.iterations = -1").get("train")("run")
    assert str(caught.value) == "test.gin:1: train.iterations: iterations must not be negative"


def test_only_what_the_text_names_is_imported(workshop):
    registry = workshop.plugins()
    workshop.write("heavy.py", "class Heavy:\n    pass")
    registry.add("metric", "heavy", "heavy:Heavy", Origin("heavy"))
    workshop.experiment(TEXT, registry=registry)
    assert "heavy" not in sys.modules
    workshop.experiment(TEXT + "train.metrics = [@metric.heavy()]", registry=registry)
    assert "heavy" in sys.modules


def test_experiments_do_not_disturb_each_other(workshop):
    first = workshop.experiment(TEXT + "train.rates = (0.1, 0.2)")
    second = workshop.experiment("train.iterations = 7")
    assert second.get("train")("run") == ("run", 7, None, None, (0.0, 0.99))
    assert first.get("train")("run")[4] == (0.1, 0.2)


def test_the_same_name_may_stand_for_another_class_at_the_next_load(workshop):
    source = """
from registry import hookimpl
class Idea:
    size = SIZE
@hookimpl
def stylenat_register(register):
    register("metric", "idea", Idea)
"""
    for size in (1, 2):
        workshop.write("idea.py", source.replace("SIZE", str(size)))
        text = "train.iterations = 1\ntrain.metrics = [@metric.idea()]"
        experiment = workshop.experiment(text, registry=workshop.plugins("idea.py"))
        assert experiment.value("train.metrics")[0].size == size


def test_name_and_paths_are_of_the_files(workshop):
    path = workshop.write("shipped/base.gin", TEXT)
    workshop.write("extra.gin", "train.iterations = 9")
    experiment = load_experiment(workshop.plugins(), ["base.gin", "extra.gin"], search_path=[path.parent])
    assert experiment.name == "base" and experiment.paths[0] == path
    assert experiment.value("train.iterations") == 9


SAME = {
    "comments and blank lines": TEXT.replace("\n", "\n\n# a comment\n"),
    "order": "\n".join(reversed(TEXT.splitlines())),
    "whitespace": TEXT.replace(" = ", "  =   "),
    "a macro": TEXT.replace("= 64", "= %side") + "side = 64",
    "full selectors": TEXT.replace("train.", "toy_core.train."),
    "a default spelt out": TEXT + "train.verbose = False",
    "something unused": TEXT + "partition.mix.weight = 0.25",
    "a binding that is overridden": "train.iterations = 9\n" + TEXT,
    "a block of bindings": TEXT.replace("generator.style.resolution = 64", "generator.style:\n  resolution = 64"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_hash_does_not_depend_on(workshop, name):
    experiment = workshop.experiment(TEXT)
    again = workshop.experiment(SAME[name])
    assert again.hash == experiment.hash and len(again.hash) == 8
    assert again.operative_text() == experiment.operative_text()


def test_the_hash_does_not_depend_on_includes(workshop):
    expected = workshop.experiment(TEXT).hash
    workshop.write("shipped/base.gin", TEXT)
    assert workshop.experiment("include 'base.gin'").hash == expected


@pytest.mark.parametrize("change", ["train.iterations = 4", "partition.split.kernel_size = 3", "train.loss = None"])
def test_the_hash_depends_on_every_value_in_use(workshop, change):
    assert workshop.experiment(TEXT, change).hash != workshop.experiment(TEXT).hash


def test_operative_text_has_full_selectors_defaults_and_plugins(workshop):
    text = workshop.experiment(TEXT.replace("@partition.split", "@split")).operative_text()
    assert "\npartition.split.kernel_size = 5\n" in text
    assert "\nblock.hydra.partition = @partition.split()\n" in text
    assert "\ntoy_core.train.verbose = False\n" in text
    assert "# Plugins in use: toy 1.2, toy_core\n" in text
    assert "block.hydra.site" not in text


def test_what_is_called_gets_what_the_operative_text_says(workshop):
    text = TEXT.replace("@block.hydra", "@a/hydra") + "a/partition.split.kernel_size = 3\ntrain.rates = (0.5, 0.25)"
    experiment = workshop.experiment(text)
    _, iterations, generator, _, rates = experiment.get("train")("run")
    settings = experiment.settings()
    assert (settings["train.iterations"], settings["train.rates"]) == (str(iterations), str(rates))
    assert settings["generator.style.resolution"] == str(generator.resolution)
    assert settings["a/partition.split.kernel_size"] == str(generator.block.partition.kernel_size) == "3"
    assert settings["a/block.hydra.mode"] == repr(generator.block.mode)
    assert "partition.split.kernel_size" not in settings  # The scope is that of the block, which builds it.


def test_operative_text_survives_a_plugin_with_the_same_short_names(workshop):
    registry = workshop.plugins()
    experiment = workshop.experiment(TEXT.replace("@partition.split", "@split"), registry=registry)
    registry.add("metric", "split", "toy_plugin:Split", Origin("other"))
    assert workshop.experiment(experiment.operative_text(), registry=registry).hash == experiment.hash


FLOATS = st.floats(allow_nan=False)
CHOICES = st.fixed_dictionaries(
    {"train.iterations": st.integers()},
    optional={
        "train.name": st.none() | st.text(max_size=5),
        "train.rates": st.tuples(FLOATS, FLOATS),
        "train.generator": st.sampled_from(
            [Reference("", "generator.style", False), Reference("a", "style", False), Macro("made")]
        ),
        "train.loss": st.builds(Reference, st.sampled_from(["", "b"]), st.just("hinge"), st.just(True)),
        "generator.style.block": st.builds(
            Reference, st.sampled_from(["", "a", "a/c"]), st.just("block.hydra"), st.just(False)
        ),
        "a/generator.style.gain": FLOATS,
        "partition.split.kernel_size": st.integers(),
        "a/partition.split.kernel_size": st.integers(),
        "a/c/partition.split.kernel_size": st.integers(),
        "partition.mix.weight": FLOATS,
        "a/block.hydra.partition": st.builds(
            Reference, st.sampled_from(["", "c"]), st.sampled_from(["mix", "split"]), st.just(True)
        ),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(choices=CHOICES)
def test_operative_text_repeats_the_experiment(workshop, choices):
    registry = workshop.plugins()
    lines = ["made = @c/generator.style", "block.hydra.partition = @partition.split()"]
    text = "\n".join(lines + [f"{key} = {render(value)}" for key, value in choices.items()])
    experiment = workshop.experiment(text, registry=registry)
    again = workshop.experiment(experiment.operative_text(), registry=registry)
    assert again.hash == experiment.hash
    assert again.operative_text().splitlines()[1:] == experiment.operative_text().splitlines()[1:]
    assert again.differences(text) == []


def test_differences_are_lines_that_name_both_values(workshop):
    other = workshop.experiment(TEXT, "train.iterations = 9", "train.generator = None").operative_text()
    lines = workshop.experiment(TEXT).differences(other, "in the run folder")
    assert "train.iterations: 3 here, 9 in the run folder" in lines
    assert "partition.split.kernel_size: 5 here, not in use in the run folder" in lines


def test_a_config_that_no_longer_loads_is_a_difference(workshop):
    lines = workshop.experiment(TEXT).differences("train.iterations = 3\ntrain.gone = 5", "config.gin")
    assert len(lines) == 1 and lines[0].startswith("config.gin:2: train has no parameter 'gone'")


def test_hparams_are_nested_plain_values(workshop):
    text = TEXT.replace("@partition.split()", "@a/partition.table()") + "partition.table.dilations = {8: (1, 2)}"
    hparams = workshop.experiment(text).hparams
    assert hparams["train"]["iterations"] == 3 and hparams["train"]["rates"] == [0.0, 0.99]
    assert hparams["train"]["generator"] == "@generator.style"
    assert hparams["partition"]["a/table"]["dilations"] == {"8": [1, 2]}


def test_the_plugins_in_use_are_recorded(workshop):
    assert workshop.experiment(TEXT).plugins == {"toy": "1.2", "toy_core": ""}
