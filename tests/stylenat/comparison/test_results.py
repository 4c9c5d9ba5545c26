import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from read_runs import PROTOCOL, run
from rich.console import Console
from scipy.stats import ttest_rel

from registry import UserError
from stylenat.comparison.groups import At, Spread
from stylenat.comparison.parameters import telling
from stylenat.comparison.plots import curves, front_of, pareto
from stylenat.comparison.results import compared_runs
from stylenat.comparison.status import Status
from stylenat.comparison.table import as_csv, markdown, print_tables, tables
from stylenat.evaluation.protocol import Result


def test_a_parameter_that_another_difference_implies_tells_nothing():
    near = {"block.hydra.partition": "@near()", "partition.near.kernel_size": "3", "train.seed": "0"}
    far = {"block.hydra.partition": "@far()", "partition.far.kernel_size": "3", "train.seed": "1"}
    assert telling([near, far]) == ["block.hydra.partition"]
    wide = near | {"partition.near.kernel_size": "5"}
    assert telling([near, far, wide]) == ["block.hydra.partition", "partition.near.kernel_size"]


def test_who_watches_makes_no_other_experiment():
    assert (
        telling([{"tracker.aim.every": "1", "train.threads": "2"}, {"tracker.aim.every": "5", "train.threads": "1"}])
        == []
    )


points = st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8)


@given(points, st.booleans(), st.booleans())
def test_the_front_is_what_nothing_beats_and_beats_all_else(points, less_cost, less_metric):
    front = front_of(points, less_cost, less_metric)

    def beats(a, b):
        pairs = [(a[0], b[0], less_cost), (a[1], b[1], less_metric)]
        no_worse = all(x <= y if less else x >= y for x, y, less in pairs)
        return no_worse and a != b

    assert front
    for name in points:
        beaten = any(beats(points[other], points[name]) for other in points)
        assert (name in front) is not beaten


def best(comparison):
    return [name for name, standing in comparison.standing("fid").items() if standing.best]


def test_runs_are_ranked_at_equal_images_seen_or_not_at_all():
    shorter, longer = run("a", 3.0, 80), run("b", 2.0, 160)
    unequal = compared_runs([shorter, longer], "test")
    assert unequal.standing("fid") == {}
    assert "fid: ranked only at equal images seen: a 80; b 160" in unequal.notes()
    figure = pareto(unequal, "fid", "cost", {"a": 1.0, "b": 2.0}, True)
    assert not [line for line in figure.axes[0].lines if line.get_color() == "grey"]
    third = compared_runs([shorter, longer, run("c", 2.5, 80)], "test")
    assert best(third) == ["c"] and set(third.standing("fid")) == {"a", "c"}
    equal = compared_runs([run("a", 3.0, 160), longer], "test")
    assert best(equal) == ["b"] and not [note for note in equal.notes() if "images seen" in note]


def test_the_best_of_a_metric_that_rises_is_the_highest():
    protocol = {"metric": {"name": "fid", "better": "higher", "uses_real": False}}

    def rising(one):
        return replace(one, results=tuple(replace(result, protocol=protocol) for result in one.results))

    more = [(40, 9.0, "2030-01-01T09:00:00+00:00"), (60, 1.0, "2030-01-01T09:30:00+00:00")]
    comparison = compared_runs([rising(run("a", 3.0, 80, more=more)), rising(run("b", 2.0, 80))], "test")
    assert best(comparison) == ["a"]
    assert [group.best("fid").mean for group in comparison.groups] == [9.0, 2.0]
    falling = compared_runs([run("a", 3.0, 80, more=more), run("b", 2.0, 80)], "test")
    assert best(falling) == ["b"]
    assert [group.best("fid").mean for group in falling.groups] == [1.0, 2.0]


def test_a_variant_whose_seeds_were_trained_unequally_is_not_ranked():
    runs = [run("a", 3.0, 160), run("b", 1.0, 160), run("b1", 2.0, 80, seed=1)]
    comparison = compared_runs(runs, "test")
    assert comparison.standing("fid") == {}
    assert "fid: ranked only at equal images seen: a 160; b 80 and 160" in comparison.notes()


def test_images_that_are_not_known_are_not_equal():
    comparison = compared_runs([run("a", 3.0, None), run("b", 1.0, None)], "test")
    assert comparison.standing("fid") == {}
    assert "fid: ranked only at equal images seen: a an unknown number; b an unknown number" in comparison.notes()


def test_the_final_value_is_that_of_the_most_images_wherever_it_is_written():
    later = run("a", 9.0, 40, time="2030-01-02T10:00:00+00:00", more=[(80, 3.0, "2030-01-01T10:00:00+00:00")])
    (group,) = compared_runs([later], "test").groups
    assert group.final("fid").mean == 3.0 and later.step == 20


