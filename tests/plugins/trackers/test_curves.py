import pytest

from plugins.trackers.curves import interval
from plugins.trackers.recorded import Recorded


@pytest.mark.parametrize(
    ("every", "iterations", "expected"), [(50, 10000, 50), (50, 500, 50), (50, 49, 4), (50, 5, 1), (3, 20, 2)]
)
def test_a_short_run_has_ten_points(make_run, every, iterations, expected):
    assert interval(every, make_run(iterations=iterations)) == expected


@pytest.mark.parametrize(
    "text", ["", "[]", '{"run": "another", "steps": {"rows": 9}}', '{"run": "a", "steps": [1]}', "["]
)
def test_a_record_that_is_anothers_or_cannot_be_read_counts_as_empty(tmp_path, text):
    (tmp_path / "recorded.json").write_text(text)
    found = Recorded(tmp_path / "recorded.json", "a")
    assert found.lacks("rows", 0) and found.identity == ""


def test_a_record_lasts_and_can_be_cut(tmp_path):
    first = Recorded(tmp_path / "recorded.json", "a")
    first.identity = "id"
    first.add("rows", 7)
    first.save()
    second = Recorded(tmp_path / "recorded.json", "a")
    assert second.identity == "id" and not second.lacks("rows", 7) and second.lacks("rows", 8)
    second.cut(5)
    assert second.lacks("rows", 6)
