import collections
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from registry import load_experiment, load_plugins
from stylenat import weights
from stylenat.commands._command import CORE, experiments_folder
from stylenat.commands.export_weights import main as export_weights
from stylenat.commands.import_weights import main as import_weights
from stylenat.commands.run import main as run
from stylenat.commands.sample import main as sample
from stylenat.reference import layouts, to_theirs

DATA = Path(__file__).parent / "data"
KINDS = {
    "stylenat": [],
    "stylenat_older": [],
    "styleswin": ["--bind", "generator.style.block = @block.swin"],
}


def reference_checkpoint(tiny, layout, seed=0):
    """What the reference would have saved for the tiny experiment: random weights under its names."""
    bindings = [*tiny[3::2], *KINDS[layout][1::2]]
    registry = load_plugins(core=CORE)
    experiment = load_experiment(registry, ["quickstart.gin"], bindings, search_path=[experiments_folder()])
    torch.manual_seed(seed)
    known = layouts(registry)
    found = {}
    for name, kind, chosen in (
        ("g", "generator", layout),
        ("d", "discriminator", "wavelet"),
        ("g_ema", "generator", layout),
    ):
        network = experiment.value(f"train.{kind}")()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.1)
        state = to_theirs(network.state_dict(), network, known[chosen])
        found[name] = collections.OrderedDict(state | dict(known[chosen].constants(network)))
    return found


@pytest.mark.parametrize("container", ["", "state_dicts"])
@pytest.mark.parametrize("layout", KINDS)
def test_import_and_export_of_every_layout_are_bit_identical(tiny, layout, container, capsys):
    theirs = reference_checkpoint(tiny, layout)
    torch.save({container: theirs, "epoch": 3} if container else theirs | {"iter": 3}, "theirs.pt")
    assert import_weights(["theirs.pt", *tiny, *KINDS[layout], "--out", "imported"]) == 0
    out = capsys.readouterr().out
    assert f"ema: layout {layout}" in out and "discriminator: layout wavelet" in out and " 0 left over" in out
    report = json.loads(Path("imported/report.json").read_text())
    assert set(report["ema"]["used"]) | set(report["ema"]["constants"]) == set(theirs["g_ema"])
    assert export_weights(["imported", "back.pt"]) == 0
    back = torch.load("back.pt", weights_only=True)
    back = back[container] if container else back
    assert back.keys() == theirs.keys()
    for name in theirs:
        assert back[name].keys() == theirs[name].keys()
        for key, value in theirs[name].items():
            assert back[name][key].dtype == value.dtype and torch.equal(back[name][key], value), key
    assert sample(["imported", "--seeds", "0-1", "--out", "pictures"]) == 0
    assert Path("pictures/grid.png").exists()


def test_a_state_by_itself_and_weights_of_this_project_are_found_too(tiny, capsys):
    theirs = reference_checkpoint(tiny, "stylenat")
    torch.save({f"module.{key}": value for key, value in theirs["g_ema"].items()}, "bare.pt")
    assert import_weights(["bare.pt", *tiny, "--out", "bare"]) == 0
    assert sorted(path.stem for path in Path("bare").glob("*.safetensors")) == ["ema"]
    torch.save(theirs["d"], "d.pt")
    assert import_weights(["d.pt", *tiny, "--out", "d"]) == 0
    assert sorted(path.stem for path in Path("d").glob("*.safetensors")) == ["discriminator"]

    assert import_weights(["bare/ema.safetensors", *tiny, "--out", "file"]) == 0
    assert import_weights(["bare", *tiny, "--out", "folder"]) == 0
    assert "layout own" in capsys.readouterr().out
    first, *others = (load_file(f"{name}/ema.safetensors") for name in ("bare", "file", "folder"))
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)

    larger = [
        name for side in ("generator.style", "discriminator.wavelet") for name in ("--bind", f"{side}.resolution = 32")
    ]
    assert import_weights(["bare", *tiny, *larger, "--out", "other"]) == 2
    assert "bare has resolution 16, and the experiment's network resolution 32" in capsys.readouterr().err
    assert not Path("other").exists()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_weights_saved_from_a_compiled_or_wrapped_network_are_imported(tiny, prefix):
    theirs = reference_checkpoint(tiny, "stylenat")
    wrapped = {name: {prefix + key: value for key, value in state.items()} for name, state in theirs.items()}
    torch.save(wrapped, "wrapped.pt")
    torch.save(theirs, "plain.pt")
    assert import_weights(["wrapped.pt", *tiny, "--out", "wrapped"]) == 0
    assert import_weights(["plain.pt", *tiny, "--out", "plain"]) == 0
    for name in ("generator", "discriminator", "ema"):
        assert Path(f"wrapped/{name}.safetensors").read_bytes() == Path(f"plain/{name}.safetensors").read_bytes()


def test_keys_left_over_are_reported_and_the_rest_is_taken(tiny, capsys):
    theirs = reference_checkpoint(tiny, "stylenat")
    theirs["g_ema"]["layers.0.blocks.0.gate"] = torch.zeros(1)
    torch.save(theirs, "theirs.pt")
    assert import_weights(["theirs.pt", *tiny, "--out", "imported"]) == 0
    assert "left over: layers.0.blocks.0.gate" in capsys.readouterr().out


