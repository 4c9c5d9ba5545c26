import pytest

from registry import UserError
from stylenat.ablation.variants import Ablation


def test_a_grid_is_every_combination_with_every_variant():
    ablation = Ablation(
        variants={"plain": [], "hinge": ["train.loss = @loss.hinge()"]},
        grid={"partition.uniform.kernel_size": [3, 5], "train.loss": ["@loss.hinge()", "@loss.wasserstein()"]},
    )
    found = ablation.expanded()
    assert len(found) == 8 and len({variant.name for variant in found}) == 8
    assert found[0].name == "plain-kernel_size_3-loss_hinge"
    assert found[0].bindings == ("partition.uniform.kernel_size = 3", "train.loss = @loss.hinge()")
    assert found[-1].bindings[0] == "train.loss = @loss.hinge()"


def test_text_values_of_a_grid_are_quoted_and_references_are_not():
    names = Ablation(grid={"augmentation.ada.preset": ["bgc", "b"], "train.regularizers": [["x"]]}).expanded()
    assert [variant.bindings[0] for variant in names] == [
        "augmentation.ada.preset = 'bgc'",
        "augmentation.ada.preset = 'b'",
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "no variant is named"),
        ({"grid": {"train.batch_size": []}}, "'train.batch_size' has no values"),
        ({"variants": {"../up": []}}, "cannot name a folder"),
        ({"variants": {"": []}}, "cannot name a folder"),
        ({"variants": {"a": []}, "seeds": []}, "each seed once, and at least one"),
        ({"variants": {"a": []}, "seeds": [1, 1]}, "each seed once"),
    ],
)
def test_what_names_no_experiment_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Ablation(**options)


def test_two_variants_of_one_name_are_refused():
    ablation = Ablation(grid={"loss.a.rate": ["x y", "x_y"]})
    with pytest.raises(UserError, match="two variants of the name 'rate_x_y'"):
        ablation.expanded()
