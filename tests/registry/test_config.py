import pytest

GOOD = "train.iterations = 1\n"

MISTAKES = {
    "unknown name": (
        "partition.splt.kernel_size = 5",
        "nothing is called 'partition.splt'; did you mean 'partition.split'? "
        "Known names of this kind: mix, split, table",
    ),
    "unknown core name": ("trian.iterations = 5", "nothing is called 'trian'; did you mean 'train'?"),
    "unknown kind": (
        "partitions.split.kernel_size = 5",
        "'partitions.split'; did you mean 'partition.split'?",
    ),
    "kind for a name": ("partition.split = 5", "'partition' is a kind; write partition.NAME.PARAMETER"),
    "unknown reference": ("block.hydra.partition = @partition.splitt()", "did you mean 'partition.split'?"),
    "unknown reference in a list": (
        "train.metrics = [1, (@metric.fdi(), 2)]",
        "nothing is called 'metric.fdi'",
    ),
    "unknown name in a macro": ("part = @partition.splitt()", "did you mean 'partition.split'?"),
    "unknown parameter": (
        "partition.split.kernelsize = 5",
        "partition.split has no parameter 'kernelsize'; did you mean 'kernel_size'? Its parameters: kernel_size",
    ),
    "supplied parameter": ("block.hydra.site = 5", "block.hydra.site is supplied by the code that calls it"),
    "parameter supplied to the core": ("train.run = 5", "train.run is supplied by the code that calls it"),
    "text for int": ("train.iterations = 'many'", "train.iterations takes int, not 'many' (str)"),
    "float for int": ("train.iterations = 1.5", "takes int, not 1.5 (float)"),
    "bool for int": ("train.iterations = True", "takes int, not True (bool)"),
    "none for int": ("train.iterations = None", "takes int, not None (NoneType)"),
    "bool for float": ("train.learning_rate = True", "takes float, not True (bool)"),
    "int for bool": ("train.verbose = 1", "takes bool, not 1 (int)"),
    "int for optional text": ("train.name = 3", "takes str | None, not 3 (int)"),
    "short tuple": ("train.rates = (0.5,)", "takes tuple[float, float], not (0.5,) (tuple)"),
    "wrong item": ("train.rates = (0.5, 'x')", "takes tuple[float, float], not (0.5, 'x')"),
    "scalar for list": ("partition.mix.parts = 3", "takes list[Partition], not 3 (int)"),
    "wrong dictionary": (
        "partition.table.dilations = {'8': [1]}",
        "takes dict[int, list[int]], not {'8': [1]} (dict)",
    ),
    "list for dictionary": ("partition.table.dilations = [1]", "takes dict[int, list[int]], not [1] (list)"),
    "wrong literal": (
        "block.hydra.mode = 'exakt'",
        "takes Literal['fast', 'exact'], not 'exakt' (str); did you mean 'exact'?",
    ),
    "text for an object": (
        "block.hydra.partition = 'split'",
        "takes Partition, not 'split' (str); for the object write @partition.split()",
    ),
    "text for a class": ("train.generator = 'style'", "for the object write @generator.style"),
    "object for a number": ("train.iterations = @partition.split()", "takes int, not @partition.split()"),
    "object of another kind": (
        "block.hydra.partition = @loss.hinge()",
        "takes the kind partition, not @loss.hinge(); there are partition.mix, partition.split",
    ),
    "another kind in a list": (
        "partition.mix.parts = [@loss.hinge()]",
        "takes list[Partition], not [@loss.hinge()]",
    ),
    "another kind where no annotation tells": (
        "generator.style.block = @generator.style",
        "generator.style.block takes the kind block, not @generator.style; there are block.hydra",
    ),
    "object without the methods of a protocol": (
        "partition.mix.best = @loss.hinge()",
        "takes Partition, not @loss.hinge()",
    ),
    "instance for a class": (
        "generator.style.block = @block.hydra()",
        "the kind block is bound as a class, to be built by what uses it: write @block.hydra instead of @block.hydra()",
    ),
    "class for an instance": (
        "block.hydra.partition = @wide/partition.split",
        "write @wide/partition.split() instead of @wide/partition.split",
    ),
    "class for an instance in a macro": ("part = @partition.split", "write @partition.split() instead of"),
    "undefined macro": (
        "train.iterations = %steps",
        "the macro %steps is not defined; define it by a line such as",
    ),
    "value of the wrong type in an open signature": ("train.metrics = 5", "takes list[object], not 5 (int)"),
    "unimportable target": (
        "metric.broken.x = 5",
        "metric.broken (toy 1.2) cannot be imported from no_such_module:Metric",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_file_line_culprit_and_remedy(mistake, name):
    line, expected = MISTAKES[name]
    message = mistake(f"{GOOD}# a comment\n{line}\n")
    assert message.startswith("test.gin:3: ") and expected in message


@pytest.mark.parametrize(
    "name", sorted(set(MISTAKES) - {"unknown name in a macro", "class for an instance in a macro"})
)
def test_a_mistake_in_a_binding_shows_the_binding(mistake, name):
    line, expected = MISTAKES[name]
    message = mistake(GOOD, line)
    assert message.startswith(f"--bind {line!r}: ") and expected in message


def test_a_mistake_in_an_included_file_names_that_file(workshop, mistake):
    path = workshop.write("shipped/base.gin", "\npartition.split.size = 3")
    assert mistake(GOOD + "include 'base.gin'").startswith(f"{path}:2: partition.split has no parameter 'size'")


def test_a_mistake_in_a_block_of_bindings_names_its_own_line(mistake):
    assert mistake("train:\n    iterations = 1\n    nmae = 'x'").startswith("test.gin:3: train has no parameter 'nmae'")


def test_a_misspelt_macro_names_the_closest(mistake):
    assert "%stepz is not defined; did you mean 'steps'?" in mistake("steps = 5\ntrain.iterations = %stepz")


def test_a_value_of_the_wrong_type_is_found_through_macros(mistake):
    assert mistake("a = 'many'\nb = %a\ntrain.iterations = %b").startswith("test.gin:3: train.iterations takes int")


def test_an_undefined_macro_within_a_macro_is_reported_where_it_stands(mistake):
    assert mistake("train.iterations = %a\na = %b").startswith("test.gin:2: the macro %b is not defined")


def test_a_macro_for_a_list_cannot_be_a_key(mistake):
    message = mistake("KEY = [1]\ntrain.iterations = 1\nmetric.anything.x = {%KEY: 1}")
    assert message == "test.gin:3: a list or dictionary cannot be a key of a dictionary"


def test_a_macro_that_is_defined_by_itself_is_refused(mistake):
    assert "is defined by itself" in mistake("a = %b\nb = [%a]\ntrain.iterations = 1")


def test_a_macro_on_the_command_line_that_nothing_uses_is_refused(mistake):
    message = mistake("steps = 5\ntrain.iterations = %steps", "stepz = 6")
    assert message.startswith("--bind 'stepz = 6': nothing uses the macro %stepz; did you mean 'steps'?")


def test_a_scope_on_the_command_line_that_nothing_opens_is_refused(mistake):
    message = mistake(GOOD, "scope/train.iterations = 6")
    assert message.startswith("--bind 'scope/train.iterations = 6': nothing opens the scope 'scope'.")


def test_a_macro_that_nothing_uses_is_fine_in_a_file(workshop):
    workshop.experiment(GOOD + "width = 5")


def test_a_required_parameter_of_the_core_is_reported(mistake):
    message = mistake("train.name = 'x'")
    assert message.startswith("test.gin: train needs its parameter 'iterations' (it takes int)")
    assert "`train.iterations = ...`" in message


def test_a_required_parameter_is_reported_where_its_owner_is_used(mistake):
    text = GOOD + "train.generator = @generator.style\ngenerator.style.block = @block.hydra\n"
    message = mistake(text)
    assert message.startswith("test.gin:3: block.hydra needs its parameter 'partition' (it takes Partition)")
    assert mistake(text + "block.hydra.partition = @a/partition.table()").startswith(
        "test.gin:4: partition.table needs its parameter 'dilations'"
    )


def test_a_required_parameter_of_something_unused_is_fine(workshop):
    workshop.experiment(GOOD + "block.hydra.mode = 'exact'\npartition.table.dilations = %gin.REQUIRED")


def test_a_fragment_can_require_a_binding(mistake, workshop):
    text = GOOD + "train.name = %gin.REQUIRED\n"
    assert mistake(text) == "test.gin:2: train.name must be bound to a value"
    workshop.experiment(text + "train.name = 'x'")


def test_an_object_that_needs_itself_is_refused(mistake):
    text = GOOD + "train.things = [@partition.mix()]\npartition.mix.parts = [@partition.split(), @partition.mix()]"
    message = mistake(text)
    assert message.startswith("test.gin:3: @partition.mix() needs itself to be built")


def test_a_class_may_name_itself_because_it_is_not_built_at_once(workshop):
    workshop.experiment(GOOD + "train.generator = @generator.style\ngenerator.style.inner = @generator.style")


def test_overridden_mistakes_are_still_mistakes(mistake):
    assert mistake("train.iterations = 'x'\ntrain.iterations = 5").startswith("test.gin:1: ")


@pytest.mark.parametrize(
    "line",
    [
        "train.learning_rate = 1",
        "train.rates = [0, 0.9]",
        "train.name = None",
        "train.loss = @loss.hinge()",
        "train.metrics = [@metric.anything(), 5, 'x']",
        "metric.anything.whatever = 5",
        "partition.mix.parts = (@partition.split(), @a/partition.split())",
        "partition.table.dilations = {8: [1], 16: (1, 2)}",
        "partition.table.site = 'not knowable'",
        "a/b/partition.split.kernel_size = 3",
        "split.kernel_size = 3",
        "toy_core.train.name = 'x'",
        "train.metrics = [@shared/singleton()]\nshared/singleton.constructor = @partition.split",
    ],
)
def test_what_the_annotations_allow_is_accepted(workshop, line):
    workshop.experiment(GOOD + line)


def test_no_gin_file_is_the_users_mistake(workshop):
    from registry import UserError, load_experiment

    with pytest.raises(UserError, match="--gin FILE"):
        load_experiment(workshop.plugins(), [])
