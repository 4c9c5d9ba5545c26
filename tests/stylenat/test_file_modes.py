"""Every file has the mode that the umask gives, whichever library writes it."""

import os

import pytest
import torch

from stylenat import checkpoint, weights
from stylenat.data import lmdb_writer
from stylenat.evaluation.cache import StatisticsCache
from stylenat.files import save_tensors, whole_file
from stylenat.grids import save_png

TENSORS = {"weight": torch.zeros(2)}


@pytest.fixture(params=[0o002, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder):
    return {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


def test_what_each_writer_writes_has_the_mode_of_the_umask(umask, tmp_path):
    checkpoint.save(tmp_path, 1, {"generator": TENSORS}, {"step": 1})
    weights.write(tmp_path / "weights", {"ema": TENSORS}, {"config.gin": ""}, {})
    StatisticsCache(tmp_path / "statistics", print).save({"content": "images"}, TENSORS, {})
    lmdb_writer.write(tmp_path / "images.lmdb", 8, [b"image"], {})
    save_png(tmp_path / "sample.png", torch.zeros(3, 2, 2))
    with whole_file(tmp_path / "text") as file:
        file.write(b"text")
    found = modes(tmp_path)
    assert {"generator.safetensors", "state.pt", "ema.safetensors", "data.mdb", "sample.png", "text"} <= set(found)
    assert set(found.values()) == {0o666 & ~umask}


def test_tensors_that_are_replaced_keep_their_files_mode(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(TENSORS, path)
    path.chmod(0o640)
    save_tensors({"weight": torch.ones(2)}, path, {"note": "text"})
    assert path.stat().st_mode & 0o777 == 0o640
    assert torch.equal(checkpoint.read_tensors(path)["weight"], torch.ones(2))


def test_all_of_a_run_and_its_data_set_have_the_mode_of_the_umask(ablated, ablation_file, tmp_path):
    (tmp_path / "ordinary").touch()
    ordinary = modes(tmp_path)["ordinary"]
    for folder in (ablated, ablation_file.parent / "faces.lmdb"):
        assert {name: mode for name, mode in modes(folder).items() if mode != ordinary} == {}
