"""Weights from .npz files: untrusted, and the same bits on the way back."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from registry import UserError
from stylenat import weights
from stylenat.npz import SUFFIX, write_variables


def test_variables_are_read_to_the_bit_and_without_what_tensorflow_adds(tmp_path):
    arrays = {
        f"a/kernel{SUFFIX}": np.arange(6, dtype=">f4").reshape(2, 3),
        f"a/bias{SUFFIX}": np.asfortranarray(np.random.default_rng(0).standard_normal((3, 2))),
        f"step{SUFFIX}": np.int64(7),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    (state,) = weights.read(tmp_path / "x.npz").states.values()
    assert set(state) == {"a/kernel", "a/bias", "step"}
    assert all(np.array_equal(state[name.removesuffix(SUFFIX)].numpy(), value) for name, value in arrays.items())


def test_networks_are_told_apart_by_the_first_part_of_their_names(tmp_path):
    states = {"g_ema": {"a/kernel": torch.randn(2, 3)}, "d": {"a/kernel": torch.randn(4), "b": torch.arange(3)}}
    with open(tmp_path / "x.npz", "wb") as file:
        write_variables(file, states)
    found = weights.read(tmp_path / "x.npz").states
    assert found.keys() == {"ema", "discriminator"}
    for name, theirs in (("ema", "g_ema"), ("discriminator", "d")):
        assert found[name].keys() == states[theirs].keys()
        assert all(torch.equal(found[name][key], value) for key, value in states[theirs].items())


def header(shape, descr="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": descr})
    return file.getvalue()


def entry(path, data, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("w.npy", data)


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


def test_files_made_to_harm_are_refused_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("objects.npz", w=np.array([Bomb()], dtype=object))
    np.savez("text.npz", w=np.array(["text"]))
    entry("declares.npz", header((2**40,)) + b"1234")
    entry("negative.npz", header((-1,)) + b"1234")
    entry("compressed.npz", header((2**22,)) + bytes(2**24), zipfile.ZIP_DEFLATED)
    entry("bytes.npz", b"no array")
    Path("empty.npz").write_bytes(b"")
    for name in ("objects", "text", "declares", "negative", "compressed", "bytes", "empty"):
        with pytest.raises(UserError) as caught:
            weights.read(Path(f"{name}.npz"))
        said = "empty" if name == "empty" else "damaged, or no checkpoint ("
        assert f"{name}.npz is {said}" in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("exploded").exists()
