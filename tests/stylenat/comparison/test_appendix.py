from dataclasses import replace

from read_runs import PROTOCOL, run

from stylenat.comparison.appendix import by_run, environments
from stylenat.comparison.results import compared_runs
from stylenat.comparison.status import Status

MACHINE = {"commit": "abc", "hardware": {"cpu": "one", "gpus": []}, "plugins": {"stylenat": "0.1.0"}}


def test_the_appendix_names_time_images_and_machine_of_each_run_and_marks_what_differs():
    protocol = {**PROTOCOL, "machine": {"processes": 2, "device": "cpu"}}
    first = run("a", 3.0, 80, environment=MACHINE | {"seed": 0}, status=Status("finished", step=20))
    timed = (replace(one, training=(30.0, 10), protocol=protocol) for one in first.results)
    other = run("b", 2.0, 80, environment=MACHINE | {"seed": 1, "hardware": {"cpu": "other", "gpus": [{"name": "H"}]}})
    third = run("c", 2.0, 80, environment=MACHINE | {"seed": 2})
    comparison = compared_runs([replace(first, results=tuple(timed)), other, third], "test")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in by_run(comparison).rows}
    assert rows["a"] == ["2 on cpu", "A", "finished", "0", "20", "80", "0:01:00"]
    assert rows["b"][:2] == ["not recorded", "B"] and rows["c"][1] == "A" and rows["b"][-1] == "not recorded"
    table = {row[0].text: [cell.text for cell in row[1:]] for row in environments(comparison).rows}
    assert table["commit"] == ["abc", "abc"] and table["plugins.stylenat"] == ["0.1.0", "0.1.0"]
    assert table["hardware.cpu (differs)"] == ["one", "other"] and "seed" not in table
    assert table["hardware.gpus (differs)"] == ["none", "name H"]
