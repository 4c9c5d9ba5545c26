"""Whatever a checkpoint's files hold, they are read or refused in one line."""

import copy
import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.trackers.jsonl import JsonLines
from registry import UserError, load_experiment, load_plugins
from stylenat import checkpoint
from stylenat.commands._command import CORE, experiments_folder
from stylenat.training.run import Run
from stylenat.training.state import TrainingState
from stylenat.training.step import iteration
from stylenat.untrusted import read_tensors, read_values

FUZZ = settings.get_profile("fuzz")
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
DTYPES = st.sampled_from(["F32", "F64", "I64", "BF16", "BOOL", "F8_E4M3", "F4", "C64", "X", ""]) | st.text(max_size=3)
NUMBER = st.integers(-1, 9) | st.sampled_from([24, 2**31, 2**32, 2**63 - 1, 2**63, 2**64])
ENTRY = st.fixed_dictionaries(
    {"dtype": DTYPES, "shape": st.lists(NUMBER, max_size=4), "data_offsets": st.lists(NUMBER, min_size=2, max_size=2)}
)


def refused_or(read, *arguments):
    """What ``read`` gives; None where it is refused, in one line."""
    try:
        return read(*arguments)
    except (UserError, checkpoint.Damaged) as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return None


def damaged(data, edits):
    """The bytes with some replaced, some cut off, some doubled."""
    data = bytearray(data)
    for place, value, kind in edits:
        at = place % (len(data) + 1)
        if kind == "set":
            data[at : at + 1] = bytes([value])
        elif kind == "cut":
            del data[at : at + value]
        elif kind == "end":
            del data[at:]
        else:
            data[at:at] = data[at : at + value]
    return bytes(data)


EDITS = st.lists(
    st.tuples(st.integers(0, 2**20), st.integers(0, 255), st.sampled_from(["set", "set", "cut", "end", "double"])),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    weights = {"generator": {"w": torch.arange(6.0), "b": torch.arange(3)}}
    state = {"step": 3, "best": {"fid": 1.5}, "streams": {"latents": torch.arange(8, dtype=torch.uint8)}}
    return checkpoint.save(tmp_path_factory.mktemp("checkpoints"), 3, weights, state)


@given(edits=EDITS)
@settings(FUZZ)
def test_damaged_bytes_of_a_state_are_read_or_refused(folder, tmp_path, edits):
    (tmp_path / "state.pt").write_bytes(damaged((folder / "state.pt").read_bytes(), edits))
    refused_or(read_values, tmp_path / "state.pt")


@given(edits=EDITS)
@settings(FUZZ)
def test_damaged_bytes_of_weights_are_read_or_refused(folder, tmp_path, edits):
    (tmp_path / "w.safetensors").write_bytes(damaged((folder / "generator.safetensors").read_bytes(), edits))
    refused_or(read_tensors, tmp_path / "w.safetensors")


@given(header=st.dictionaries(st.text(max_size=5), ENTRY | PLAIN, max_size=3), size=st.integers(0, 200), off=NUMBER)
@settings(FUZZ)
def test_any_header_of_weights_is_read_or_refused(tmp_path, header, size, off):
    text = json.dumps(header).encode()
    length = len(text) if off != 0 else off
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(size))
    tensors = refused_or(read_tensors, tmp_path / "w.safetensors")
    assert sum(t.numel() * t.element_size() for t in (tensors or {}).values()) <= size


@given(manifest=PLAIN | st.fixed_dictionaries({"format_version": PLAIN, "sha256": st.dictionaries(st.text(), PLAIN)}))
@settings(FUZZ)
def test_any_manifest_is_taken_or_refused(folder, tmp_path, manifest):
    other = tmp_path / "copy"
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "manifest.json").write_text(json.dumps(manifest))
    refused_or(checkpoint.verify, other)


@given(data=st.binary(max_size=300))
@settings(FUZZ)
def test_any_bytes_in_place_of_a_manifest_are_damage(folder, tmp_path, data):
    other = tmp_path / "copy"
    shutil.copytree(folder, other, dirs_exist_ok=True)
    (other / "manifest.json").write_bytes(data)
    assert refused_or(checkpoint.verify, other) is None


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A small run's state, and a checkpoint of it."""
    folder = tmp_path_factory.mktemp("run")
    binds = ["generator.style.channels = [8, 8, 8]", "generator.style.latent_dim = 8", "generator.style.style_dim = 8",
             "discriminator.wavelet.channels = [4, 4]", f"dataset.lfw_faces.path = '{folder}/faces.lmdb'",
             "train.trackers = [@tracker.jsonl()]"]  # fmt: skip
    registry = load_plugins([], core=CORE)
    experiment = load_experiment(registry, ["quickstart.gin"], binds, search_path=[experiments_folder()])
    state = TrainingState(experiment.get("train")(), torch.device("cpu"))
    iteration(state, iter([(torch.randn(16, 3, 16, 16), None)]))  # Adam has its state from the first step on.
    networks = {name: copy.deepcopy(network.state_dict()) for name, network in state.networks().items()}
    return state, networks, copy.deepcopy(state.state_dict())


@given(data=st.data())
@settings(FUZZ)
def test_a_state_with_other_values_in_it_fits_or_is_refused(training, monkeypatch, data):
    state, networks, values = training
    values = copy.deepcopy(values)
    for _ in range(data.draw(st.integers(1, 3))):
        place = values
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and data.draw(st.booleans()):
                place = place[key]
                continue
            if data.draw(st.booleans()):
                place[key] = data.draw(PLAIN | st.just(torch.zeros(3)))
            elif isinstance(place, dict):
                del place[key]
            break
    # As if read from a file; the other tests are about the files.
    monkeypatch.setattr(checkpoint, "state", lambda path: values)
    monkeypatch.setattr(checkpoint, "weights", lambda path, name: networks[name])
    restored = refused_or(state.restore, Path("step-000000001"))
    if restored is not None:
        refused_or(state.load_trackers, restored.get("trackers", {}))


@given(
    text=st.lists(
        st.sampled_from(['{"step": 3}', '{"step": 5, "met', "[]", '{"step": null}', "\\u2028", ""]) | st.text()
    )
)
@settings(FUZZ)
def test_any_metrics_file_is_cut_or_refused(tmp_path, text):
    run = Run("run", "run", tmp_path, 8, 2, "", {}, {}, step=4)
    (tmp_path / "metrics.jsonl").write_text("\n".join(text), encoding="utf-8", errors="replace")
    refused_or(lambda: JsonLines().run_started(run))
