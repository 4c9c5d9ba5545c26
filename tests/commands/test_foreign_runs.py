"""A run folder from someone else: commands read it, and what it names decides nothing."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stylenat import checkpoint, weights
from stylenat.commands._remembered import remembered, remembered_file
from stylenat.commands.compare import main as compare
from stylenat.commands.evaluate import main as evaluate
from stylenat.commands.export_weights import main as export_weights
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample

PLUGIN = """
from registry import even_groups, hookimpl

class Near:
    def __call__(self, site):
        return even_groups(site.num_heads, [(3, 1)])

@hookimpl
def stylenat_register(register):
    register("partition", "near", Near)
"""
BINDS = [
    "block.hydra.partition = @partition.near()",
    "generator.style.channels = [16, 16]",
    "discriminator.wavelet.channels = [8]",
    "SIDE = 8",
    "train.iterations = 2",
    "train.threads = 1",
    "train.batch_size = 4",
    "train.sample_every = 2",
    "train.evaluate_every = 2",
    "train.checkpoint_every = 2",
    "train.evaluation_samples = 16",
    "train.sample_count = 4",
    "train.trackers = [@tracker.jsonl()]",
    "train.metrics = [@metric.frechet_random_features()]",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with near.py, its data and the finished run ``run``, which somebody else made with it."""
    folder, before, home = tmp_path_factory.mktemp("theirs"), os.getcwd(), os.environ["XDG_STATE_HOME"]
    os.environ["XDG_STATE_HOME"] = str(folder / "their state")
    os.chdir(folder)
    try:
        Path("near.py").write_text(PLUGIN)
        binds = [part for bind in BINDS for part in ("--bind", bind)]
        data = ["--bind", f"dataset.lfw_faces.path = '{folder}/faces.lmdb'"]
        arguments = ["--gin", "quickstart.gin", *binds, *data, "--plugin", "near.py", "--run-dir", "run"]
        assert run(arguments) == 0
    finally:
        os.environ["XDG_STATE_HOME"] = home
        os.chdir(before)
    return folder


@pytest.fixture
def theirs(made, tmp_path, monkeypatch):
    """A copy of that run, in an empty current folder of a user who has run no plugin yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(made / "run", "run")
    return Path("run")


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def files_below(folder):
    return {str(path) for path in Path(folder).rglob("*")}


def newest(folder):
    return checkpoint.found(folder / "checkpoints")[-1]


def rewritten(folder, **changes):
    """The checkpoint with other values in its manifest, or with its present files' checksums."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"] = {name: weights.checksum(folder / name) for name in manifest["sha256"]}
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


# Plugins.


