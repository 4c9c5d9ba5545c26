"""A generated plugin passes its own tests and trains, whatever its kind."""

import importlib
import os
import runpy
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import registry
import stylenat.testing
from registry import KINDS, load_plugins
from registry.kinds import imported
from stylenat.commands.new_plugin import TEMPLATES, main, write_plugin
from stylenat.commands.run import main as run
from stylenat.testing import CHECKERS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_row_names_its_protocol_its_checker_and_an_example(kind):
    assert getattr(imported(KINDS[kind].protocol), "_is_protocol", False)
    assert CHECKERS[kind] is getattr(stylenat.testing, f"check_{kind}") and (TEMPLATES / f"{kind}.txt").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_plugin_passes_its_own_tests_and_trains(kind, tiny, tmp_path, monkeypatch, capsys):
    name = f"my_{kind}"
    assert main([name, "--kind", kind]) == 0
    folder = tmp_path / f"stylenat-my-{kind.replace('_', '-')}"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {
        "pyproject.toml", "README.md", f"{name}.gin", f"test_{name}.py",
        f"stylenat_{name}/__init__.py", f"stylenat_{name}/{kind}.py",
    }  # fmt: skip
    monkeypatch.syspath_prepend(str(folder))
    point = metadata.EntryPoint(name, f"stylenat_{name}", "stylenat")
    assert f'{name} = "stylenat_{name}"' in (folder / "pyproject.toml").read_text()

    def installed(extra=(), **options):
        return load_plugins(extra, entry_points=[*metadata.entry_points(group="stylenat"), point], **options)

    monkeypatch.setattr(registry, "load_plugins", installed)
    monkeypatch.setattr("stylenat.commands._plugins.load_plugins", installed)
    tests = runpy.run_path(str(folder / f"test_{name}.py"))
    own = tests[f"test_{name}_keeps_the_contract_of_its_kind"]
    own(tmp_path / "run") if kind == "tracker" else own()
    tests["test_the_gin_file_names_it"]()

    # What the tiny run binds in the plugin's place is left out; so are the parts it does without.
    replaced = {"generator": "generator.style", "discriminator": "discriminator.wavelet"}.get(kind, "no such")
    replaced = {"backbone": "discriminator.wavelet", "metric": "train.metrics", "tracker": "train.trackers"}.get(
        kind, replaced
    )
    pairs = list(zip(tiny[2::2], tiny[3::2], strict=True))
    kept = [word for pair in pairs if not pair[1].startswith(replaced) for word in pair]
    assert run(["--gin", str(folder / f"{name}.gin"), *kept, "--run-dir", "trained"]) == 0
    assert kind == "checkpoint_layout" or f"{kind}.{name}" in Path("trained/config.gin").read_text()
    del sys.modules[f"stylenat_{name}"], sys.modules[f"stylenat_{name}.{kind}"]
    importlib.invalidate_caches()


def test_generated_plugins_are_registered_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [write_plugin(f"my_{kind}", kind, tmp_path) for kind in KINDS]
    code = """
import sys
from registry import KINDS, load_plugins
registry = load_plugins([f"stylenat_my_{kind}" for kind in KINDS])
assert all(f"{kind}.my_{kind}" in registry.entries for kind in KINDS)
print(sorted({"torch", "numpy"} & set(sys.modules)))
"""
    path = os.pathsep.join([*map(str, folders), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_module_and_a_line_add_another_kind_to_a_distribution(tmp_path, monkeypatch):
    """As docs/plugins.md describes it."""
    first, second = write_plugin("mine", "loss", tmp_path), write_plugin("other", "schedule", tmp_path)
    (second / "stylenat_other/schedule.py").rename(first / "stylenat_mine/schedule.py")
    with open(first / "stylenat_mine/__init__.py", "a") as file:
        file.write('    register("schedule", "mine", "stylenat_mine.schedule:Other")\n')
    monkeypatch.syspath_prepend(str(first))
    names = load_plugins(["stylenat_mine"]).entries
    assert [names[f"{kind}.mine"].load().__module__ for kind in ("loss", "schedule")] == [
        "stylenat_mine.loss", "stylenat_mine.schedule",
    ]  # fmt: skip
    for module in ("stylenat_mine", "stylenat_mine.loss", "stylenat_mine.schedule"):
        del sys.modules[module]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--kind", "partitions"], "did you mean 'partition'?"),
        (["My-Idea", "--kind", "loss"], "lower-case letters, digits and underscores"),
        (["lambda", "--kind", "loss"], "is reserved"),
        (["there", "--kind", "loss"], "exists; choose"),
        (["x" * 250, "--kind", "loss"], "at most 100 characters"),
        (["x", "--kind", "loss", "--out", "a_file"], "cannot write"),
    ],
)
def test_what_cannot_be_written_gets_one_line_and_leaves_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("stylenat-there").mkdir()
    Path("a_file").write_text("")
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error
    assert {path.name for path in tmp_path.iterdir()} == {"stylenat-there", "a_file"}
