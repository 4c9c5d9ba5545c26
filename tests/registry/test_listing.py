import pytest

from registry import UserError
from stylenat.commands._listing import explain, listing


def test_listing_gives_kind_name_origin_and_parameters(workshop):
    [mix, split, table] = listing(workshop.plugins(), "partition")
    assert (split.kind, split.name, split.selector) == ("partition", "split", "partition.split")
    assert (split.doc, split.distribution, split.version) == ("Half and half.", "toy", "1.2")
    [kernel_size] = split.parameters
    assert (kernel_size.name, kernel_size.type, kernel_size.shown_default) == ("kernel_size", "int", "7")
    assert table.parameters[0].shown_default is None and table.parameters[0].type == "dict[int, list[int]]"


def test_listing_everything_starts_with_the_core(workshop):
    entries = listing(workshop.plugins())
    assert entries[0].selector == "train" and entries[0].doc == "Trains."
    assert [entry.kind for entry in entries[1:4]] == ["partition"] * 3


def test_what_the_caller_supplies_is_not_listed(workshop):
    names = [parameter.name for parameter in explain(workshop.plugins(), "block.hydra").parameters]
    assert names == ["partition", "mode"]
    assert "run" not in [parameter.name for parameter in explain(workshop.plugins(), "train").parameters]


def test_a_target_that_cannot_be_imported_is_listed_with_its_problem(workshop):
    broken = explain(workshop.plugins(), "metric.broken")
    assert "no_such_module" in broken.problem and broken.parameters == ()


def test_unknown_kinds_and_names_are_refused_with_the_closest(workshop):
    with pytest.raises(UserError, match="'metrics'; did you mean 'metric'"):
        listing(workshop.plugins(), "metrics")
    with pytest.raises(UserError, match="did you mean 'partition.split'"):
        explain(workshop.plugins(), "partition.splt")