def test_configurations_in_a_checkpoint_are_skipped_not_executed():
    stored = weights.read(DATA / "omegaconf_and_namespace.pt")  # Written with omegaconf 2.4 and argparse.
    assert stored.container == "state_dicts" and sorted(stored.skipped) == ["args", "config"]
    assert torch.equal(stored.states["ema"]["a"], torch.ones(2))


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_code_in_a_checkpoint_is_refused_and_never_runs(tiny, capsys):
    torch.save({"g_ema": {"a": torch.ones(1)}, "args": Evil()}, "evil.pt")
    Path("evil.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.pkl"):
        assert import_weights([name, *tiny, "--out", "imported"]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and name in error[0]
    assert not Path("executed").exists() and not Path("imported").exists()


def test_what_cannot_be_imported_gets_one_line_and_exit_code_2(tiny, capsys):
    theirs = reference_checkpoint(tiny, "stylenat")
    torch.save(theirs, "theirs.pt")
    torch.save({"losses": [1.0]}, "empty.pt")
    torch.save({"g_ema": {"encoder.weight": torch.ones(1)}}, "stranger.pt")
    Path("text.pt").write_text("hello")
    Path("taken").mkdir()
    Path("taken/thesis.tex").write_text("x")
    cases = [
        (["nowhere.pt"], "there is no checkpoint"),
        (["empty.pt"], "no weights under"),
        (["stranger.pt"], "no layout recognises"),
        (["text.pt"], "text.pt"),
        (["theirs.pt", "--bind", "generator.style.channels = [16, 16, 32]"], "does not fit the network"),
        (["theirs.pt", "--bind", "generator.style.mapping_layers = 9"], "is missing"),
        (["theirs.pt", "--bind", "generator.style.block = @block.swin"], "no names for the blocks"),
    ]
    for arguments, message in cases:
        assert import_weights([arguments[0], *tiny, *arguments[1:], "--out", "imported"]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and message in error[0], (arguments, error)
        assert not list(Path(".").glob("*imported*"))
    assert import_weights(["theirs.pt", *tiny, "--out", "taken"]) == 2
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.tex"]
    assert export_weights(["taken", "out.pt"]) == 2
    assert export_weights(["nowhere", "out.pt"]) == 2


def imported(tiny):
    torch.save(reference_checkpoint(tiny, "stylenat"), "theirs.pt")
    assert import_weights(["theirs.pt", *tiny, "--out", "imported"]) == 0


def first_checkpoint(directory, name):
    return load_file(Path(directory) / "checkpoints" / "step-000000002" / f"{name}.safetensors")


def test_a_run_starts_from_imported_weights_and_records_them(tiny, capsys):
    imported(tiny)
    bind = ["--bind", "train.initial_weights = 'imported'", "--bind", "train.iterations = 2"]
    frozen = ["--bind", "train.frozen_discriminator_layers = 1", "--bind", "train.generator_learning_rate = 0.0"]
    assert run([*tiny, *bind, *frozen, "--run-dir", "tuned"]) == 0
    assert "starting from imported" in capsys.readouterr().out
    start = load_file("imported/generator.safetensors")
    assert all(torch.equal(start[key], value) for key, value in first_checkpoint("tuned", "generator").items())
    before, after = load_file("imported/discriminator.safetensors"), first_checkpoint("tuned", "discriminator")
    changed = {key for key in before if not torch.equal(before[key], after[key]) and key.split(".")[-1] not in "uv"}
    assert changed and not any(key.startswith(("from_wavelet.0", "blocks.0")) for key in changed)
    recorded = json.loads(Path("tuned/environment.json").read_text())["initial_weights"]
    assert recorded["path"] == "imported"
    assert recorded["sha256"]["ema"] == weights.checksum(Path("imported/ema.safetensors"))


def test_a_run_that_goes_on_takes_its_own_checkpoint_not_the_initial_weights(tiny):
    imported(tiny)
    bind = ["--bind", "train.initial_weights = 'imported'"]
    assert run([*tiny, *bind, "--run-dir", "tuned"]) == 0
    final = Path("tuned/checkpoints/step-000000004")
    expected = load_file(final / "ema.safetensors")
    for path in final.iterdir():
        path.unlink()
    final.rmdir()
    for path in Path("imported").iterdir():  # Not needed any more.
        path.unlink()
    assert run([*tiny, *bind, "--run-dir", "tuned"]) == 0
    again = load_file(final / "ema.safetensors")
    assert all(torch.equal(again[key], value) for key, value in expected.items())


def test_a_run_whose_checkpoints_are_all_damaged_starts_from_the_initial_weights_again(tiny):
    imported(tiny)
    bind = ["--bind", "train.initial_weights = 'imported'", "--bind", "train.iterations = 2"]
    assert run([*tiny, *bind, "--run-dir", "tuned"]) == 0
    expected = first_checkpoint("tuned", "ema")
    (Path("tuned/checkpoints/step-000000002") / "state.pt").write_bytes(b"")
    assert run([*tiny, *bind, "--run-dir", "tuned"]) == 0
    again = first_checkpoint("tuned", "ema")
    assert all(torch.equal(again[key], value) for key, value in expected.items())


def test_initial_weights_that_do_not_fit_leave_nothing_behind(tiny, capsys):
    imported(tiny)
    capsys.readouterr()
    cases = [
        (["train.initial_weights = 'nowhere'"], "nowhere does not exist"),
        (["train.initial_weights = 'imported'", "generator.style.channels = [16, 16, 32]"], "does not fit"),
        (["train.frozen_discriminator_layers = 9"], "layers to freeze"),
    ]
    for bindings, message in cases:
        arguments = [part for binding in bindings for part in ("--bind", binding)]
        assert run([*tiny, *arguments, "--run-dir", "tuned"]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and message in error[0], error
        assert not Path("tuned").exists()


def test_odd_tensors_and_other_containers_are_imported_or_named_for_what_they_are(tiny, capsys):
    theirs = reference_checkpoint(tiny, "stylenat")
    one = next(name for name in theirs["g_ema"] if theirs["g_ema"][name].is_floating_point())
    ema = theirs["g_ema"]

    def importing(held):
        torch.save(held, "odd.pt")
        code = import_weights(["odd.pt", *tiny, "--out", "imported"])
        out = capsys.readouterr()
        for path in Path("imported").glob("*"):
            path.unlink()
        assert not list(Path(".").glob(".partial*"))
        return code, out.err.strip().splitlines()[-1] if code else out.out

    pair = torch.zeros(2, *ema[one].shape)
    code, out = importing({"g_ema": ema | {one: pair[0], "left.over": pair[1]}})  # Two views of one storage.
    assert code == 0 and "1 left over" in out
    for tensor, said in (
        (ema[one].to(torch.complex64), "complex numbers (complex64)"),
        (ema[one].to(torch.int64), "whole numbers (int64)"),
        (ema[one].to_sparse(), "sparse coo"),
        (ema[one].to("meta"), "on the meta device"),
        (torch.quantize_per_tensor(ema[one], 0.1, 0, torch.qint8), "quantised (qint8)"),
    ):
        code, error = importing({"g_ema": ema | {one: tensor}})
        assert code == 2 and said in error

    deep = {f"module.{name.replace('.', '._orig_mod.', 1)}": tensor for name, tensor in ema.items()}
    assert importing({"g_ema": deep})[0] == 0
    code, error = importing({"g_ema": ema | {f"module.{one}": ema[one]}})
    assert code == 2 and "two tensors are called" in error
    lightning = {f"{network}.{key}": tensor for network in ("g", "d") for key, tensor in theirs[network].items()}
    code, out = importing({"state_dict": lightning, "pytorch-lightning_version": "2.5"})
    assert code == 0 and "generator: layout stylenat" in out and "discriminator: layout wavelet" in out
    assert importing({"params_ema": ema, "params": theirs["g"]})[0] == 0
    nvidia = b"\x80\x03ctorch_utils.persistence\n_reconstruct_persistent_obj\n}\x85R."
    Path("odd.pkl").write_bytes(nvidia)
    assert import_weights(["odd.pkl", *tiny, "--out", "imported"]) == 2
    assert "a persistent object does not say its class" in capsys.readouterr().err


def test_initial_weights_of_another_resolution_say_so(tiny, capsys):
    assert run([*tiny, "--run-dir", "small"]) == 0
    larger = ["--bind", "SIDE = 32", "--bind", "generator.style.channels = [16, 16, 16, 16]",
              "--bind", "discriminator.wavelet.channels = [8, 8, 8]"]  # fmt: skip
    assert run([*tiny, *larger, "--bind", "train.initial_weights = 'small'", "--run-dir", "tuned"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "of resolution 16, and this is 32" in line and len(line) < 300 and not Path("tuned").exists()


def test_exported_weights_say_their_pixel_space_and_are_imported_into_the_same_alone(tiny, capsys):
    symmetric = ["--bind", "train.pixel_space = 'symmetric'"]
    assert run([*tiny, *symmetric, "--run-dir", "run"]) == 0
    assert export_weights(["run", "out.pt"]) == 0
    assert import_weights(["out.pt", *tiny, *symmetric, "--out", "imported"]) == 0
    assert json.loads(Path("imported/manifest.json").read_text())["pixel_space"] == "symmetric"
    assert import_weights(["out.pt", *tiny, "--out", "other"]) == 2
    assert "pixel space 'symmetric'" in capsys.readouterr().err and not Path("other").exists()


def test_a_failure_while_weights_are_written_leaves_nothing(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("of any kind")

    monkeypatch.setattr(weights, "save_tensors", fails)
    with pytest.raises(RuntimeError, match="of any kind"):
        weights.write(tmp_path / "out", {"ema": {"a": torch.ones(1)}}, {}, {})
    assert list(tmp_path.iterdir()) == []
