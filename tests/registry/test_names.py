from string import Template

import pytest

from registry import KINDS, Kind, Origin, UserError
from stylenat.commands._listing import listing


def refused(workshop, kind, name, target="toy_plugin:Split"):
    with pytest.raises(UserError) as caught:
        workshop.plugins().add(kind, name, target, Origin("other", "2.0"))
    return str(caught.value)


def test_only_networks_and_their_blocks_are_bound_as_classes():
    assert {name for name, kind in KINDS.items() if kind.bound_as_class} == {
        "backbone",
        "block",
        "generator",
        "discriminator",
    }


def test_a_kind_is_one_row(workshop, monkeypatch):
    row = Kind("what it tastes of", "toy_plugin:Partition", "toy:check_flavour", "train.things = [@flavour.$name()]")
    monkeypatch.setitem(KINDS, "flavour", row)
    registry = workshop.plugins()
    registry.add("flavour", "sweet", "toy_plugin:Split", Origin("other", "2.0"))
    text = "train.iterations = 1\nflavour.sweet.kernel_size = 5\n" + Template(row.example).substitute(name="sweet")
    [sweet] = workshop.experiment(text, registry=registry).value("train.things")
    assert sweet.kernel_size == 5
    [listed] = listing(registry, "flavour")
    assert (listed.selector, listed.doc) == ("flavour.sweet", "Half and half.")
    with pytest.raises(UserError, match=r"write @flavour.sweet\(\) instead of @flavour.sweet"):
        workshop.experiment("train.iterations = 1\ntrain.things = [@flavour.sweet]", registry=registry)


def test_an_unknown_kind_is_refused_with_the_closest_and_all_kinds(workshop):
    message = refused(workshop, "partitions", "x")
    assert "'partitions'; did you mean 'partition'?" in message
    assert all(kind in message for kind in KINDS)


def test_a_duplicate_names_both_distributions(workshop):
    message = refused(workshop, "partition", "split")
    assert "partition.split is registered by both toy 1.2 and other 2.0" in message


def test_a_name_that_makes_a_core_name_ambiguous_is_refused(workshop):
    assert "metric.train would make the core's own 'train' ambiguous" in refused(workshop, "metric", "train")


@pytest.mark.parametrize("name", ["two words", "a.b", "1st", "", "größe"])
def test_a_name_that_gin_cannot_spell_is_refused(workshop, name):
    assert repr(name) in refused(workshop, "metric", name)


@pytest.mark.parametrize("target", ["module.Class", "module:", 5, [], object()])
def test_a_target_that_is_no_class_function_or_lazy_name_is_refused(workshop, target):
    assert "'package.module:Attribute'" in refused(workshop, "metric", "x", target)


def test_a_lazy_target_is_imported_only_on_demand(workshop):
    registry = workshop.plugins()
    registry.add("metric", "absent", "nowhere:Metric", Origin("other"))
    with pytest.raises(UserError, match=r"metric.absent \(other\) cannot be imported from nowhere:Metric: Module"):
        registry.find("metric.absent").load()


def test_a_short_name_is_enough_unless_two_kinds_have_it(workshop):
    registry = workshop.plugins()
    assert registry.find("split").selector == "partition.split"
    registry.add("metric", "split", "toy_plugin:Split", Origin("other"))
    with pytest.raises(UserError, match="here.gin:3: 'split' could be metric.split or partition.split"):
        registry.find("split", "here.gin:3")
    assert registry.find("partition.split").selector == "partition.split"


def test_the_names_of_a_kind_are_sorted(workshop):
    assert workshop.plugins().names("partition") == ["mix", "split", "table"]