@pytest.mark.parametrize("command", ["sample", "evaluate", "compare", "export_weights", "run"])
def test_a_plugin_file_that_only_the_folder_names_is_not_run(made, theirs, command, capsys):
    arguments = {
        "sample": (sample, ["run", "--seeds", "3", "--out", "out"]),
        "evaluate": (evaluate, ["run"]),
        "compare": (compare, ["run"]),
        "export_weights": (export_weights, ["run", "out.pt"]),
        "run": (run, ["--gin", "run/config.gin", "--dry-run"]),
    }
    main, argv = arguments[command]
    before = files_below(".")
    assert main(argv) == 2
    line = last_line(capsys)
    assert "not run by you before" in line
    assert line.endswith(f"python tools/{command}.py {' '.join(argv)} --plugin {made}/near.py")
    assert files_below(".") == before

    assert main([*argv, "--plugin", f"{made}/near.py"]) == 0  # As printed; from then on it is known.
    for path in (Path("out.pt"), Path("out")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert main(argv) == 0


def test_the_list_of_plugins_is_the_users_alone_and_believed_only_while_it_is(made, theirs, capsys):
    argv = ["run", "--seeds", "3", "--out", "out"]
    assert sample([*argv, "--plugin", f"{made}/near.py"]) == 0
    file = remembered_file()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(remembered()) == 1
    file.chmod(0o666)
    assert remembered() == []
    assert sample(argv) == 2
    file.chmod(0o600)
    file.write_text("not JSON")
    assert remembered() == []
    assert sample(argv) == 2


def test_a_known_plugin_that_has_changed_or_gone_is_named_with_the_reason(made, theirs, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(made / "near.py", own)
    environment = json.loads((theirs / "environment.json").read_text())
    environment["plugin_files"][0]["path"] = str(own / "near.py")
    (theirs / "environment.json").write_text(json.dumps(environment))
    argv = ["run", "--seeds", "3", "--out", "out"]
    assert sample([*argv, "--plugin", str(own / "near.py")]) == 0
    assert sample(argv) == 0
    (own / "near.py").write_text(PLUGIN + "\n")
    assert sample(argv) == 2
    assert "(changed since)" in last_line(capsys)
    (own / "near.py").unlink()
    assert sample(argv) == 2
    assert f"(not at {own}/near.py now)" in last_line(capsys)


def test_a_plugin_that_changed_before_a_resume_is_recorded_once_and_then_the_runs(made, theirs, tmp_path):
    own = tmp_path / "near.py"
    own.write_text(PLUGIN + "# A later version.\n")
    arguments = ["--gin", "run/config.gin", "--plugin", str(own), "--run-dir", "run", "--resume-with-changes"]
    environment = json.loads((theirs / "environment.json").read_text())
    environment["plugin_files"][0]["name"] = str(own)
    (theirs / "environment.json").write_text(json.dumps(environment))
    assert run([*arguments, "--bind", "train.iterations = 3"]) == 0
    changes = [json.loads(line)["changes"] for line in (theirs / "changes.jsonl").read_text().splitlines()]
    assert f"plugin {own}: its file was changed" in changes[0]
    assert sample(["run", "--seeds", "3", "--out", "out"]) == 0  # Loaded by itself: this user ran it.
    assert run([*arguments, "--bind", "train.iterations = 4"]) == 0
    changes = [json.loads(line)["changes"] for line in (theirs / "changes.jsonl").read_text().splitlines()]
    assert not any("its file was changed" in line for line in changes[1])


def test_a_run_of_before_files_were_recorded_says_which_plugin_it_needs(theirs, made, capsys):
    environment = json.loads((theirs / "environment.json").read_text())
    del environment["plugin_files"]
    (theirs / "environment.json").write_text(json.dumps(environment))
    argv = ["run", "--seeds", "3", "--out", "out"]
    assert sample(argv) == 2
    assert last_line(capsys).endswith("--out out --plugin near.py")
    assert sample([*argv, "--plugin", f"{made}/near.py"]) == 0


def test_a_distribution_that_is_not_installed_is_named(theirs, capsys):
    environment = json.loads((theirs / "environment.json").read_text())
    environment["plugins"]["stylenat-rings"] = "1.2"
    (theirs / "environment.json").write_text(json.dumps(environment))
    assert sample(["run", "--seeds", "3", "--out", "out"]) == 2
    assert "uses the plugin distribution stylenat-rings 1.2, which is not installed" in last_line(capsys)


@pytest.mark.parametrize("text", ["[]", '{"plugins": 3}', '{"plugin_files": [3]}', "{", "[" * 100_000])
def test_an_environment_that_is_none_is_one_line(theirs, text, capsys):
    (theirs / "environment.json").write_text(text)
    assert sample(["run", "--seeds", "3", "--out", "out"]) == 2
    assert "environment.json cannot be read" in last_line(capsys)


def test_the_end_of_a_run_prints_a_command_that_works(made, theirs, capsys):
    plugin = ["--plugin", str(made / "near.py")]
    assert run(["--gin", "run/config.gin", *plugin, "--run-dir", "a b"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "more samples" in line]
    assert line.endswith(f"python tools/sample.py 'a b' --seeds 0-15 --out samples --plugin {made}/near.py")


# What is written, and where.


def test_nothing_is_appended_through_a_link(made, theirs, capsys):
    Path("precious").write_text("mine")
    known = ["--plugin", str(made / "near.py")]
    for link in (os.symlink, os.link):
        (theirs / "metrics.jsonl").unlink()
        link("../precious" if link is os.symlink else "precious", theirs / "metrics.jsonl")
        assert evaluate(["run", *known]) == 2
        assert "is a link or not a regular file" in last_line(capsys)
    (theirs / "metrics.jsonl").unlink()
    os.mkfifo(theirs / "metrics.jsonl")
    assert evaluate(["run", *known]) == 2
    assert Path("precious").read_text() == "mine"


@pytest.mark.parametrize("name", [".lock", "checkpoints", "samples", "metrics.jsonl", ".config.gin.partial"])
def test_training_on_in_such_a_folder_writes_through_no_link(made, theirs, name, capsys):
    outside = Path("outside")
    if (theirs / name).is_dir():
        shutil.move(theirs / name, outside)
    else:
        outside.write_text("mine")
        (theirs / name).unlink(missing_ok=True)
    (theirs / name).symlink_to(outside.absolute())
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    arguments = ["--gin", "run/config.gin", "--plugin", f"{made}/near.py", "--run-dir", "run"]
    more = ["--bind", "train.iterations = 4", "--resume-with-changes"]
    code = run([*arguments, *more])
    assert code == (0 if name in (".config.gin.partial", "metrics.jsonl") else 2)  # Those two are replaced.
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before


def test_evaluate_and_sample_create_no_file_that_the_config_names(made, theirs, tmp_path, capsys):
    text = (theirs / "config.gin").read_text()
    planted = tmp_path / "elsewhere" / "faces.lmdb"
    (theirs / "config.gin").write_text(text.replace(f"{made}/faces.lmdb", str(planted)))
    known = ["--plugin", str(made / "near.py")]
    assert evaluate(["run", *known]) == 2
    assert f"{planted} does not exist; add --make-data" in last_line(capsys)
    assert sample(["run", "--seeds", "3", "--out", "out", *known]) == 0
    assert not planted.parent.exists()
    assert evaluate(["run", *known, "--make-data"]) == 0
    assert planted.exists()


def test_an_evaluation_on_other_images_than_the_training_saw_says_so(made, theirs, capsys):
    text = (theirs / "config.gin").read_text()
    (theirs / "config.gin").write_text(
        text.replace("train.dataset = @dataset.lfw_faces()", "train.dataset = @dataset.subset()")
        + "dataset.subset.dataset = @dataset.lfw_faces()\ndataset.subset.count = 50\n"
    )
    assert evaluate(["run", "--plugin", str(made / "near.py")]) == 0
    assert "not those of the training: images 100 before, 50 now" in capsys.readouterr().err


# What is read.


@pytest.mark.parametrize("name", ["manifest.json", "ema.safetensors", "state.pt", "config.gin", "metrics.jsonl"])
def test_a_fifo_is_refused_and_not_waited_for(made, theirs, name, capsys):
    folder = theirs if name in ("config.gin", "metrics.jsonl") else newest(theirs)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    known = ["--plugin", str(made / "near.py")]
    main, argv = (compare, ["run"]) if name == "metrics.jsonl" else (sample, ["run", "--seeds", "3", "--out", "out"])
    assert main([*argv, *known]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("omitted", ["ema.safetensors", "state.pt"])
def test_a_file_without_checksum_is_refused_by_every_command(made, theirs, omitted, capsys):
    folder = newest(theirs)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"][omitted]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    known = ["--plugin", str(made / "near.py")]
    commands = [(sample, ["--seeds", "3", "--out", "out"]), (evaluate, []), (export_weights, ["out.pt"])]
    for main, argv in commands:
        assert main([str(folder), *argv, *known]) == 2
        assert f"has no checksum of {omitted}" in last_line(capsys)
    arguments = ["--gin", "run/config.gin", *known, "--run-dir", "new", "--resume", str(folder)]
    assert run([*arguments, "--bind", "train.iterations = 4"]) == 2
    assert f"has no checksum of {omitted}" in last_line(capsys)
    assert not Path("new").exists()


def test_weights_that_are_not_finite_are_named_by_every_command(made, theirs, capsys):
    folder = newest(theirs)
    tensors = load_file(folder / "ema.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.numel() > 4 and name.endswith("weight"))
    tensors[name].view(-1)[1] = torch.nan
    save_file(tensors, folder / "ema.safetensors")
    rewritten(folder)
    known = ["--plugin", str(made / "near.py")]
    wanted = f"1 of {tensors[name].numel()} values of {name} are not finite"
    arguments = ["--gin", "run/config.gin", *known]
    commands = [
        (sample, ["run", "--seeds", "3", "--out", "out", *known]),
        (evaluate, ["run", *known]),
        (export_weights, ["run", "out.pt", *known]),
        (run, [*arguments, "--run-dir", "run", "--bind", "train.iterations = 4", "--resume-with-changes"]),
        (import_weights, [str(folder), *arguments, "--out", "imported"]),
        (run, [*arguments, "--run-dir", "new", "--bind", "train.initial_weights = 'run'"]),
    ]
    for main, argv in commands:
        assert main(argv) == 2
        assert wanted in last_line(capsys)
    assert not any(Path(name).exists() for name in ("out", "imported", "new"))


def test_imported_weights_record_their_plugin_too(made, theirs, capsys):
    known = ["--plugin", str(made / "near.py")]
    assert import_weights([str(newest(theirs)), "--gin", "run/config.gin", *known, "--out", "imported"]) == 0
    os.environ["XDG_STATE_HOME"] = str(Path("another").absolute())
    assert sample(["imported", "--seeds", "3", "--out", "out"]) == 2
    assert f"--plugin {made}/near.py" in last_line(capsys)