def test_copies_of_one_seed_are_one_run_the_newest():
    old, new = run("a", 3.0, 80, time="2030-01-01T10:00:00+00:00"), run("a2", 2.0, 80, time="2030-01-01T11:00:00+00:00")
    comparison = compared_runs([old, new, run("a3", 4.0, 80, seed=1)], "test")
    (group,) = comparison.groups
    assert group.final("fid").values == (2.0, 4.0)
    assert comparison.notes()[0] == "a2 counts, not a: equal config and seed 0 are one run"


def test_runs_that_were_measured_against_other_images_are_no_copies():
    def against(images, one):
        protocol = {**PROTOCOL, "real": {"pixels_sha256": images}}
        return replace(one, results=tuple(replace(result, protocol=protocol) for result in one.results))

    comparison = compared_runs([against("x", run("a", 3.0, 80)), against("y", run("a2", 2.0, 80))], "test")
    assert [group.name for group in comparison.groups] == ["a", "a2"] and not comparison.repeated


def test_the_better_direction_is_known_of_a_metric_without_any_value():
    protocol = {"metric": {"name": "precision", "better": "higher", "uses_real": False}}
    empty = Result("precision", None, 1, 80, "2030-01-01T10:00:00+00:00", protocol=protocol)
    one = run("a", 3.0, 80)
    comparison = compared_runs([replace(one, results=(*one.results, empty))], "test")
    assert comparison.higher_is_better("precision") and not comparison.higher_is_better("fid")


def test_runs_of_one_label_and_unlike_settings_are_two_variants():
    plain = run("a", 3.0, 80, label="plain")
    other = run("b", 2.0, 80, seed=1, label="plain", settings={"tracker.aim.every": "1"})
    comparison = compared_runs([plain, other, run("a4", 1.0, 80, seed=1, label="plain")], "test", order=["plain"])
    assert [(group.name, len(group.runs)) for group in comparison.groups] == [("plain", 2), ("plain'", 1)]


def measured(one, count=None, after=False, **generated):
    """The run with all of its results by a protocol of so many generated images; ``after``: by tools/evaluate.py."""
    fields = {"count": count, **({"weights_sha256": "0" * 64} if after else {}), **generated}
    results = (replace(result, protocol={**PROTOCOL, "generated": fields}) for result in one.results)
    return replace(one, results=tuple(results))


def joined(one, other):
    return replace(one, results=(*one.results, *other.results))


def test_an_evaluation_by_another_protocol_has_a_column_of_its_own_and_bold_holds_within_it():
    trained = [measured(run("a", 4.8, 80, more=[(40, 9.0, None)]), 16), measured(run("b", 4.6, 80), 16)]
    trained[0] = joined(trained[0], measured(run("a", 7.6, 80), 500, after=True))
    comparison = compared_runs(trained, "test")
    assert comparison.metrics == ("fid (count 16)", "fid (count 500)")
    few, many = comparison.metrics
    assert [name for name, s in comparison.standing(few).items() if s.best] == ["b"]
    assert comparison.standing(many) == {} and comparison.groups[0].final(many).mean == 7.6
    assert comparison.groups[0].final(few).mean == 4.8 and comparison.groups[1].final(many) is None
    assert "fid: 2 protocols, a column each, ranked by itself: generated.count 16 and 500" in comparison.notes()
    line = curves(comparison, few).axes[0].lines[0]
    assert list(line.get_xdata()) == [0.04, 0.08] and list(line.get_ydata()) == [9.0, 4.8]
    assert compared_runs(trained, "test", ["fid"]).metrics == comparison.metrics


@pytest.mark.parametrize("part", [{"labels": "class 3"}, {"average": "ema-0.100"}, {"average": "generator"}])
def test_an_evaluation_of_one_class_or_another_average_is_no_value_of_the_run(part):
    one = joined(measured(run("a", 4.8, 80), 16), measured(run("a", 1.0, 160), 16, after=True, **part))
    comparison = compared_runs([one, measured(run("b", 4.6, 80), 16)], "test")
    assert comparison.metrics == ("fid",) and comparison.groups[0].final("fid").mean == 4.8
    assert best(comparison) == ["b"]
    assert any(note.startswith("left out, as no value of the whole run: fid of ") for note in comparison.notes())


def test_a_mean_over_classes_is_never_called_by_the_metrics_name_alone():
    one = measured(run("a", 4.8, 80), 16, labels="mean over 3 classes")
    assert compared_runs([one], "test").metrics == ("fid (labels mean over 3 classes)",)


