import sys

import pytest

from registry import UserError, load_plugins

HOOKED = """
from registry import hookimpl
seen = []
@hookimpl
def run_started(run):
    seen.append(run)
"""

REGISTERS = """
from registry import hookimpl
class Thing:
    pass
@hookimpl
def stylenat_register(register):
    register("metric", "{name}", Thing)
"""


def test_no_plugin_at_all_says_how_to_install():
    with pytest.raises(UserError, match=r"pip install -e \."):
        load_plugins(entry_points=[])


def test_origin_is_the_distribution_and_its_version(workshop):
    assert str(workshop.plugins().find("partition.split").origin) == "toy 1.2"


def test_every_load_starts_from_an_empty_state(workshop):
    first = workshop.plugins()
    first.entries.clear()
    assert workshop.plugins().names("partition") == ["mix", "split", "table"]


def test_a_plugin_of_lifecycle_hooks_alone_is_called(workshop):
    workshop.distribution("hooked", "1.0", "hooked", HOOKED)
    workshop.plugins().manager.hook.run_started(run="the run")
    assert sys.modules["hooked"].seen == ["the run"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        (REGISTERS.format(name="swd").replace("metric", "metrics"), "there is no kind 'metrics'"),
        (HOOKED.replace("run_started", "run_startd"), "run_startd"),
        (HOOKED.replace("run_started(run)", "run_started(runn)"), "runn"),
    ],
)
def test_a_broken_plugin_takes_no_other_along_and_is_a_suspect(workshop, source, reason):
    workshop.distribution("broken", "0.3", "broken", source)
    registry = workshop.plugins()
    assert registry.names("partition") == ["mix", "split", "table"]
    [suspect] = registry.suspects
    assert str(suspect).startswith("broken (broken 0.3)") and reason in suspect.traceback
    registry.manager.check_pending()


def test_a_plugin_that_fails_half_way_registers_nothing(workshop):
    half = REGISTERS.format(name="first") + "    register('metric', 'second', 5)\n"
    workshop.distribution("half", "1.0", "half", half)
    assert "first" not in workshop.plugins().names("metric")


def test_suspects_are_named_with_their_traceback_only_when_a_name_is_unknown(workshop, capsys):
    workshop.distribution("broken", "0.3", "broken", "import no_such_module")
    workshop.experiment("train.iterations = 1")
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError) as caught:
        workshop.experiment("train.iterations = 1\nmetric.swd.levels = 3")
    assert "test.gin:2: nothing is called 'metric.swd'" in str(caught.value)
    assert "failed to load: broken (broken 0.3): ModuleNotFoundError" in str(caught.value)
    assert 'File "' in capsys.readouterr().err


def test_a_name_that_two_plugins_claim_is_refused_when_it_is_needed(workshop):
    workshop.distribution("one", "1.0", "one", REGISTERS.format(name="swd"))
    workshop.distribution("two", "2.0", "two", REGISTERS.format(name="swd"))
    registry = workshop.plugins()
    workshop.experiment("train.iterations = 1", registry=registry)
    with pytest.raises(UserError, match="test.gin:1: metric.swd is registered by both one 1.0 and two 2.0"):
        workshop.experiment("train.metrics = [@metric.swd()]", registry=registry)


def test_plugin_names_a_module_in_the_current_folder(workshop, monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(workshop.folder)])
    workshop.write("ideas/__init__.py", "")
    workshop.write("ideas/new.py", REGISTERS.format(name="idea"))
    registry = workshop.plugins("ideas.new")
    assert str(registry.find("metric.idea").origin) == "--plugin ideas.new"


def test_plugin_names_a_file_anywhere_and_runs_it_afresh_each_time(workshop):
    workshop.write("a/idea.py", REGISTERS.format(name="first"))
    workshop.write("b/idea.py", REGISTERS.format(name="second"))
    assert "first" in workshop.plugins("a/idea.py").names("metric")
    assert "second" in workshop.plugins(str(workshop.folder / "b/idea.py")).names("metric")


def test_a_lazy_target_can_name_the_plugin_file_it_stands_in(workshop):
    workshop.write("a/lazy.py", REGISTERS.format(name="late").replace("Thing)", "'lazy:Thing')"))
    assert workshop.plugins("a/lazy.py").find("metric.late").load().__name__ == "Thing"


def test_a_plugin_that_is_installed_and_named_counts_once(workshop):
    assert not workshop.plugins("toy_plugin").contested


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("no_such_plugin", None, "there is no module 'no_such_plugin'"),
        ("no/such.py", None, "there is no file"),
        ("broken_idea.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("random.py", "", "has the name of another module"),
        ("my-idea.py", "", "rename it"),
        (
            "clash.py",
            REGISTERS.format(name="x").replace('"metric", "x"', '"loss", "hinge"'),
            "toy 1.2 and --plugin",
        ),
    ],
)
def test_a_named_plugin_that_does_not_load_is_the_users_mistake(workshop, name, source, reason):
    if source is not None:
        workshop.write(name, source)
    with pytest.raises(UserError) as caught:
        workshop.plugins(name)
    assert str(caught.value).startswith(f"--plugin {name}") and reason in str(caught.value)


def test_the_traceback_of_a_named_plugin_is_shown(workshop, capsys):
    workshop.write("broken_idea.py", "1 / 0")
    with pytest.raises(UserError):
        workshop.plugins("broken_idea.py")
    assert "broken_idea.py" in capsys.readouterr().err
