"""A checkpoint made to harm is refused with one line: nothing is run, allocated or read outside of its folder."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from registry import UserError
from stylenat import checkpoint, weights
from stylenat.untrusted import HEADER_BYTES, read_tensors, read_values

HUGE = 2**50


@pytest.fixture
def folder(tmp_path):
    weights = {"generator": {"w": torch.arange(6.0)}}
    return checkpoint.save(tmp_path, 1, weights, {"step": 1, "moments": torch.arange(4.0)})


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def repacked(path, **replaced):
    """The zip with some entries replaced, by the ends of their names."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            ending = name.rpartition("/")[2].replace(".", "_")
            archive.writestr(name, replaced.get(ending, data))


def test_code_in_a_state_is_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": Bomb()}, folder / "state.pt")
    with pytest.raises(UserError, match="which could run code") as caught:
        checkpoint.state(folder)
    assert "\n" not in str(caught.value) and not Path("exploded").exists()
    (folder / "state.pt").write_bytes(pickle.dumps(Bomb()))  # The form from before zips.
    with pytest.raises(UserError):
        checkpoint.state(folder)
    repacked_folder = checkpoint.save(tmp_path, 2, {}, {"step": 2})
    repacked(repacked_folder / "state.pt", data_pkl=pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(UserError):
        checkpoint.state(repacked_folder)
    assert not Path("exploded").exists()


def test_a_storage_that_declares_more_than_the_file_holds_is_refused(folder):
    path = folder / "state.pt"
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("data.pkl"))
        text = archive.read(name)
    four = b"K\x04"  # In pickle: the number of elements, and the tensor's one dimension.
    assert text.count(four) >= 2
    repacked(path, data_pkl=text.replace(four, b"\x8a\x07" + (2**48).to_bytes(7, "little")))
    with pytest.raises(UserError, match="cannot read"):
        checkpoint.state(folder)


def test_a_small_storage_behind_a_huge_shape_is_refused(folder):
    torch.save({"moments": torch.zeros(1).expand(HUGE)}, folder / "state.pt")
    with pytest.raises(UserError, match="more than the file holds"):
        checkpoint.state(folder)


def test_compressed_entries_are_refused(folder):
    path = folder / "state.pt"
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data + bytes(10**6) if "/data/" in name else data)
    with pytest.raises(UserError, match="compressed"):
        checkpoint.state(folder)


@pytest.mark.parametrize("value", [{"x": torch.ones(2).to_sparse()}, [{1, 2}], {"x": torch.float32}])
def test_what_is_neither_a_tensor_nor_a_plain_value_is_refused(tmp_path, value):
    torch.save(value, tmp_path / "state.pt")
    with pytest.raises(UserError):
        read_values(tmp_path / "state.pt")


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 24]}},
        {"w": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}},
        {"w": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 24]}},
        {"w": {"dtype": "F32", "shape": [6], "data_offsets": [24, 48]}},
        {"w": {"dtype": "F32", "shape": [-6], "data_offsets": [0, 24]}},
        {name: {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]} for name in "vw"},
        {"w": 5},
        [],
    ],
)  # fmt: skip
def test_shapes_that_the_file_does_not_hold_are_refused(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
    with pytest.raises(UserError, match="cannot read weights"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("size", [HEADER_BYTES + 1, 2**63, 10**6])
def test_a_header_that_declares_too_much_is_refused(tmp_path, size):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", size) + b"{}" + bytes(24))
    with pytest.raises(UserError, match="cannot read weights"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret", "..", ".", "", "a/b", "a\\b", "a\0b", "\ud800", "é"])
def test_a_manifest_has_no_say_outside_of_its_folder(folder, name):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][name] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.Damaged, match="not a file of a checkpoint"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", ["state.pt", "generator.safetensors"])
def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path, name):
    read = read_values if name == "state.pt" else read_tensors
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.verify(folder)
    with pytest.raises(UserError, match="symbolic link"):
        read(folder / name)


def test_a_linked_folder_is_no_checkpoint_of_the_run_and_is_never_removed(folder, tmp_path):
    (tmp_path / "step-000000000").symlink_to(folder)
    assert checkpoint.found(tmp_path) == [folder]
    checkpoint.prune(tmp_path, written=10**9, newest=1, every=None, best=None)
    assert (tmp_path / "step-000000000").is_symlink()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", "[" * 100_000, '{"format_version": true, "sha256": {"a": "b"}}', '{"format_version": 1e9}',
     '{"format_version": 0, "sha256": {"a": "b"}}', '{"format_version": 1, "sha256": {}}', " " * (2**20 + 1)],
)  # fmt: skip
def test_a_manifest_that_is_none_is_damage(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(checkpoint.Damaged):
        checkpoint.verify(folder)


def test_lists_that_are_contained_many_times_in_each_other_are_refused(folder):
    value = [0]
    for _ in range(40):
        value = [value, value]
    torch.save({"step": value}, folder / "state.pt")
    assert (folder / "state.pt").stat().st_size < 4096
    with pytest.raises(UserError, match="unfold to more values than the file has bytes"):
        checkpoint.state(folder)


def test_a_tensor_that_is_contained_many_times_is_refused(folder):
    tensor = torch.zeros(1000)
    torch.save({"step": [tensor] * 1000}, folder / "state.pt")
    with pytest.raises(UserError, match="more than the file holds"):
        checkpoint.state(folder)


def bomb_of_zeros(path, megabytes):
    """A checkpoint whose storage is compressed to a thousandth of its size."""
    torch.save({"g_ema": {"w": torch.zeros(megabytes * 2**18)}}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_compressed_checkpoint_of_another_system_is_refused_unread(tmp_path):
    bomb_of_zeros(tmp_path / "bomb.pt", 16)
    assert (tmp_path / "bomb.pt").stat().st_size < 2**16
    with pytest.raises(UserError, match="compressed entries"):
        weights.read(tmp_path / "bomb.pt")


def test_weights_of_an_extractor_are_read_with_the_same_bounds(tmp_path):
    from plugins.features.published import tensors_in

    bomb_of_zeros(tmp_path / "bomb.pth", 16)
    with pytest.raises(UserError, match="compressed entries"):
        tensors_in(tmp_path / "bomb.pth")
    (tmp_path / "text.pth").write_text("c__builtin__\neval\n.")
    with pytest.raises(UserError) as caught:
        tensors_in(tmp_path / "text.pth")
    assert "weights_only" not in str(caught.value)  # PyTorch's text advises to read the file without restrictions.


def test_a_checkpoint_whose_tensors_are_larger_than_its_file_is_refused(tmp_path):
    torch.save({"g_ema": {"w": torch.zeros(1).expand(2**40)}}, tmp_path / "wide.pt")
    with pytest.raises(UserError, match="more than the file holds"):
        weights.read(tmp_path / "wide.pt")


def test_a_checkpoint_from_before_zips_is_read(tmp_path):
    state = {"g_ema": {"w": torch.arange(6.0)}, "epoch": 3}
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(weights.read(tmp_path / "old.pt").states["ema"]["w"], torch.arange(6.0))


@pytest.mark.parametrize("sums", ["generator.safetensors", "state.pt"])
def test_a_file_that_the_manifest_omits_makes_the_checkpoint_damaged(folder, sums):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"][sums]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.Damaged, match=f"has no checksum of {sums}"):
        checkpoint.verify(folder)


def test_a_fifo_as_a_manifest_is_damage_and_not_waited_for(folder):
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    with pytest.raises(checkpoint.Damaged):
        checkpoint.verify(folder)
