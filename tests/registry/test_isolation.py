"""A bad plugin does not affect others, and a line says what is wrong with it."""

import sys

import pytest

from registry import API_VERSION, UserError, plugins

REGISTERS = """
from registry import hookimpl
{before}
class Thing:
    pass
@hookimpl
def stylenat_register(register):
    register("metric", "mine", Thing)
"""

BAD = {
    "a newer API": (
        f"STYLENAT_API = {API_VERSION + 1}",
        f"it needs plugin API {API_VERSION + 1} and this stylenat offers {API_VERSION}; upgrade stylenat",
    ),
    "a newer API whose names are not there yet": (
        f"STYLENAT_API: int = {API_VERSION + 1}\nfrom registry import SomethingNew",
        f"it needs plugin API {API_VERSION + 1} and this stylenat offers {API_VERSION}; upgrade stylenat",
    ),
    "an API that is no number": ("STYLENAT_API = '1'", "its STYLENAT_API is '1'; it must be a number"),
    "raising": ("raise RuntimeError('of its own\\n accord')", "RuntimeError: of its own accord"),
    "leaving": ("raise SystemExit(3)", "SystemExit: 3"),
    "a missing dependency": (
        "import no_such_package.inside",
        "ModuleNotFoundError: No module named 'no_such_package'; install it: pip install no_such_package",
    ),
}


@pytest.mark.parametrize(("before", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_plugin_is_named_when_it_is_used_and_silent_when_it_is_not(workshop, before, message, capsys):
    workshop.distribution("bad", "0.3", "bad", REGISTERS.format(before=before))
    workshop.experiment("train.iterations = 1")
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError) as caught:
        workshop.experiment("train.metrics = [@metric.mine()]")
    assert f"failed to load: bad (bad 0.3): {message}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("before", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_plugin_that_was_asked_for_is_an_error(workshop, before, message):
    workshop.write("idea.py", REGISTERS.format(before=before))
    with pytest.raises(UserError, match="--plugin idea.py"):
        workshop.plugins("idea.py")


OLD = "it was written for plugin API 1, before networks were given class labels"


def test_a_plugin_of_an_older_api_is_a_line_where_it_is_unused_and_an_error_where_it_is_needed(workshop, capsys):
    workshop.distribution("old", "0.3", "old", REGISTERS.format(before="STYLENAT_API = 1"))
    registry = workshop.plugins()
    for _ in range(2):
        workshop.experiment("train.iterations = 1", registry=registry)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"not loaded: old (old 0.3): {OLD}") and "docs/plugins.md" in line
    with pytest.raises(UserError) as caught:
        workshop.experiment("train.metrics = [@metric.mine()]", registry=registry)
    assert f"failed to load: old (old 0.3): {OLD}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_named_plugin_of_an_older_api_is_an_error(workshop):
    workshop.write("idea.py", REGISTERS.format(before="STYLENAT_API = 1"))
    with pytest.raises(UserError, match=f"--plugin idea.py: {OLD}.*docs/plugins.md"):
        workshop.plugins("idea.py")


@pytest.mark.parametrize("api", [1, API_VERSION + 1])
def test_a_named_plugin_of_another_api_says_so_even_where_it_cannot_be_imported(workshop, api, capsys):
    workshop.write("idea.py", f"STYLENAT_API = {api}\nfrom registry import SomethingThatIsNotThere")
    with pytest.raises(UserError, match=f"^--plugin idea.py: it (needs|was written for) plugin API {api}"):
        workshop.plugins("idea.py")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("before", ["", f"STYLENAT_API = {API_VERSION}"])
def test_a_plugin_of_the_present_api_and_one_that_does_not_say_are_loaded(workshop, before):
    workshop.distribution("good", "0.3", "good", REGISTERS.format(before=before))
    assert "mine" in workshop.plugins().names("metric")


def test_two_distributions_may_call_their_entry_point_the_same(workshop):
    for name in ("one", "two"):
        workshop.distribution(name, "1.0", name, REGISTERS.format(before="").replace("mine", name))
        workshop.write(f"{name}-1.0.dist-info/entry_points.txt", f"[stylenat]\nplugin = {name}\n")
    assert {"one", "two"} <= set(workshop.plugins().names("metric"))


def test_a_slow_plugin_is_named_while_it_keeps_one_waiting_and_works(workshop, monkeypatch, capsys):
    monkeypatch.setattr(plugins, "SLOW", 0.05)
    slow = REGISTERS.format(before="import sys, time\ntime.sleep(0.3)\nprint('imported', file=sys.stderr)")
    workshop.distribution("slow", "0.3", "slow", slow)
    registry = workshop.plugins()
    workshop.experiment("train.metrics = [@metric.mine()]\ntrain.iterations = 1", registry=registry)
    waiting, imported, total = capsys.readouterr().err.splitlines()
    assert waiting == "still importing the plugin slow (slow 0.3) ..." and imported == "imported"
    assert total.startswith("the plugin slow (slow 0.3) took 0.") and "lazy form" in total


def test_a_lazy_target_whose_dependency_is_missing_says_what_to_install(workshop):
    lazy = REGISTERS.format(before="").replace("Thing)", "'heavy:Metric')")
    workshop.distribution("light", "0.3", "light", lazy)
    workshop.write("heavy.py", "import no_such_package")
    workshop.experiment("train.iterations = 1")
    assert "heavy" not in sys.modules
    with pytest.raises(UserError, match=r"test.gin:1: metric.mine \(light 0.3\) .* pip install no_such_package"):
        workshop.experiment("train.metrics = [@metric.mine()]")
