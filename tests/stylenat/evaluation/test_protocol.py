import copy
import json

import pytest

from registry import UserError
from stylenat.evaluation.protocol import (
    COMPARED,
    Difference,
    compared,
    differences,
    make_protocol,
    read_results,
    results_of,
)
from stylenat.evaluation.records import append_evaluation

METRICS = {
    "fid": {
        "name": "fid",
        "better": "lower",
        "uses_real": True,
        "parameters": {"version": 1},
        "extractor": {"name": "inception", "weights_sha256": "a" * 64, "resize": "299"},
    },
    "inception_score": {"name": "inception_score", "better": "higher", "uses_real": False, "parameters": {}},
}
GENERATED = {
    "count": 50_000, "resolution": 256, "truncation_psi": 1.0, "truncation_centre": None, "precision": "float32",
    "labels": None, "average": None, "seed": 0,
}  # fmt: skip
REAL = {"pixels_sha256": "b" * 64, "count": 70_000, "resolution": 256, "described": "LMDB here.lmdb"}


def record(**changes):
    """A line of metrics.jsonl; ``changes`` by dotted place in the protocol."""
    protocol = copy.deepcopy(make_protocol(METRICS, GENERATED, REAL, {"device": "cpu"}))
    for place, value in changes.items():
        *path, last = place.split("__")
        at = protocol
        for part in path:
            at = at[part]
        at[last] = value
    return {
        "step": 10,
        "images": 320,
        "time": "2030-01-01T00:00:00+00:00",
        "metrics": {"fid": 2.5, "inception_score": 9.0},
        "spread": {"inception_score": 0.2},
        "intervals": {"fid": [2.4, 2.6]},
        "protocol": protocol,
    }


def fid(**changes):
    return results_of(record(**changes))[0]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("metrics__fid__extractor__weights_sha256", "c" * 64),
        ("metrics__fid__extractor__resize", "bicubic"),
        ("metrics__fid__parameters__version", 2),
        ("real__pixels_sha256", "d" * 64),
        ("real__count", 50_000),
        ("real__resolution", 128),
        ("generated__resolution", 128),
        ("generated__count", 10_000),
        ("generated__truncation_psi", 0.7),
        ("generated__precision", "bfloat16"),
    ],
)
def test_each_field_that_moves_the_number_makes_two_results_differ_and_is_named(place, value):
    (found,) = differences(fid(), fid(**{place: value}))
    assert found.field == place.replace("metrics__fid", "metric").replace("__", ".")
    assert found.second == value and found.field in str(found)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("versions__torch", "9.9"),
        ("machine__device", "cuda"),
        ("real__described", "LMDB elsewhere"),
        ("generated__seed", 1),
    ],
)
def test_what_is_only_information_does_not_keep_two_results_apart(place, value):
    assert differences(fid(), fid(**{place: value})) == []


def test_a_metric_of_generated_images_alone_may_be_compared_over_real_sets():
    here, there = results_of(record())[1], results_of(record(real__pixels_sha256="e" * 64))[1]
    assert here.name == "inception_score" and here.higher_is_better
    assert differences(here, there) == []
    assert differences(fid(), fid(real__pixels_sha256="e" * 64))


def test_a_result_without_a_protocol_is_read_and_compared_with_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5, "images": 20, "time": "then", "metrics": {"fid": 3.5, "swd": null}}\n')
    append_evaluation(path, 10, 40, {"fid": float("nan")}, {"spread": {}, "intervals": {}, "protocol": None})
    old, null, newer = read_results(path)
    assert (old.name, old.value, old.step, old.protocol) == ("fid", 3.5, 5, None)
    assert null.value is None and newer.value is None and not old.higher_is_better
    assert differences(old, fid()) == [Difference("protocol", "not recorded", "recorded")]
    assert differences(old, old) and differences(old, null)[0].field == "name"


def test_what_was_written_is_read_again(tmp_path):
    path, line = tmp_path / "metrics.jsonl", record()
    details = {part: line[part] for part in ("spread", "intervals", "protocol")}
    append_evaluation(path, 10, 320, line["metrics"], details)
    first, second = read_results(path)
    assert (first.value, first.interval, first.spread) == (2.5, (2.4, 2.6), None)
    assert (second.value, second.interval, second.spread) == (9.0, None, 0.2)
    assert compared(first.protocol) == compared(fid().protocol) and differences(first, fid()) == []


def test_a_torn_last_line_is_passed_over_and_a_damaged_one_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps(record())
    path.write_text(f"{whole}\n{whole[:40]}")
    assert len(read_results(path)) == 2
    path.write_text(f"{whole[:40]}\n{whole}\n")
    with pytest.raises(UserError, match="line 1 is not an evaluation"):
        read_results(path)
    path.write_text(json.dumps(record(format_version=99)) + "\n")
    with pytest.raises(UserError, match="upgrade"):
        read_results(path)
    with pytest.raises(UserError, match="cannot read"):
        read_results(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "change",
    [
        {"step": "5"},
        {"images": 1.5},
        {"time": 7},
        {"metrics": {"fid": "low"}},
        {"spread": {"fid": []}},
        {"protocol": {"format_version": 1, "metrics": {"fid": 3}}},
        {"protocol": {"format_version": 1, "metrics": {"fid": {}}, "real": "faces"}},
        {"metrics": []},
        {"step": True},
        {"images": -1},
        {"intervals": {"fid": [1.0]}},
        record(generated__truncation_psi="x"),
        record(generated__count="many"),
        record(real__count=[1]),
    ],
)
def test_a_line_of_other_types_is_damaged(change, tmp_path):
    path = tmp_path / "metrics.jsonl"
    damaged, sound = json.dumps(record() | {"metrics": {"fid": 1.0}} | change), json.dumps(record())
    for number, lines in ((1, [damaged, sound]), (2, [sound, damaged])):  # The last line is not torn: it is JSON.
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(UserError, match=f"line {number} is not an evaluation .*; repair it"):
            read_results(path)


def test_an_interval_that_is_not_finite_is_none():
    for high in (10**400, float("inf"), None):
        (result,) = results_of(record() | {"metrics": {"fid": 1.0}, "intervals": {"fid": [1.0, high]}})
        assert result.interval is None


def test_a_number_that_is_not_finite_is_read_as_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"metrics": {"fid": float("nan"), "kid": float("inf"), "swd": 10**400}}) + "\n")
    assert [result.value for result in read_results(path)] == [None, None, None]


def test_every_compared_field_is_in_a_protocol():
    held = {"generated": GENERATED, "real": REAL}
    assert all(set(names) <= set(held[part]) for part, names in COMPARED.items())
