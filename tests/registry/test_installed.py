"""Distributions as they may lie in an environment: half installed, damaged, with any names; and imports that change
settings of the process."""

import pytest

from registry import UserError, load_plugins

GOOD = """
from registry import hookimpl
class Thing:
    pass
@hookimpl
def stylenat_register(register):
    register("metric", "mine", Thing)
"""


@pytest.mark.parametrize("metadata", [None, "", "Metadata-Version: 2.1\n"])
def test_a_distribution_without_metadata_is_loaded(workshop, metadata):
    workshop.distribution("half", "0.3", "half", GOOD)
    file = workshop.folder / "half-0.3.dist-info" / "METADATA"
    file.unlink() if metadata is None else file.write_text(metadata)
    registry = workshop.plugins()
    assert "mine" in registry.names("metric") and registry.suspects == []
    assert str(registry.find("metric.mine").origin) == "half"


@pytest.mark.parametrize("value", ["my-module", "a b:c", "..up", ":", "half:no_such", "package.broken", "1"])
@pytest.mark.parametrize("name", ["half", "no identifier!", "\x1b[31mred"])
def test_an_entry_point_of_any_name_and_value_is_a_suspect_at_worst(workshop, name, value):
    workshop.write("package/__init__.py", "raise RuntimeError('on import')")
    workshop.distribution("half", "0.3", "half", GOOD)
    workshop.write("half-0.3.dist-info/entry_points.txt", f"[stylenat]\n{name} = {value}\n")
    registry = workshop.plugins()
    assert registry.names("partition") == ["mix", "split", "table"]
    [suspect] = registry.suspects
    assert str(suspect.origin) == "half 0.3" and suspect.reason


def test_a_name_that_is_no_identifier_keeps_no_plugin_from_loading(workshop):
    workshop.distribution("half", "0.3", "half", GOOD)
    workshop.write("half-0.3.dist-info/entry_points.txt", "[stylenat]\nno identifier! = half\n")
    assert "mine" in workshop.plugins().names("metric")


def test_one_damaged_list_of_entry_points_spoils_no_other(workshop):
    workshop.distribution("good", "0.3", "good", GOOD)
    workshop.distribution("damaged", "0.4", "damaged")
    workshop.write("damaged-0.4.dist-info/entry_points.txt", "[stylenat]\nno equals sign\n")
    registry = load_plugins(core={"train": "toy_core:train"})
    assert "mine" in registry.names("metric") and "split" in registry.names("partition")
    assert any(suspect.name == "damaged" and "install it again" in suspect.reason for suspect in registry.suspects)


SETTING = "import toy_core\ntoy_core.dtype = {value}\n"


@pytest.fixture
def load(workshop):
    """Loads plugins while ``toy_core.dtype`` is watched."""
    import toy_core

    toy_core.dtype = 32

    def load(*extra):
        watched = {"entry_points": workshop.entry_points(), "watched": lambda: {"the dtype": toy_core.dtype}}
        return load_plugins(extra, core={"train": "toy_core:train"}, **watched)

    return load


def test_a_plugin_whose_import_changes_settings_of_the_process_is_named(workshop, load, capsys):
    workshop.distribution("wide", "0.3", "wide", SETTING.format(value=64) + GOOD)
    load()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("importing the plugin wide (wide 0.3) changed the dtype from 32 to 64, for all other code")
    workshop.write("idea.py", SETTING.format(value=16) + GOOD.replace("mine", "yours"))
    load("idea.py")
    assert "--plugin idea.py changed the dtype from 64 to 16" in capsys.readouterr().err


def test_a_target_that_is_imported_later_is_watched_too(workshop, load, capsys):
    workshop.distribution("lazy", "0.3", "lazy", GOOD.replace("Thing)", "'lazy_inside:Thing')"))
    workshop.write("lazy_inside.py", SETTING.format(value=64) + "class Thing: ...\n")
    registry = load()
    assert capsys.readouterr().err == ""
    registry.find("metric.mine").load()
    registry.find("metric.mine").load()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("importing metric.mine (lazy 0.3) changed the dtype from 32 to 64")


def test_a_plugin_that_changes_settings_and_then_fails_is_named_for_both(workshop, load, capsys):
    workshop.write("idea.py", SETTING.format(value=64) + "raise RuntimeError('on import')\n")
    with pytest.raises(UserError, match="does not load: RuntimeError: on import"):
        load("idea.py")
    assert "changed the dtype from 32 to 64" in capsys.readouterr().err


def test_a_misspelt_module_is_no_package_to_install(workshop, load, capsys):
    with pytest.raises(UserError, match=r"--plugin no\.such: there is no module 'no', .*; check the name") as raised:
        load("no.such")
    assert "pip" not in str(raised.value)
    assert capsys.readouterr().err == ""
    workshop.write("needs.py", "import no_such_package\n")
    with pytest.raises(UserError, match="No module named 'no_such_package'; install it"):
        load("needs")