def test_runs_are_told_apart_by_the_images_of_whole_evaluations():
    part = {**PROTOCOL, "generated": {"labels": "class 3"}, "real": {"pixels_sha256": "of a class"}}
    whole = {**PROTOCOL, "generated": {}, "real": {"pixels_sha256": "of all"}}
    first, second = run("a", 1.0, 80).results[0], run("a", 2.0, 80).results[0]
    results = (replace(first, protocol=part), replace(second, protocol=whole))
    assert replace(run("a", 1.0, 80), results=results).real_images == "of all"


def unfinished(word, *arguments, **more):
    return run(*arguments, status=Status(word, "boom" if word == "failed" else "", 5), **more)


@pytest.mark.parametrize("word", ["stopped", "failed", "running"])
def test_only_finished_runs_are_ranked(word):
    runs = [run("a", 3.0, 80), unfinished(word, "b", 1.0, 80), run("c", 4.0, 80)]
    comparison = compared_runs(runs, "test")
    assert best(comparison) == ["a"] and "b" not in comparison.standing("fid")
    assert comparison.groups[1].final("fid") is None and comparison.groups[1].status() == f"1 {word}"
    cells = {row[0].text: row[1].text for row in tables(comparison, {})[1].rows}
    assert cells == {"a": "3", "b": "(1)", "c": "4"}
    (note,) = [note for note in comparison.notes() if note.startswith(f"b {word}")]
    assert note.endswith(": boom") is (word == "failed")
    assert any("--at ITERATION" in note for note in comparison.notes())


def test_a_failed_seed_is_out_of_the_mean_and_of_the_pairs():
    runs = [
        run("a", 3.0, 80),
        run("a1", 4.0, 80, seed=1),
        run("b", 2.0, 80),
        unfinished("failed", "b1", 0.0, 80, seed=1),
    ]
    comparison = compared_runs(runs, "test")
    assert comparison.groups[1].final("fid").values == (2.0,)
    assert comparison.standing("fid")["a"].paired.n == 1
    assert any(note.startswith("seeds differ: a [0, 1]; b [0]") for note in comparison.notes())


@pytest.mark.parametrize("at", [At(10, "iterations"), At(40, "images")])
def test_all_can_be_compared_at_a_common_point(at):
    early = [(40, 2.0, None)]
    runs = [
        run("a", 3.0, 80, more=early),
        unfinished("failed", "b", 9.0, 60, more=[(40, 1.0, None)]),
        run("c", 0.5, 80),
    ]
    comparison = compared_runs(runs, "test", at=at)
    assert best(comparison) == ["b"] and set(comparison.standing("fid")) == {"a", "b"}
    assert comparison.groups[0].final("fid").mean == 2.0
    assert any(note.startswith("runs of c have no evaluation at") for note in comparison.notes())
    with pytest.raises(UserError, match="no run has an evaluation at iteration 7; there are 10, 15, 20"):
        compared_runs(runs, "test", at=At(7, "iterations"))


def test_variants_are_compared_with_the_best_or_with_a_baseline_by_seed():
    values = {"a": (3.0, 5.0, 4.1), "b": (2.0, 4.1, 3.0), "c": (2.1, 3.9, 3.2)}
    runs = [run(f"{name}{i}", v, 80, seed=i) for name, seeds in values.items() for i, v in enumerate(seeds)]
    standing = compared_runs(runs, "test").standing("fid")
    assert standing["b0"].best and standing["b0"].paired is None
    ps = {name: ttest_rel(values[name], values["b"]).pvalue for name in "ac"}
    assert standing["a0"].paired.p == pytest.approx(ps["a"])
    assert standing["a0"].paired.p_holm == pytest.approx(2 * ps["a"]) and standing["a0"].paired.significant
    assert standing["c0"].paired.p_holm == pytest.approx(ps["c"]) and not standing["c0"].paired.significant
    based = compared_runs(runs, "test", baseline="a0").standing("fid")
    assert based["a0"].reference and based["b0"].best and based["b0"].paired.mean == pytest.approx(-1.0)
    with pytest.raises(UserError, match="no variant is called 'x0'"):
        compared_runs(runs, "test", baseline="x0")


def test_the_tables_show_difference_interval_p_and_pairs_and_say_what_two_seeds_can_show():
    values = {"a": (3.0, 5.0), "b": (2.0, 4.1)}
    runs = [run(f"{name}{i}", v, 80, seed=i) for name, seeds in values.items() for i, v in enumerate(seeds)]
    comparison = compared_runs(runs, "test")
    table = tables(comparison, {})[1]
    assert table.headers == ("variant", "final ↓", "difference [95 %]", "p", "pairs", "best ever")
    low, high = ttest_rel(values["a"], values["b"]).confidence_interval()
    assert table.rows[0][2].text == f"+0.95 [{low:+.2f}, {high:+.2f}]"
    assert table.rows[0][4].text == "2" and table.rows[1][2].text == "reference"
    assert any("with 2 seeds a difference reaches 5 % only if" in note for note in comparison.notes())
    assert any("chosen by the same numbers" in note for note in comparison.notes())
    assert not any("chosen by" in note for note in compared_runs(runs, "test", baseline="a0").notes())
    assert "~" not in markdown(comparison, {})


def test_variants_that_are_one_model_are_not_ranked_against_each_other():
    values = {"a": (3.0, 5.0), "b": (2.0, 4.0), "c": (2.1, 4.1)}
    runs = [
        run(f"{name}{i}", v, 80, seed=i, model="same" if name in "bc" else "other")
        for name, seeds in values.items()
        for i, v in enumerate(seeds)
    ]
    comparison = compared_runs(runs, "test")
    assert best(comparison) == ["b0", "c0"] and comparison.standing("fid")["c0"].paired is None
    assert any(note.startswith("b0, c0 are the same model") for note in comparison.notes())


def test_other_numbers_of_processes_in_training_are_noted():
    def on(processes, one, **more):
        return replace(
            one,
            results=tuple(
                replace(r, protocol={**PROTOCOL, "machine": {"device": "cpu", "processes": processes}, **more})
                for r in one.results
            ),
        )

    mixed = compared_runs([on(1, run("a", 3.0, 80)), on(2, run("b", 2.0, 80))], "test").notes()
    assert any("different numbers of processes or devices (a 1 on cpu; b 2 on cpu)" in note for note in mixed)
    after = {"generated": {"weights_sha256": "0"}}
    alike = compared_runs([on(1, run("a", 3.0, 80)), on(1, run("b", 2.0, 80))], "test").notes()
    later = compared_runs(
        [on(1, run("a", 3.0, 80)), joined(on(1, run("b", 2.0, 80)), on(4, run("b", 2.0, 80), **after))], "t"
    )
    assert not [note for note in [*alike, *later.notes()] if "processes" in note]


def test_speeds_of_training_are_in_no_table_and_time_is_that_of_iterations():
    results = [
        Result("fid", 1.0, step, 4 * step, f"2030-01-01T{hour}:00:00+00:00", training=training)
        for step, hour, training in ((4, 10, (8.0, 4)), (8, 15, (8.0, 4)), (8, 20, None))
    ]
    one = replace(run("a", 3.0, 80), results=tuple(results), status=Status("finished", step=10))
    assert one.training_seconds == pytest.approx(20.0)  # 2 seconds an iteration.
    assert run("a", 3.0, 80).training_seconds is None
    comparison = compared_runs([one, run("b", 2.0, 80)], "test")
    assert "images/s" not in markdown(comparison, {}) and "images_per_second" not in as_csv(comparison, {})
    speeds = {"images/s sampling": {"a": Spread((10.0, 12.0)), "b": Spread((20.0, 20.0))}}
    assert "11 ± 1.4" in markdown(comparison, speeds)
    assert "sampling_images_per_second" in as_csv(comparison, speeds)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_cell_is_cut_or_folded_at_any_width(width):
    settings = {"block.hydra.partition": "@partition.uniform()", "train.generator_learning_rate": "0.0005"}
    runs = [
        run(f"{name}{i}", 0.036 + i / 100 + k * (i + 2) / 171, 80, i, settings | {"train.loss": name}, name)
        for k, name in enumerate(("uniform", "pyramid"))
        for i in range(3)
    ]
    out = io.StringIO()
    print_tables(Console(file=out, width=width), compared_runs(runs, "head_partitions"), {})
    text = out.getvalue()
    assert "…" not in text and all(len(line) <= max(width, 60) for line in text.splitlines())
    for shown in ("head_partitions: variants", "0.046 ± 0.01", "** ", "reference", "3 finished", "pyramid"):
        assert shown in text
    assert ("best ever" in text) is (width != 80)


def test_skipped_steps_are_noted():
    results = [
        Result("fid", 1.0, step, 4 * step, skipped=skipped) for step, skipped in ((4, {"r1": 2}), (8, {"r1": 5}))
    ]
    one = replace(run("a", 3.0, 80), results=tuple(results))
    (note,) = [note for note in compared_runs([one, run("b", 2.0, 80)], "test").notes() if "skipped" in note]
    assert note.endswith("skipped steps whose loss or gradient was not finite: r1 5") and str(one.directory) in note
